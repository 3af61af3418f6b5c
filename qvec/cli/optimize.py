"""Remove deleted rows from the index and move rows into unused rows, while searches continue."""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.output import print_json
from qvec.cli.writing import add_timeout
from qvec.common.console import progress


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: 1)")
    parser.add_argument("--compact", action="store_true", help="then return free pages to the file system")
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, timeout=args.timeout) as db:
        with progress("optimizing", "rows") as report:
            released = db.optimize(threads=args.threads, progress=report)
        size = db.compact() if args.compact else None
    if args.json:
        print_json({"released_rows": released, "released_bytes": size})
        return 0
    print(f"{released:,} unused rows were released")
    if size is not None:
        print(f"{size:,} bytes were released")
    return 0
