"""Copy the last commit to a new file, without free pages, while others read and write.

The copy is an ordinary store: to restore it, open it.
"""

from __future__ import annotations

import argparse
import os

import qvec


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("dest", metavar="DEST", help="the new file")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="r") as db:
        db.backup(args.dest)
    print(f"{args.dest}: {os.path.getsize(args.dest):,} bytes")
    return 0
