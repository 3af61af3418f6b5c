"""Delete vectors by id or by a filter, and overwrite all their bytes in the file.

Without ID and --where: overwrite vectors that were deleted before.
"""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.output import print_json
from qvec.cli.search import as_ids, as_where
from qvec.common.console import progress


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("ids", metavar="ID", nargs="*", help="ids to erase")
    parser.add_argument("--where", metavar="JSON", help="only vectors that match a filter on declared fields")
    parser.add_argument(
        "--missing", choices=("ignore", "error"), default="ignore", help="for ids that are not stored (default: ignore)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: one for each core)")
    parser.add_argument("--json", action="store_true", help="print the number of vectors as JSON")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store) as db, progress("erasing", "rows") as report:
        ids, where = as_ids(db, args.ids), as_where(args.where)
        options = {"missing": args.missing, "threads": args.threads, "progress": report}
        erased = db.erase(ids if ids or where is None else None, where=where, **options)
    text = f"{erased:,} deleted; the file holds no deleted data"
    print_json({"erased": erased}) if args.json else print(text)
    return 0
