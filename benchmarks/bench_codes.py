"""Recall of each code on real vectors: how many of the true ten are among the best c by code alone.

    QVEC_DATA=/path/to/sets python benchmarks/bench_codes.py [set[:metric] ...]

Each set is a folder with base.npy or base.npz, queries.npy and meta.json (metric). Without arguments: all of
them, each with its own metric. The true neighbours are found here, by an exact scan.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from qvec.quantizers import Quantizer, train
from qvec.types import Binary, CodeConfig, Float16, Float32, Float32Array, Int8, Int64Array, Metric

N_QUERIES = 500
TILE = 50  # queries scored at a time: 50 x 60,000 keys are 12 MB
DEPTHS = (10, 12, 15, 20, 50, 100, 200, 400, 1000, 2000)
CONFIGS: dict[str, CodeConfig] = {
    "f16": Float16(),
    "int8 per_vector": Int8(),
    "int8 per_vector rotated": Int8(rotate=True),
    "int8 per_dim minmax": Int8(scale="per_dim"),
    "int8 per_dim minmax rotated": Int8(scale="per_dim", rotate=True),
    "int8 per_dim 99.9 %": Int8(scale="per_dim", method="percentile"),
    "int8 per_dim 99.9 % rotated": Int8(scale="per_dim", method="percentile", rotate=True),
    "binary raw": Binary(centre=False, rotate=False),
    "binary centred": Binary(rotate=False),
    "binary rotated": Binary(centre=False),
    "binary centred rotated": Binary(),
}


@dataclass(frozen=True)
class DataSet:
    """``base``: float32[n, dim]; ``queries``: float32[nq, dim]; ``truth``: the ten nearest, int[nq, 10]."""

    name: str
    metric: Metric
    base: Float32Array
    queries: Float32Array
    truth: Int64Array


def load(folder: Path, metric: Metric | None) -> DataSet:
    """Read a set and its first 500 queries; None: the metric that the set is meant for."""
    packed = folder / "base.npz"
    base = np.load(packed)["base"] if packed.exists() else np.load(folder / "base.npy")
    queries = np.load(folder / "queries.npy")[:N_QUERIES]
    base, queries = base.astype(np.float32), queries.astype(np.float32)
    chosen = metric or json.loads((folder / "meta.json").read_text())["metric"]
    return DataSet(folder.name, chosen, base, queries, nearest(base, queries, chosen))


def nearest(base: Float32Array, queries: Float32Array, metric: Metric) -> Int64Array:
    """Give the rows of the ten nearest by float32: int64[nq, 10]."""
    exact = train(base, metric, Float32())
    rows = exact.encode(base)
    tiles = (exact.codec.score(exact.prepare(queries[t]), rows) for t in _tiles(len(queries)))
    return np.vstack([np.argpartition(keys, 10, axis=1)[:, :10] for keys in tiles])


def ranks(quantizer: Quantizer, data: DataSet) -> Int64Array:
    """Give the place of each true neighbour in the order by code, ties by row: int64[nq, 10]."""
    codes = quantizer.encode(data.base)
    tiles = _tiles(len(data.queries))
    return np.vstack([_tile_ranks(quantizer, codes, data.queries[t], data.truth[t]) for t in tiles])


def _tiles(n: int) -> list[slice]:
    return [slice(i, i + TILE) for i in range(0, n, TILE)]


def _tile_ranks(quantizer: Quantizer, codes: np.ndarray, queries: Float32Array, truth: Int64Array) -> Int64Array:
    keys = quantizer.codec.score(quantizer.prepare(queries), codes)
    places = np.empty_like(truth)
    for row, (key, true) in enumerate(zip(keys, truth, strict=True)):
        for column, neighbour in enumerate(true):
            nearer = np.count_nonzero(key < key[neighbour])
            places[row, column] = nearer + np.count_nonzero(key[:neighbour] == key[neighbour])
    return places


def report(data: DataSet) -> None:
    """Print recall@10 within the best c by each code."""
    n, dim = data.base.shape
    print(f"\n{data.name}: {n} x {dim}, {data.metric}, {len(data.queries)} queries")
    print("| code | bytes |" + "".join(f" c={c} |" for c in DEPTHS))
    print("|---|---|" + "---|" * len(DEPTHS))
    for name, config in CONFIGS.items():
        quantizer = train(data.base, data.metric, config)
        places = ranks(quantizer, data)
        row = "".join(f" {np.mean(places < c):.4f} |" for c in DEPTHS)
        print(f"| {name} | {quantizer.code_size} |{row}")


def main() -> None:
    """Report on the sets named, by default on all."""
    root = Path(os.environ["QVEC_DATA"])
    for name in sys.argv[1:] or sorted(p.name for p in root.iterdir() if p.is_dir()):
        folder, _, metric = name.partition(":")
        report(load(root / folder, cast(Metric, metric) or None))


if __name__ == "__main__":
    main()
