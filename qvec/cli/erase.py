"""Delete vectors by id or by a filter, and overwrite all their bytes in the file.

Without ID and --where: overwrite vectors that were deleted before.
"""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.deleting import add_selection
from qvec.cli.output import print_json
from qvec.cli.search import as_ids, as_where
from qvec.common.console import progress


def configure(parser: argparse.ArgumentParser) -> None:
    add_selection(parser, "erase")
    parser.add_argument("--expired", action="store_true", help="also the vectors that have expired")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, timeout=args.timeout) as db, progress("erasing", "rows") as report:
        ids, where = as_ids(db, args.ids), as_where(args.where)
        options = {"expired": args.expired, "missing": args.missing, "threads": args.threads, "progress": report}
        erased = db.erase(ids if ids or where is None else None, where=where, **options)
    text = f"{erased:,} deleted; the file holds no deleted data"
    print_json({"erased": erased}) if args.json else print(text)
    return 0
