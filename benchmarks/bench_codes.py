"""All codes on real vectors: bytes, recall without and with re-ranking, rates of encoding and scoring.

    QVEC_DATA=/path/to/sets python benchmarks/bench_codes.py [set[:metric] ...] [--only int4] [--queries 500]

Each set is a folder with base.npy or base.npz, queries.npy and meta.json (metric). Without arguments, all sets are
measured, with their own metrics. Codes are trained on the base. The table has recall@10 after exact re-ranking of the c
best by code: c = 10 is no re-ranking, 30 and 100 are oversampling by 3 and 10. "auto" is the default oversampling of
searches, and its recall. Rates are those of one thread, scoring 50 queries at a time. Below the table: the squared
error of decoded int8 codes, relative to that of the best uniform quantizer with the same range (256 evenly spaced
values, in float64).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np

from qvec import simd_level
from qvec.codes.base import coded_sample
from qvec.codes.configs import BFloat16, Binary, CodeConfig, Float16, Int4, Int8, Mixed, RaBitQ, Ternary
from qvec.codes.int8 import Int8Quantizer
from qvec.codes.registry import Quantizer, train
from qvec.common.types import Codes, Metric
from qvec.datasets import Workload, load_workload
from qvec.quality.recall import Problem, make_problem, recalls_by_code

K = 10
TILE = 50  # queries scored at a time: 50 x 60,000 keys are 12 MB
DEPTHS = (10, 30, 100)
CONFIGS: dict[str, CodeConfig] = {
    "f16": Float16(),
    "bf16": BFloat16(),
    "int8 per_vector": Int8(),
    "int8 per_vector rotated": Int8(rotate=True),
    "int8 per_dim minmax": Int8(scale="per_dim"),
    "int8 per_dim minmax rotated": Int8(scale="per_dim", rotate=True),
    "int8 per_dim 99.9 %": Int8(scale="per_dim", method="percentile"),
    "int8 per_dim 99.9 % rotated": Int8(scale="per_dim", method="percentile", rotate=True),
    "int8 per_dim mse": Int8(scale="per_dim", method="mse"),
    "int8 per_dim entropy": Int8(scale="per_dim", method="entropy"),
    "int8 per_dim symmetric": Int8(scale="per_dim", symmetric=True),
    "int8 per_dim truncate": Int8(scale="per_dim", rounding="truncate"),
    "int8 global": Int8(scale="global"),
    "int8 half the dims": Int8(dims=192),
    "int4": Int4(),
    "int4 one center": Int4(centroids=1),
    "int4 no center": Int4(centroids=0),
    "int4 no center, not rotated": Int4(centroids=0, rotate=False),
    "int4 per_dim mse": Int4(scale="per_dim", rotate=False),
    "int4 per_dim mse rotated": Int4(scale="per_dim"),
    "int4 per_dim minmax rotated": Int4(scale="per_dim", method="minmax"),
    "int4 global mse rotated": Int4(scale="global"),
    "ternary": Ternary(),
    "ternary one center": Ternary(centroids=1),
    "ternary no center": Ternary(centroids=0),
    "ternary no center, not rotated": Ternary(centroids=0, rotate=False),
    "binary raw": Binary(center=False, rotate=False),
    "binary centered": Binary(rotate=False),
    "binary rotated": Binary(center=False),
    "binary centered rotated": Binary(),
    **{f"rabitq{bits}": RaBitQ(bits) for bits in range(1, 9)},
    **{f"rabitq{bits} one center": RaBitQ(bits, centroids=1) for bits in (1, 2, 3, 4)},
    **{f"rabitq{bits} no center": RaBitQ(bits, centroids=0) for bits in (1, 2, 4)},
    **{f"mixed {bits}": Mixed(bits=bits) for bits in (1, 2, 3, 4)},
    **{f"mixed {bits} one center": Mixed(bits=bits, centroids=1) for bits in (1, 2, 3, 4)},
    **{f"mixed {bits} raw": Mixed(bits=bits, groups="raw") for bits in (2, 3, 4)},
}


def load(folder: Path, metric: Metric | None, n_queries: int) -> Workload:
    """Read a set and its first queries; None: the metric that the set is meant for."""
    return load_workload(folder, K, metric=metric, max_queries=n_queries)


def task_of(data: Workload) -> Problem:
    """Return the queries of a set with their true neighbors."""
    none = np.full(len(data.queries), -1)
    base = np.ascontiguousarray(data.base, np.float32)
    return make_problem(base, data.queries, none, np.zeros(0, np.int64), K, data.metric)


def encode_rate(quantizer: Quantizer, data: Workload) -> float:
    """Vectors a second, in thousands: the best of three runs."""
    part = data.base[:10_000]
    return len(part) / 1e3 / min(_seconds(lambda: quantizer.encode(part)) for _ in range(3))


def score_rate(quantizer: Quantizer, codes: Codes, data: Workload) -> float:
    """Codes a second, in millions: the best of three runs of 50 queries over 10,000 codes."""
    part, queries = codes[:10_000], quantizer.prepare(data.queries[:TILE])
    return (
        len(part) * len(queries) / 1e6 / min(_seconds(lambda: quantizer.codec.score(queries, part)) for _ in range(3))
    )


def _seconds(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def report(data: Workload, only: str, depths: tuple[int, ...]) -> None:
    """Print the table of one set."""
    (n, dim), task = data.base.shape, task_of(data)
    print(f"\n{data.name}: {n} x {dim}, {data.metric}, {len(data.queries)} queries, {simd_level()}")
    print("| code | bytes |" + "".join(f" c={c} |" for c in depths) + " auto | encode, k/s | score, M/s |")
    print("|---|---|" + "---|" * (len(depths) + 3))
    for name, config in CONFIGS.items():
        if only not in name:
            continue
        quantizer = train(data.base, data.metric, config)
        codes = quantizer.encode(data.base)
        auto = round(K * quantizer.oversample)
        recalls = {c: found.mean() for c, found in recalls_by_code(quantizer, codes, task, (*depths, auto)).items()}
        recall = "".join(f" {recalls[c]:.4f} |" for c in depths) + f" {quantizer.oversample}x {recalls[auto]:.4f} |"
        rates = f" {encode_rate(quantizer, data):.0f} | {score_rate(quantizer, codes, data):.0f} |"
        print(f"| {name} | {quantizer.code_size} |{recall}{rates}", flush=True)


def squared_error_ratio(config: Int8, data: Workload) -> float:
    """Mean squared error of decoded codes, divided by that of the best uniform quantizer of the same range."""
    quantizer = cast(Int8Quantizer, train(data.base, data.metric, config))
    x = coded_sample(data.base[:10_000], data.metric, None).astype(np.float64)
    if quantizer.calibration is None:
        upper = np.abs(x).max(axis=1, keepdims=True)
        lower = -upper
    else:
        lower, upper = (end.astype(np.float64) for end in (quantizer.calibration.lower, quantizer.calibration.upper))
    step = np.maximum((upper - lower) / 255, 1e-30)
    best = lower + step * np.clip(np.rint((x - lower) / step), 0, 255)
    decoded = quantizer.decode(quantizer.encode(data.base[:10_000])).astype(np.float64)
    least, error = (float(np.square(y - x).mean()) for y in (best, decoded))
    return error / least if least else float(error == 0)  # integers in 256 steps of 1: nothing is lost


def report_errors(data: Workload) -> None:
    """Print the squared error of int8 relative to the least possible error of its range."""
    configs = {"per vector": Int8(), "per dimension, min/max": Int8(scale="per_dim"), "global": Int8(scale="global")}
    ratios = {name: squared_error_ratio(config, data) for name, config in configs.items()}
    print("int8, squared error / that of the best uniform quantizer of its range: "
          + ", ".join(f"{name} {ratio:.4f}" for name, ratio in ratios.items()), flush=True)  # fmt: skip


def main() -> None:
    """Report on the sets named, by default on all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help="folder[:metric]")
    parser.add_argument("--only", default="", help="codes whose name contains this")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    args = parser.parse_args()
    root = Path(os.environ["QVEC_DATA"])
    for name in args.sets or sorted(p.name for p in root.iterdir() if p.is_dir()):
        folder, _, metric = name.partition(":")
        data = load(root / folder, cast(Metric, metric) or None, args.queries)
        report(data, args.only, tuple(args.depths))
        report_errors(data)


if __name__ == "__main__":
    main()
