"""Return free pages to the file system: a checked copy replaces the file, which no other process may have open."""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.output import print_json
from qvec.cli.writing import add_timeout


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print the number of bytes as JSON")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, timeout=args.timeout) as db:
        released = db.compact()
    print_json({"released_bytes": released}) if args.json else print(f"{released:,} bytes were released")
    return 0
