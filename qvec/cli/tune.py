"""Measure recall against the cost of a search, and store the curves that `qvec search --recall` uses."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import qvec
from qvec.cli.output import print_json
from qvec.cli.writing import add_timeout
from qvec.common.console import print_table, progress
from qvec.datasets import load_vectors


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--queries", type=Path, metavar="FILE", help="query vectors (default: stored rows)")
    parser.add_argument("--key", metavar="NAME", help="array of an .npz or .hdf5 file (for example: test)")
    parser.add_argument("-k", type=int, nargs="+", default=[10, 100], metavar="N", help="neighbors (default: 10 100)")
    parser.add_argument("-n", type=int, default=1000, metavar="N", help="queries to measure with (default: 1000)")
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object for each curve, a line each")


def run(args: argparse.Namespace) -> int:
    queries = None if args.queries is None else load_vectors(args.queries, args.key)
    with qvec.open(args.store, timeout=args.timeout) as db, progress("measuring", "curves") as report:
        curves = db.tune(queries, ks=args.k, n=args.n, progress=report)
    for curve in curves.curves:
        if args.json:
            head = {"n": curves.n, "n_queries": curves.n_queries, "index": curves.index}
            print_json({**head, **dataclasses.asdict(curve)})
            continue
        print_table(
            f"recall@{curve.k} of {curves.n:,} rows, {curves.n_queries:,} {curves.source}, index {curves.index}",
            ("ef", "nprobe", "candidates", "recall", "at least", "codes scored"),
            [
                (
                    str(p.ef or "-"),
                    str(p.nprobe or "-"),
                    str(p.candidates),
                    f"{p.recall:.4f}",
                    f"{p.low:.4f}",
                    f"{p.cost:,.0f}",
                )
                for p in curve.points
            ],
        )
    return 0
