"""Take deleted vectors out of the index and close the gaps between rows, while searches go on."""

from __future__ import annotations

import argparse

import qvec
from qvec.common.console import progress


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: 1)")
    parser.add_argument("--compact", action="store_true", help="then return free pages to the file system")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store) as db:
        with progress("optimizing", "rows") as report:
            released = db.optimize(threads=args.threads, progress=report)
        print(f"{released:,} unused rows were released")
        if args.compact:
            print(f"{db.compact():,} bytes were released")
    return 0
