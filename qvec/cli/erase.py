"""Delete vectors by id or by a filter, and overwrite every byte of them in the file.

Without ID and --where: overwrite what was deleted before.
"""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.search import as_ids, as_where
from qvec.common.console import progress


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("ids", metavar="ID", nargs="*", help="ids to erase")
    parser.add_argument("--where", metavar="JSON", help="only what fulfils a filter on declared fields")
    parser.add_argument("--missing", choices=("ignore", "error"), default="ignore", help="ids that are not stored")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store) as db, progress("erasing", "rows") as report:
        ids, where = as_ids(db, args.ids), as_where(args.where)
        erased = db.erase(ids if ids or where is None else None, where=where, missing=args.missing, progress=report)
    print(f"{erased:,} deleted; nothing of what was deleted is left in the file")
    return 0
