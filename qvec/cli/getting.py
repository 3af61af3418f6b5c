"""Print stored vectors and payloads by id."""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.rows import add_output, print_rows
from qvec.cli.search import as_ids


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("ids", metavar="ID", nargs="+", help="ids to print")
    parser.add_argument(
        "--missing", choices=("ignore", "error"), default="error", help="for ids that are not stored (default: error)"
    )
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="r") as db:
        print_rows(db.get(as_ids(db, args.ids), missing=args.missing), args)
    return 0
