"""Durable adds of single passages with vector and text, relative to the vector and the payload alone.

Two collections, with and without the text field, get the same passages alternately; each add is one durable commit.

    QVEC_DATA=DIR python benchmarks/bench_text_add.py [--set wiki-minilm-384] [--rows 60000] [--adds 300] [--index flat]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import qvec

BATCH = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("QVEC_DATA"))
    parser.add_argument("--set", default="wiki-minilm-384")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--adds", type=int, default=300)
    parser.add_argument("--index", default="flat")
    parser.add_argument("--folder", help="where the files are made; default: the system's for temporary files")
    args = parser.parse_args()
    if args.data is None:
        parser.error("give --data, or the environment variable QVEC_DATA")
    folder = Path(args.data) / args.set
    with gzip.open(folder / "passages.jsonl.gz", "rt") as file:
        texts = [json.loads(line)["text"] for line in file]
    vectors = np.load(folder / "base.npy").astype(np.float32)
    kinds: dict[str, dict[str, Any]] = {"vector": {}, "vector and text": {"body": "text"}}
    with tempfile.TemporaryDirectory(dir=args.folder) as work:
        made = {}
        for name, fields in kinds.items():
            path = Path(work) / f"{len(made)}.qvec"
            made[name] = db = qvec.create(path, vectors.shape[1], metric="cosine", index=args.index, fields=fields)
            for start in range(0, args.rows, BATCH):
                rows = range(start, min(start + BATCH, args.rows))
                db.add(vectors[rows], payloads=[{"body": texts[i]} for i in rows])
        spent = {name: np.zeros((args.adds, 2)) for name in made}
        for at in range(args.adds):
            row = at * 97 % len(texts)
            for name in list(made) if at % 2 else [*made][::-1]:
                begin = time.process_time(), time.perf_counter()
                made[name].add(vectors[row : row + 1], payloads=[{"body": texts[row]}])
                spent[name][at] = time.process_time() - begin[0], time.perf_counter() - begin[1]
        for db in made.values():
            db.close()
    for name, times in spent.items():
        (cpu, wall), (mid_cpu, mid_wall) = 1e6 * times.mean(0), 1e6 * np.median(times, axis=0)
        print(f"{name:<16} CPU {cpu:>7,.0f} us (median {mid_cpu:,.0f}), time {wall:>7,.0f} us (median {mid_wall:,.0f})")
    plain, text = (spent[name] for name in kinds)
    ratio, middle = text.mean(0) / plain.mean(0), np.median(text, axis=0) / np.median(plain, axis=0)
    print(f"ratio: CPU {ratio[0]:.3f} (medians {middle[0]:.3f}), time {ratio[1]:.3f} (medians {middle[1]:.3f})")


if __name__ == "__main__":
    main()
