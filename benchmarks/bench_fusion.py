"""What fusion gains on real questions: the relevance of searches by vector, by text and by both, on the half of the
questions that did not choose the fusion.

    QVEC_DATA=DIR python benchmarks/bench_fusion.py [--set wiki-minilm-384] [--measure ndcg mrr hit] [--seeds 3]

The folder of the set has ``base.npy`` and ``passages.jsonl.gz`` (a line with ``title`` and ``text`` for each row), and
``answerable.npy`` with ``answerable.jsonl`` (a line with ``question`` and ``passage``, the row that answers it).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import qvec


def lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        return [json.loads(line) for line in file]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("QVEC_DATA"))
    parser.add_argument("--set", default="wiki-minilm-384")
    parser.add_argument("--measure", nargs="+", default=["ndcg"])
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    if args.data is None:
        parser.error("give --data, or the environment variable QVEC_DATA")
    folder = Path(args.data) / args.set
    passages, asked = lines(folder / "passages.jsonl.gz"), lines(folder / "answerable.jsonl")
    vectors, queries = (np.load(folder / name).astype(np.float32) for name in ("base.npy", "answerable.npy"))
    texts, relevant = [one["question"] for one in asked], [one["passage"] for one in asked]
    fields = {"title": "text", "text": "text"}
    payloads = [{name: one[name] for name in fields} for one in passages]
    with (
        tempfile.TemporaryDirectory() as work,
        qvec.create(Path(work) / "a.qvec", vectors.shape[1], metric="cosine", index="flat", fields=fields) as db,
    ):
        db.add(vectors, payloads=payloads)
        for measure in args.measure:
            for seed in range(args.seeds):
                choice = db.tune_fusion(queries, texts=texts, relevant=relevant, measure=measure, seed=seed)
                print(f"chosen by {measure}, seed {seed}: {choice!r}")
                print(choice, end="\n\n")


if __name__ == "__main__":
    main()
