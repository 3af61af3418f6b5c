"""Print the number of stored vectors, or of those that match a filter."""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.output import print_json
from qvec.cli.search import as_where


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--where", metavar="JSON", help="only vectors that match a filter on declared fields")
    parser.add_argument("--json", action="store_true", help='print {"count": ...}')


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="r") as db:
        n = db.count(as_where(args.where))
    print_json({"count": n}) if args.json else print(n)
    return 0
