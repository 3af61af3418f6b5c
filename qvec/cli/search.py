"""Find the stored vectors nearest to each query.

Queries are the rows of a file of vectors, one of its rows (--row), or a stored vector (--id), which is not its own
neighbor; or texts (--text), which text fields are searched for. With both, there is a text for each row.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import qvec
from qvec.cli.output import print_json
from qvec.cli.stdin import as_file
from qvec.common.console import print_table
from qvec.common.errors import InputError
from qvec.common.text_tables import shortened
from qvec.datasets import load_vectors
from qvec.search.explain import Explanation

BATCH = 1024  # queries of one call: the first answers of a long file are printed at once
OPTIONS = ("k", "max_distance", "offset", "ef", "nprobe", "oversample", "recall", "exact", "threads", "timeout")
PAYLOAD_WIDTH = 200  # characters of a payload that are considered; the table truncates them


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument(
        "queries",
        metavar="QUERIES",
        type=Path,
        nargs="?",
        help="file of query vectors; - for standard input",
    )
    parser.add_argument("--row", type=int, metavar="N", help="search only for row N of QUERIES, counted from 0")
    parser.add_argument("--id", metavar="ID", help="search for the vector that is stored under ID")
    parser.add_argument("--text", action="append", metavar="WORDS", help="search text fields for words; repeatable")
    parser.add_argument(
        "--fusion", metavar="HOW", help="of vectors and texts: rrf, weighted, or vector=0.6,text=0.4 (see evaluate)"
    )
    parser.add_argument("--key", metavar="NAME", help="array of an .npz or .hdf5 file (for example: test)")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="neighbors of each query (default: 10)")
    parser.add_argument("--max-distance", type=float, metavar="D", help="only hits at this distance or nearer")
    parser.add_argument("--offset", type=int, default=0, metavar="N", help="skip the nearest N hits")
    parser.add_argument("--mmr", type=float, metavar="W", help="diverse hits: weight of nearness, 0 to 1")
    parser.add_argument(
        "--where", metavar="JSON", help='only vectors that match a filter: \'{"year": {"$gte": 2020}}\''
    )
    parser.add_argument(
        "--boost",
        type=_boost,
        metavar="FIELD=TIME",
        help="recent hits first: a datetime field and a half-life, as at=7d",
    )
    parser.add_argument("--group-by", metavar="FIELD", help="the nearest K groups of vectors with one value of a field")
    parser.add_argument("--group-size", type=int, default=1, metavar="N", help="hits of each group (default: 1)")
    parser.add_argument("--ef", type=int, metavar="N", help="candidates of a graph walk: more is slower and better")
    parser.add_argument("--nprobe", type=int, metavar="N", help="inverted lists to scan: more is slower and better")
    parser.add_argument(
        "--oversample",
        type=_oversample,
        default="auto",
        metavar="F",
        help="candidates re-ranked per hit; 0 ranks by the codes alone",
    )
    parser.add_argument("--recall", type=float, metavar="R", help="share of the true neighbors to find (see qvec tune)")
    parser.add_argument("--exact", action="store_true", help="compare with every stored vector, in float32")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: one for each core)")
    parser.add_argument("--timeout", type=float, metavar="S", help=f"seconds that {BATCH} queries may take at most")
    parser.add_argument("--explain", action="store_true", help="also print how hits were found: counts and times")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each query, a line each")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="r") as db:
        for labels, hits in _answers(db, args):
            for label, found in zip(labels, hits.to_list(), strict=True):
                _print_json(label, found) if args.json else _print_table(label, found)
            if args.explain:
                _print_explanation(hits.explanation, args.json)
    return 0


def _answers(db: qvec.Collection, args: argparse.Namespace) -> Iterator[tuple[list[int | str], qvec.BatchHits]]:
    """Labels and hits of the queries, batch by batch."""
    if (args.queries is None and args.text is None) == (args.id is None):
        raise InputError("name either a file of QUERIES, --text or both, or --id")
    if args.fusion is not None and args.text is None:
        raise InputError("--fusion joins vectors and texts: give --text")
    include = ("payloads", "explanation") if args.explain else ("payloads",)
    options: dict[str, Any] = {name: getattr(args, name) for name in OPTIONS}
    if args.boost is not None:
        if args.id is not None:
            raise InputError("--boost does not go with --id")
        options |= {"boost": args.boost}
    options |= {"where": as_where(args.where), "include": include}
    if args.group_by is not None:
        if args.id is not None or args.mmr is not None:
            raise InputError("--group-by does not go with --id and --mmr")
        options |= {"group_by": args.group_by, "group_size": args.group_size}
    else:
        options["mmr"] = args.mmr
    if args.id is not None:
        if args.row is not None:
            raise InputError("--row picks a row of QUERIES; it does not go with --id")
        yield [args.id], db.search_by_id(as_ids(db, [args.id]), **options)
        return
    search: Any = db.search if args.group_by is None else db.search_groups
    labels, vectors = _all_queries(args)
    for start in range(0, len(labels), BATCH):
        batch = slice(start, start + BATCH)
        if args.text is not None:
            options |= {"text": args.text[batch], "fusion": as_fusion(args.fusion)}
        yield labels[batch], search(None if vectors is None else np.asarray(vectors[batch]), **options)


def _all_queries(args: argparse.Namespace) -> tuple[list[int | str], NDArray[Any] | None]:
    """Labels of the queries, and the vectors, if there are any."""
    if args.queries is None:
        if args.row is not None:
            raise InputError("--row picks a row of QUERIES")
        return list(args.text), None
    with as_file(args.queries) as file:
        labels, vectors = _queries(args, file)
    if args.text is None or len(args.text) == len(labels):
        return labels, vectors
    raise InputError(
        f"{len(labels)} queries of {args.queries} and {len(args.text)} of --text: give a text for each row"
    )


def _queries(args: argparse.Namespace, file: Path) -> tuple[list[int | str], NDArray[Any]]:
    """Labels of the queries, and the queries."""
    vectors = load_vectors(file, args.key)
    if args.row is None:
        return list(range(len(vectors))), vectors
    if not 0 <= args.row < len(vectors):
        raise InputError(f"{args.queries} has rows 0 to {len(vectors) - 1}; --row is {args.row}")
    return [args.row], vectors[args.row : args.row + 1]


def _boost(text: str) -> dict[str, tuple[str, str]]:
    field, equals, half_life = text.rpartition("=")
    if not (field and equals and half_life):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=TIME")
    return {field: ("decay", half_life)}


def _oversample(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, nor auto") from None


def as_fusion(text: str | None) -> Any:
    """A fusion from the command line. Raises InputError for weights that are no numbers."""
    if text is None or "=" not in text:
        return text
    weights = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        try:
            weights[name.strip()] = float(weight)
        except ValueError:
            raise InputError(f"--fusion: {part!r} is not NAME=WEIGHT") from None
    return weights


def as_where(text: str | None) -> Any:
    """A filter from the command line. Raises InputError if it is not JSON."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"--where is not JSON: {error}") from None


def as_ids(db: qvec.Collection, texts: list[str]) -> list[Any]:
    """Ids of the type that the collection has. Raises InputError naming an id that is not an integer but has to be."""
    if db.stats().ids == "str":
        return texts
    for text in texts:
        if not text.removeprefix("-").isdecimal():
            raise InputError(f"the id {text!r} is not an integer, and the ids of this store are")
    return [int(text) for text in texts]


def _print_json(label: int | str, hits: list[dict[str, Any]]) -> None:
    print_json({"query": label, "hits": hits})


def _print_table(label: int | str, hits: list[dict[str, Any]]) -> None:
    print_table(f"query {label}", ("#", "id", "score", "distance", "payload"), list(_cells(hits)))


def _print_explanation(explanation: Explanation, as_json: bool) -> None:
    if as_json:
        print_json({"explanation": dataclasses.asdict(explanation)})
    else:
        rows = [line.split(maxsplit=1) for line in str(explanation).splitlines()]
        print_table("how they were found", ("what", "value"), rows)


def _cells(hits: list[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    for rank, hit in enumerate(hits, 1):
        payload = hit.get("payload")
        text = "" if payload is None else json.dumps(payload, ensure_ascii=False, default=str)
        yield rank, hit["id"], f"{hit['score']:.4f}", f"{hit['distance']:.4f}", shortened(text, PAYLOAD_WIDTH)
