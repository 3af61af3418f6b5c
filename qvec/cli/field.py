"""List the declared fields, which searches can filter by; add or drop one."""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.output import print_json
from qvec.cli.writing import add_timeout
from qvec.common.console import print_table, progress
from qvec.common.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "add", "drop"), metavar="list|add|drop", help="what to do")
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the payload key, for add and drop")
    parser.add_argument(
        "type", metavar="TYPE", nargs="?", help="for add: keyword, int, float, bool, datetime, or a list as keyword[]"
    )
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print the fields as one JSON object")


def run(args: argparse.Namespace) -> int:
    wanted = {"list": 0, "drop": 1, "add": 2}[args.action]
    if sum(value is not None for value in (args.name, args.type)) != wanted:
        raise InputError(f"field {args.action} takes STORE{' NAME' * (wanted > 0)}{' TYPE' * (wanted > 1)}")
    with qvec.open(args.store, mode="rw" if wanted else "r", timeout=args.timeout) as db:
        if args.action == "add":
            with progress("indexing", "rows") as report:
                db.add_field(args.name, args.type, progress=report)
        elif args.action == "drop":
            db.drop_field(args.name)
        fields = dict(db.fields)
    print_json(fields) if args.json else print_table(args.store, ("field", "type"), list(fields.items()))
    return 0
