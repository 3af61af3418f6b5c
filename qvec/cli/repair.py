"""Make anew what is damaged in a store and follows from the rest: codes, graph, lists, id map, field indexes.

Exit code 0: the store is sound now; what was made is listed. 2: it cannot be repaired; nothing was written.
"""

from __future__ import annotations

import argparse
import json

import qvec


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--json", action="store_true", help='print {"store": ..., "made": [...]}')


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store) as db:
        made = db.repair()
    if args.json:
        print(json.dumps({"store": args.store, "made": made}))
    else:
        print(*(f"{args.store}: made anew: {part}" for part in made), f"{args.store}: sound", sep="\n")
    return 0
