"""Copy the last commit to a new file, without free pages, while others read and write.

The copy is an ordinary store: to restore it, open it.
"""

from __future__ import annotations

import argparse
import os

import qvec
from qvec.cli.output import print_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("dest", metavar="DEST", help="the new file")
    parser.add_argument("--json", action="store_true", help="print the new file and its size as JSON")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="r") as db:
        db.backup(args.dest)
    size = os.path.getsize(args.dest)
    print_json({"file": args.dest, "bytes": size}) if args.json else print(f"{args.dest}: {size:,} bytes")
    return 0
