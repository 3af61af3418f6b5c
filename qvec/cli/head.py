"""Print the oldest stored vectors and payloads, or the oldest that match a filter."""

from __future__ import annotations

import argparse
from typing import Any

import qvec
from qvec.cli.rows import add_output, print_rows
from qvec.cli.search import as_where
from qvec.common.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("-n", type=int, default=10, metavar="N", help="vectors to print (default: 10)")
    parser.add_argument("--offset", type=int, default=0, metavar="N", help="skip the oldest N")
    parser.add_argument("--order-by", metavar="FIELD", help="the vectors with the smallest values of a field")
    parser.add_argument("--desc", action="store_true", help="with --order-by: those with the largest values")
    parser.add_argument("--where", metavar="JSON", help="only vectors that match a filter on declared fields")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    where = as_where(args.where) or {}
    if args.desc and args.order_by is None:
        raise InputError("--desc is for --order-by")
    order: Any = (args.order_by, "desc") if args.desc else args.order_by
    with qvec.open(args.store, mode="r") as db:
        print_rows(db.get(where=where, limit=args.n, offset=args.offset, order_by=order), args)
    return 0
