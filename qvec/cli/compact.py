"""Return free pages to the file system: a checked copy replaces the file, which no other process may have open."""

from __future__ import annotations

import argparse

import qvec


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store) as db:
        print(f"{db.compact():,} bytes were released")
    return 0
