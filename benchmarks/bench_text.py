"""Full text against other libraries: queries/s of one thread, top 10, single queries; indexing rate; bytes.

All get the same tokens: those of qvec's plain analyzer, joined by spaces, and queries as disjunctions. Contestants
alternate in parts of the queries, so that ratios hold on a machine whose speed varies. Times are CPU seconds.

    QVEC_TEXT_DATA=DIR python benchmarks/bench_text.py [--rows N] [--queries N] [--peers bm25s tantivy fts5]

DIR has ``passages.jsonl.gz`` (a line with ``text`` for each passage) and ``queries.jsonl`` (a line with ``text`` or
``question`` for each query). With more rows than passages, further ones are made of random sentences of the others.
``qvec bench DIR --text`` measures the same.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from qvec.bench.table import print_texts
from qvec.bench.text import load_texts, run_text
from qvec.bench.text_contestants import PEERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("QVEC_TEXT_DATA"))
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    args = parser.parse_args()
    if args.data is None:
        parser.error("give --data, or the environment variable QVEC_TEXT_DATA")
    texts, queries = load_texts(Path(args.data), args.rows, args.queries)
    print_texts(run_text(texts, queries, args.peers, 10, lambda done, total: None))


if __name__ == "__main__":
    main()
