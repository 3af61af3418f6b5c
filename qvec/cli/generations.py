"""List the generations of codes; export, import or drop one, or train one on a file of vectors."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

import qvec
from qvec.cli.output import print_json
from qvec.cli.writing import add_timeout
from qvec.common.console import print_table
from qvec.common.errors import InputError
from qvec.datasets import load_vectors

COLUMNS = ("number", "code", "id", "bytes", "method", "model", "created", "trained on", "rows", "active")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--export", type=int, metavar="N", help="print the trained code of generation N as JSON")
    act.add_argument(
        "--import", dest="source", type=Path, metavar="FILE", help="store what --export printed as a generation"
    )
    act.add_argument("--train", type=Path, metavar="FILE", help="store a generation trained on the vectors of a file")
    act.add_argument("--drop", type=int, metavar="N", help="remove generation N and its codes")
    parser.add_argument("--queries", type=Path, metavar="FILE", help="queries for which --train learns a projection")
    parser.add_argument("--method", metavar="NAME", help="how --train finds ranges, for example: percentile")
    parser.add_argument(
        "--activate", action="store_true", help="requantize to the generation that --import or --train stored"
    )


def run(args: argparse.Namespace) -> int:
    writes = any(value is not None for value in (args.source, args.train, args.drop))
    with qvec.open(args.store, mode="rw" if writes else "r", timeout=args.timeout) as db:
        if args.export is not None:
            print(db.export_calibration(args.export))
            return 0
        if args.source is not None:
            db.import_calibration(_text_of(args.source), activate=args.activate)
        elif args.train is not None:
            sample = np.asarray(load_vectors(args.train), np.float32)
            queries = None if args.queries is None else np.asarray(load_vectors(args.queries), np.float32)
            db.calibrate(sample, queries=queries, method=args.method, activate=args.activate)
        elif args.drop is not None:
            db.drop_generation(args.drop)
        found = [dataclasses.asdict(generation) for generation in db.generations()]
    if args.json:
        for row in found:
            print_json(row)
    else:
        print_table("", COLUMNS, [list(map(_shown, row.values())) for row in found])
    return 0


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not what --export prints: {error.reason} at byte {error.start}") from error


def _shown(value: object) -> object:
    """A value in a table; a time to the minute."""
    if isinstance(value, str) and len(value) > 16 and value[10] == "T":
        return value[:16].replace("T", " ")
    return "-" if value is None else value
