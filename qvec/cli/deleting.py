"""Delete vectors by id or by a filter."""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.output import print_json
from qvec.cli.search import as_ids, as_where
from qvec.cli.writing import add_timeout
from qvec.common.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    add_selection(parser, "delete")


def add_selection(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the options of delete and erase."""
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("ids", metavar="ID", nargs="*", help=f"ids to {verb}")
    parser.add_argument("--where", metavar="JSON", help="only vectors that match a filter on declared fields")
    parser.add_argument(
        "--missing", choices=("ignore", "error"), default="ignore", help="for ids that are not stored (default: ignore)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: one for each core)")
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print the number of vectors as JSON")


def run(args: argparse.Namespace) -> int:
    if not args.ids and args.where is None:
        raise InputError("give ids, or --where with a filter")
    with qvec.open(args.store, timeout=args.timeout) as db:
        ids = as_ids(db, args.ids) if args.ids else None
        deleted = db.delete(ids, where=as_where(args.where), missing=args.missing, threads=args.threads)
    print_json({"deleted": deleted}) if args.json else print(f"{deleted:,} deleted")
    return 0
