"""Write a store's vectors, ids and payloads to files that other programs read.

.parquet and .arrow (extra: arrow) hold everything; a .npy file has the ids and payloads in files beside it. What is
written can be read back with qvec import.
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
    parser.add_argument("--format", choices=get_args(ExportFormat), help="default: told by FILE's suffix")
    parser.add_argument("--no-payload", dest="payload", action="store_false", help="leave payloads out")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="r") as db, progress(f"exporting {args.store}", "rows") as report:
        done = export(db, args.file, args.format, payload=args.payload, overwrite=args.overwrite, progress=report)
    for file in done.files:
        print(f"{file}: {done.rows:,} rows, {human_bytes(file.stat().st_size)}")
    return 0
