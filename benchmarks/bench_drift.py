"""Drift alarms: detection of shifts that cost recall, false alarms on exchangeable batches, and time of the checks.

    QVEC_DATA=/path/to/sets python benchmarks/bench_drift.py [--trials 100] [set ...]

A trial draws 6,000 random rows, trains a code on 4,000, and adds the other 2,000 in batches of 500, unchanged or
shifted. Random shifts are tried until one costs at least two points of recall@10 by code. The cost is the recall of the
2,000 rows among all 6,000 before and after the shift; 200 of them are measured first, to reject most shifts early.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import sets

import qvec
from qvec.codes.registry import make_config, train
from qvec.datasets import Workload
from qvec.quality.drift import DriftMonitor
from qvec.quality.recall import make_problem, recalls_by_code

CODES: dict[str, Any] = {"int8 static": qvec.Int8(scale="per_dim"), "binary": "binary"}
TRAINED, ADDED, BATCH, MIN_COST = 4000, 2000, 500, 0.02
SCREENED = 200


def shifted(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add an offset, or scale about the mean, or both, on some or all dimensions, by a random amount."""
    spread, size = x.std(axis=0), rng.exponential(1.5)
    chosen = rng.random(x.shape[1]) < rng.choice([0.1, 0.5, 1.0])
    offset = np.where(chosen, spread * rng.normal(size=x.shape[1]) * size * rng.integers(2), 0)
    scale = np.where(chosen, 1 + size * rng.integers(2), 1)
    return ((x - x.mean(axis=0)) * scale + x.mean(axis=0) + offset).astype(np.float32)


def recall(quantizer: Any, base: np.ndarray, own: np.ndarray, metric: Any) -> float:
    problem = make_problem(base, base[own], own, np.zeros(0, np.int64), 10, metric)
    return float(recalls_by_code(quantizer, quantizer.encode(base), problem, [10])[10].mean())


def costly_shift(code: Any, x: np.ndarray, metric: Any, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    old, new = x[:TRAINED], x[TRAINED:]
    quantizer, own = train(old, metric, make_config(code)), np.arange(TRAINED, TRAINED + ADDED)
    before = {n: recall(quantizer, x, own[:n], metric) for n in (SCREENED, ADDED)}
    while True:
        moved = shifted(new, rng)
        after = np.vstack([old, moved])
        for n in before:
            if (cost := before[n] - recall(quantizer, after, own[:n], metric)) < MIN_COST:
                break
        else:
            return moved, cost


def level_after(old: np.ndarray, new: np.ndarray, metric: Any, code: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.qvec"
        with qvec.create(path, old.shape[1], metric=metric, code=code, index="flat", durability="relaxed") as db:
            db.add(old)
            for i in range(0, len(new), BATCH):
                db.add(new[i : i + BATCH])
            return db.drift().level


def detection(data: Workload, trials: int) -> None:
    for name, code in CODES.items():
        rng = np.random.default_rng(0)
        levels, costs = [], []
        for _ in range(trials):
            x = data.base[rng.choice(len(data.base), TRAINED + ADDED, replace=False)]
            moved, cost = costly_shift(code, x, data.metric, rng)
            costs.append(cost)
            levels.append(level_after(x[:TRAINED], moved, data.metric, code))
        low = min(costs)
        print(f"{data.name}, {name}: alarm in {levels.count('alarm')} of {trials} shifts (costs {low:.3f} up, "
              f"median {np.median(costs):.3f})", flush=True)  # fmt: skip


def false_alarms(data: Workload, trials: int) -> None:
    for name, code in CODES.items():
        rng, levels = np.random.default_rng(1), []
        for _ in range(trials):
            x = data.base[rng.choice(len(data.base), TRAINED + 4 * ADDED, replace=False)]
            levels.append(level_after(x[:TRAINED], x[TRAINED:], data.metric, code))
        print(f"{data.name}, {name}: {levels.count('alarm')} false alarms, {levels.count('warning')} warnings "
              f"in {trials} trials of {4 * ADDED} exchangeable vectors", flush=True)  # fmt: skip


def make(path: Path, data: Workload) -> qvec.Collection:
    return qvec.create(path, data.base.shape[1], metric=data.metric)


def cost(data: Workload, _: int, rows: int = 20_000) -> None:
    """Print the time of drift checks as a share of a bulk add with the default index."""
    spent, check = [0.0], DriftMonitor.check

    def timed(*args: Any) -> Any:
        start = time.perf_counter()
        try:
            return check(*args)
        finally:
            spent[0] += time.perf_counter() - start

    DriftMonitor.check = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder, make(Path(folder) / "a.qvec", data) as db:
        db.add(data.base[:1000])
        start = time.perf_counter()
        db.add(data.base[1000 : 1000 + rows])
        total = time.perf_counter() - start
    DriftMonitor.check = check  # type: ignore[method-assign]
    print(f"{data.name}: checks take {spent[0]:.3f} s of {total:.3f} s to add {rows} vectors: {spent[0] / total:.2%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=sets.names())
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--parts", default="cost,false_alarms,detection", help="what to measure")
    args = parser.parse_args()
    for name in args.sets:
        data = sets.load(name)
        parts = {"cost": cost, "false_alarms": false_alarms, "detection": detection}
        for part in args.parts.split(","):
            parts[part](data, args.trials)


if __name__ == "__main__":
    main()
