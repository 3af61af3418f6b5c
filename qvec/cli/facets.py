"""Count the stored vectors by value of a declared field, the most frequent values first."""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.output import print_json
from qvec.cli.search import as_where
from qvec.common.console import print_table


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("field", metavar="FIELD", help="a declared field, see qvec field list")
    parser.add_argument("--where", metavar="JSON", help="only vectors that match a filter on declared fields")
    parser.add_argument("-n", dest="limit", type=int, metavar="N", help="values to print (default: all)")
    parser.add_argument("--json", action="store_true", help='print a line {"value": ..., "count": ...} for each value')


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="r") as db:
        counts = db.facets(args.field, where=as_where(args.where), limit=args.limit)
    if args.json:
        for value, count in counts.items():
            print_json({"value": value, "count": count})
    else:
        print_table("", (args.field, "count"), [(value, f"{count:,}") for value, count in counts.items()])
    return 0
