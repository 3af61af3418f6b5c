"""Take what is deleted out of the index and close up the rows, while searches go on; then compact gives room back."""

from __future__ import annotations

import argparse

import qvec
from qvec.common.console import progress


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to work with (default: 1)")
    parser.add_argument("--compact", action="store_true", help="give free pages back afterwards")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store) as db:
        with progress("optimizing", "rows") as report:
            closed_up = db.optimize(threads=args.threads, progress=report)
        print(f"{closed_up:,} deleted rows were closed up")
        if args.compact:
            print(f"{db.compact():,} bytes were given back")
    return 0
