"""Write a store's vectors, ids and payloads to files that other programs read.

.parquet and .arrow files (extra: arrow) hold everything; ids and payloads of a .npy file are in separate files. qvec
import reads them all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import qvec
from qvec.common.console import human_bytes, progress
from qvec.interchange import ExportFormat, export


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("file", metavar="FILE", type=Path, help="the file to write: .parquet .arrow .npy")
    parser.add_argument("--format", choices=get_args(ExportFormat), help="default: by the suffix of FILE")
    parser.add_argument("--no-payloads", dest="payloads", action="store_false", help="omit payloads")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="r") as db, progress(f"exporting {args.store}", "rows") as report:
        done = export(db, args.file, args.format, payloads=args.payloads, overwrite=args.overwrite, progress=report)
    for file in done.files:
        print(f"{file}: {done.rows:,} rows, {human_bytes(file.stat().st_size)}")
    return 0
