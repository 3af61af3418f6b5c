"""Full text against other libraries: queries/s of one thread, top 10, single queries; indexing rate; bytes.

All get the same tokens: those of qvec's plain analyzer, joined by spaces, and queries as disjunctions. Contestants
alternate in parts of the queries, so that ratios hold on a machine whose speed varies. Times are CPU seconds.

    QVEC_TEXT_DATA=DIR python benchmarks/bench_text.py [--rows N] [--queries N] [--peers bm25s tantivy fts5]

DIR has ``passages.jsonl.gz`` (a line with ``text`` for each passage) and ``queries.jsonl`` (a line with ``text`` or
``question`` for each query). With more rows than passages, further ones are made of random sentences of the others.
``qvec bench DIR --text`` measures the same.

``--indexing`` measures only the indexing, with durable commits of 1,000 texts, interleaved: qvec stores a vector, a
payload with the text and the posting lists; FTS5 the posting lists, without and with the texts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import qvec
from qvec.bench.table import print_texts
from qvec.bench.text import load_texts, run_text
from qvec.bench.text_contestants import BATCH, PEERS, fts5_table


def write_qvec(texts: list[str], folder: Path, fields: dict[str, str]) -> None:
    """Add texts as payloads, with a vector each."""
    with qvec.create(folder / "a.qvec", 1, metric="l2", code="f32", index="flat", fields=fields) as db:
        for start in range(0, len(texts), BATCH):
            part = texts[start : start + BATCH]
            db.add(np.zeros((len(part), 1), np.float32), payloads=[{"body": text} for text in part])


WRITERS: dict[str, Callable[[list[str], Path], object]] = {
    "qvec": lambda texts, folder: write_qvec(texts, folder, {"body": "text"}),
    "qvec without the text field": lambda texts, folder: write_qvec(texts, folder, {}),
    "FTS5 with the texts": lambda texts, folder: fts5_table(texts, folder, "").close(),
    "FTS5 without texts": lambda texts, folder: fts5_table(texts, folder, "content='',").close(),
}


def measure_indexing(texts: list[str], rounds: int) -> None:
    """Print the median CPU seconds of each writer."""
    spent: dict[str, list[float]] = {name: [] for name in WRITERS}
    for _ in range(rounds):
        for name, write in WRITERS.items():
            with tempfile.TemporaryDirectory() as folder:
                begin = time.process_time()
                write(texts, Path(folder))
                spent[name].append(time.process_time() - begin)
    for name, seconds in spent.items():
        ratios = [other / own for own, other in zip(spent["qvec"], seconds, strict=True)]
        print(f"{name:<28} {len(texts) / np.median(seconds):>8,.0f} rows/CPU s, {1 / np.median(ratios):.2f} x qvec")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("QVEC_TEXT_DATA"))
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    parser.add_argument("--indexing", action="store_true")
    parser.add_argument("--rounds", type=int, default=9, help="of --indexing")
    args = parser.parse_args()
    if args.data is None:
        parser.error("give --data, or the environment variable QVEC_TEXT_DATA")
    texts, queries = load_texts(Path(args.data), args.rows, args.queries)
    if args.indexing:
        measure_indexing(texts, args.rounds)
        return
    print_texts(run_text(texts, queries, args.peers, 10, lambda done, total: None))


if __name__ == "__main__":
    main()
