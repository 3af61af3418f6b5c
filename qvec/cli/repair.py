"""Rebuild damaged data that follows from valid data: codes, graph, lists, id map, field indexes.

Exit code 0: the store has no problems now; rebuilt data is listed. 2: it cannot be repaired; nothing was written.
"""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.output import print_json
from qvec.cli.writing import add_timeout


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: one for each core)")
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help='print {"store": ..., "rebuilt": [...]}')


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, timeout=args.timeout) as db:
        rebuilt = db.repair(threads=args.threads)
    if args.json:
        print_json({"store": args.store, "rebuilt": rebuilt})
    else:
        print(*(f"{args.store}: rebuilt: {part}" for part in rebuilt), f"{args.store}: no damage", sep="\n")
    return 0
