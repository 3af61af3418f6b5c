"""Give the file's free pages back: a checked copy without them takes its place. No other process may have it open."""

from __future__ import annotations

import argparse

import qvec


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store) as db:
        print(f"{db.compact():,} bytes were given back")
    return 0
