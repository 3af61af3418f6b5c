"""Measure codes on the stored vectors: recall with its interval, bytes, latency, and where recall is lost.

With --relevant, measure searches: nDCG, recall, MRR and hits by vectors, by texts and by both.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import qvec
from qvec.cli.output import print_json
from qvec.cli.relevance import add_relevance, evaluate_relevance
from qvec.common.console import progress
from qvec.common.errors import InputError, NotFoundError
from qvec.common.extras import require
from qvec.datasets import load_vectors

DEFAULT_N = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    add_measuring(parser, DEFAULT_N)
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw recall against bytes to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(default_n=DEFAULT_N)
    add_relevance(parser)


def add_measuring(parser: argparse.ArgumentParser, n: int | None) -> None:
    """Add the options of evaluate and choose."""
    parser.add_argument("--queries", type=Path, metavar="FILE", help="query vectors (default: held-out rows)")
    parser.add_argument("--key", metavar="NAME", help="array of an .npz or .hdf5 file (for example: test)")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="neighbors of each query (default: 10)")
    parser.add_argument(
        "-n",
        type=int,
        default=n,
        metavar="N",
        help=f"queries to measure with (default: {n or '1000, or 500 and more for codes alone'})",
    )
    parser.add_argument("--codes", metavar="LIST", help="codes to measure, separated by commas (default: all)")


def measuring(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_measuring` as arguments of evaluate and choose."""
    queries = None if args.queries is None else load_vectors(args.queries, args.key)
    codes = "all" if args.codes is None else args.codes.split(",")
    return {"queries": queries, "k": args.k, "n": args.n, "codes": codes}


def run(args: argparse.Namespace) -> int:
    if args.relevant is not None:
        return evaluate_relevance(args)
    if args.texts is not None or args.fusion is not None or args.tune:
        raise InputError("--texts, --fusion and --tune need --relevant")
    if args.plot is not None:  # refused now, not after minutes of measuring
        require("matplotlib.figure")
        if not args.plot.resolve().parent.is_dir():
            raise NotFoundError(f"{args.plot.resolve().parent}: no such directory")
    with qvec.open(args.store, mode="r") as db, progress("measuring", "codes") as report:
        found = db.evaluate(**measuring(args), progress=report)
    if args.plot is not None:
        found.plot(args.plot)
    if args.json:
        for row in found.to_dicts():
            print_json(row)
    else:
        found.show()
    return 0
