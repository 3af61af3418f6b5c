"""R15: graphs after many cycles of deletes and adds: every live vector is found, and recall does not drop."""

from __future__ import annotations

from typing import Any

import numpy as np
from figures import Figures, Job

import qvec
from helpers.vectors import clustered

DIM, K, EF = 24, 10, 100
SIZE = {"short": 1500, "nightly": 20_000}  # vectors
CYCLES = {"short": 10, "nightly": 100}
DROP = 0.01  # of recall, compared with a graph that was built at once
INDEXES: dict[str, Any] = {
    "graph": qvec.HNSW(m=8, ef_construction=60),
    "packed": qvec.HNSW(m=16, ef_construction=60, layout="packed"),
}


def run(job: Job) -> Figures:
    figures = Figures("R15", "graphs after cycles of deleting and adding a tenth")
    n, cycles = SIZE[job.scale], job.amount(CYCLES)
    for name in job.chosen(INDEXES):
        index, rng = INDEXES[name], np.random.default_rng(job.seed)
        x = clustered(rng, n + cycles * (n // 10), DIM, 50)
        live = np.arange(n)
        with qvec.create(job.folder / f"{name}.qvec", DIM, metric="l2", index=index, durability="relaxed") as db:
            db.add(x[:n])
            for cycle in range(cycles):
                gone = rng.choice(live, n // 10, replace=False)
                db.delete(gone)
                fresh = n + cycle * (n // 10) + np.arange(n // 10)
                db.add(x[fresh], fresh)
                live = np.concatenate([np.setdiff1d(live, gone), fresh])
            for problem in db.verify():
                figures.fail(f"{name}: {problem}")
            churned = _recall(db, x, live, rng)
            found = db.search(x[live], 1, ef=EF).ids[:, 0]
            same = (x[np.maximum(found, 0)] == x[live]).all(axis=1)
        with qvec.create(job.folder / f"{name}-new.qvec", DIM, metric="l2", index=index, durability="relaxed") as db:
            db.add(x[live], live)
            new = _recall(db, x, live, rng)
        figures.amounts |= {
            f"{name}: vectors": n,
            f"{name}: cycles": cycles,
            f"{name}: not found by themselves": int((~same).sum()),
            f"{name}: recall@10": round(churned, 4),
            f"{name}: recall@10 of a new graph": round(new, 4),
        }
        if churned < new - DROP:
            figures.fail(f"{name}: recall {churned:.4f} after {cycles} cycles, {new:.4f} of a new graph")
        if (~same).mean() > 0.002:
            figures.fail(f"{name}: {int((~same).sum())} of {n} vectors are not found by themselves")
    return figures


def _recall(db: qvec.Collection, x: Any, live: Any, rng: np.random.Generator) -> float:
    queries = x[rng.choice(live, 300, replace=False)] + 0.3 * rng.normal(size=(300, DIM)).astype(np.float32)
    true = db.search(queries, K, exact=True).ids
    found = db.search(queries, K, ef=40).ids
    return float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(true, found, strict=True)]))
