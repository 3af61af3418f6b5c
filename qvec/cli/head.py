"""Print the oldest stored vectors and payloads, or the oldest that match a filter."""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.rows import add_output, print_rows
from qvec.cli.search import as_where


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("-n", type=int, default=10, metavar="N", help="vectors to print (default: 10)")
    parser.add_argument("--offset", type=int, default=0, metavar="N", help="skip the oldest N")
    parser.add_argument("--where", metavar="JSON", help="only vectors that match a filter on declared fields")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    where = as_where(args.where) or {}
    with qvec.open(args.store, mode="r") as db:
        print_rows(db.get(where=where, limit=args.n, offset=args.offset), args)
    return 0
