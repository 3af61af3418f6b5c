"""Measure the relevance of searches by vectors, by texts and by both (``qvec evaluate --relevant``)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import qvec
from qvec.cli.output import print_json
from qvec.cli.search import as_fusion, as_ids
from qvec.common.console import print_text
from qvec.common.errors import InputError
from qvec.datasets import load_vectors
from qvec.datasets.judgments import Judgments, load_judgments, load_texts


def add_relevance(parser: argparse.ArgumentParser) -> None:
    """Add the options of an evaluation with relevant ids."""
    group = parser.add_argument_group("relevance of searches, in place of recall of codes")
    group.add_argument(
        "--relevant", type=Path, metavar="QRELS", help="judgments: query, document, grade a line (BEIR, TREC)"
    )
    group.add_argument(
        "--texts", type=Path, metavar="FILE", help="texts of the queries: .jsonl with _id and text, or a text a line"
    )
    group.add_argument("--fusion", metavar="HOW", help="rrf, weighted, or weights such as vector=0.6,text=0.4")
    group.add_argument(
        "--tune", action="store_true", help="choose the fusion on half of the queries, and store it as the default"
    )


def evaluate_relevance(args: argparse.Namespace) -> int:
    """Run the evaluation."""
    if args.codes is not None or args.plot is not None or args.n != args.default_n:
        raise InputError("-n, --codes and --plot are for the recall of codes; they do not go with --relevant")
    if args.tune and args.fusion is not None:
        raise InputError("--tune chooses the fusion; it does not go with --fusion")
    judgments = load_judgments(args.relevant)
    texts = None if args.texts is None else load_texts(args.texts)
    queries = None if args.queries is None else load_vectors(args.queries, args.key)
    if texts is None and queries is None:
        raise InputError("--relevant needs --queries, --texts or both")
    names = list(texts) if texts is not None else [str(i) for i in range(len(queries))]  # type: ignore[arg-type]
    if queries is not None and len(queries) != len(names):
        raise InputError(f"{args.queries} has {len(queries)} queries, {args.texts} has {len(names)}")
    with qvec.open(args.store, mode="rw" if args.tune else "r") as db:
        chosen = _judged(names, judgments)
        options: dict[str, Any] = {"relevant": [_relevant(db, judgments[names[i]]) for i in chosen], "k": args.k}
        options["queries"] = None if queries is None else queries[chosen]
        options["texts"] = None if texts is None else [texts[names[i]] for i in chosen]
        if args.tune:
            choice = db.tune_fusion(**options)
            report = choice.report
        else:
            report = db.evaluate(**options, fusion=as_fusion(args.fusion))
    _print(report, args.json)
    if args.tune and not args.json:
        print_text("stored as the default of searches; the figures are of the other half of the queries")
    return 0


def _judged(names: list[str], judgments: Judgments) -> list[int]:
    """The places of the queries that have a relevant document. Raises InputError if there are none."""
    chosen = [i for i, name in enumerate(names) if any(judgments.get(name, {}).values())]
    if not chosen:
        raise InputError(f"no query has a relevant document: queries are named {names[0]!r}, ...")
    return chosen


def _relevant(db: qvec.Collection, grades: dict[str, float]) -> dict[Any, float]:
    return dict(zip(as_ids(db, list(grades)), grades.values(), strict=True))


def _print(report: qvec.RelevanceReport, as_json: bool) -> None:
    if not as_json:
        report.show()
        return
    for row in report.to_dicts():
        print_json(row)
