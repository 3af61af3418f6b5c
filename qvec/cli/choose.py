"""Find the smallest code that reaches a recall on the stored vectors; with --apply, make it active.

Exit code 1: no code meets the target.
"""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.evaluate import add_measuring, measuring, print_report
from qvec.common.console import progress


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--recall", type=float, default=0.95, metavar="R", help="recall to reach (default: 0.95)")
    parser.add_argument("--max-bytes", type=int, metavar="N", help="largest size of a code in bytes")
    parser.add_argument(
        "--max-p99-ms", type=float, metavar="MS", help="largest 99th percentile of the latency of a search"
    )
    add_measuring(parser, 2000)
    parser.add_argument("--apply", action="store_true", help="requantize to the code that was found")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="rw" if args.apply else "r") as db:
        with progress("measuring", "codes") as report:
            options = measuring(args) | {"max_bytes": args.max_bytes, "max_p99_ms": args.max_p99_ms}
            choice = db.choose(args.recall, **options, progress=report)
        print_report(choice.report)
        print(choice)
        if args.apply and choice.met:
            with progress("requantizing", "rows") as report:
                print(f"generation {choice.apply(report).number} is active")
    return 0 if choice.met else 1
