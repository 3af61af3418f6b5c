"""Write a store's vectors, ids and payloads to files that other programs read.

.parquet and .arrow files (extra: arrow) hold everything; ids and payloads of a .npy file are in separate files. qvec
import reads them all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import qvec
from qvec.cli.output import print_json
from qvec.cli.search import as_where
from qvec.common.console import human_bytes, progress
from qvec.interchange import ExportFormat, export


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("file", metavar="FILE", type=Path, help="the file to write: .parquet .arrow .npy")
    parser.add_argument("--format", choices=get_args(ExportFormat), help="default: by the suffix of FILE")
    parser.add_argument("--no-payloads", dest="payloads", action="store_false", help="omit payloads")
    parser.add_argument("--where", metavar="JSON", help="only vectors that match a filter on declared fields")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--json", action="store_true", help="print the files and the number of rows as JSON")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="r") as db, progress(f"exporting {args.store}", "rows") as report:
        options = {"payloads": args.payloads, "overwrite": args.overwrite, "where": as_where(args.where)}
        done = export(db, args.file, args.format, **options, progress=report)
    if args.json:
        print_json({"rows": done.rows, "files": list(map(str, done.files))})
        return 0
    for file in done.files:
        print(f"{file}: {done.rows:,} rows, {human_bytes(file.stat().st_size)}")
    return 0
