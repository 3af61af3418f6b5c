"""CPU time of facets relative to a filtered count, and of searches with expiry relative to searches without.

    python benchmarks/bench_facets.py [--rows 1000000] [--values 100] [--rounds 41] [--json FILE]

Facets: a keyword field with --values values and an integer field. Each round counts with a filter that no call before
it had, and counts by value with another one; the median of the ratios is printed, for filters on the integers (a range
of about half of the rows) and on the keywords (one value). "first": the first facets of a handle, which read the index
of the field. "after a commit": the first facets after the keyword of one row has changed. Expiry: two collections of
the same vectors, one with a field of datetimes that `expires=` names; searches are interleaved, query by query, and
the sums of CPU time compared. Recall: of the passages of the demo, when some have expired.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import qvec
from qvec.demo.corpus import load_corpus

BATCH = 100_000
YEARS = 1000
DIM = 64


def filled(path: Path, rows: int, values: int) -> qvec.Collection:
    """A collection with a keyword and an integer in each row; one vector is enough for each."""
    rng = np.random.default_rng(0)
    fields: Any = {"shop": "keyword", "year": "int"}
    db = qvec.create(path, 2, code="f32", index="flat", fields=fields, durability="relaxed")
    for start in range(0, rows, BATCH):
        n = min(BATCH, rows - start)
        pairs = zip(rng.integers(0, values, n).tolist(), rng.integers(0, YEARS, n).tolist(), strict=True)
        db.add(np.ones((n, 2), np.float32), payloads=[{"shop": f"shop {a}", "year": b} for a, b in pairs])
    return db


def cpu(call: Callable[[], object]) -> int:
    """Nanoseconds of CPU time of a call."""
    start = time.process_time_ns()
    call()
    return time.process_time_ns() - start


def facets(rows: int, values: int, rounds: int, folder: Path) -> dict[str, float]:
    filters: dict[str, Callable[[int], Any]] = {
        "range": lambda i: {"year": {"$gte": YEARS // 2 + i}},
        "value": lambda i: {"$and": [{"shop": f"shop {i % values}"}, {"year": {"$gte": -i}}]},
    }
    with filled(folder / "facets.qvec", rows, values) as db:
        db.count({"year": {"$gte": YEARS}})
        found: dict[str, float] = {"first facets ms": cpu(lambda: db.facets("shop")) / 1e6}
        for name, made in filters.items():
            even, odd = ([made(2 * i + j) for i in range(rounds)] for j in (0, 1))
            counts = [cpu(partial(db.count, where)) for where in even]
            by_value = [cpu(partial(db.facets, "shop", where=where)) for where in odd]
            found[f"count ms, {name}"] = float(np.median(counts)) / 1e6
            found[f"facets / count, {name}"] = float(np.median(np.array(by_value) / np.array(counts)))
        whole = float(np.median([cpu(lambda: db.facets("shop")) for _ in range(rounds)]))
        found["all facets / count, range"] = whole / 1e6 / found["count ms, range"]
        committed = []
        for i in range(rounds):
            db.update_payloads([i * (rows // rounds)], {"shop": f"shop {i % values}"})
            committed.append(cpu(lambda: db.facets("shop")) / 1e6)
        found["facets after a commit ms"] = float(np.median(committed))
        found["facets after a commit / count, range"] = found["facets after a commit ms"] / found["count ms, range"]
        return found


def expiry(rows: int, queries: int, folder: Path) -> dict[str, float]:
    """Ratios of CPU time: no row has expired, a tenth of the rows has, and one more row expires between searches."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, DIM)).astype(np.float32)
    asked = rng.normal(size=(queries, DIM)).astype(np.float32)
    now = datetime.now(UTC)
    found: dict[str, float] = {}
    for index in ("hnsw", "packed", "flat"):
        for name, expired in (("none expired", 0), ("a tenth expired", rows // 10)):
            held = [{"until": now + timedelta(days=30)}] * rows
            options: Any = {"fields": {"until": "datetime"}, "index": index, "durability": "relaxed"}
            paths = [folder / f"{kind}-{index}-{expired}.qvec" for kind in ("plain", "expiring")]
            with (
                qvec.create(paths[0], DIM, **options) as plain,
                qvec.create(paths[1], DIM, expires="until", **options) as expiring,
            ):
                for db in (plain, expiring):
                    db.add(x, payloads=held)
                    db.optimize()  # links all rows
                if expired:
                    plain.delete(range(expired))  # and repairs the graph
                    expiring.update_payloads(range(expired), {"until": now - timedelta(days=1)})
                for include in (("payloads",), ()):
                    ratio = interleaved(plain, expiring, asked, include)
                    found[f"{index}, {name}, include={include}"] = ratio
    return found


def recalls(folder: Path) -> dict[str, float]:
    """recall@10 of the passages of the demo: after some were deleted and the graph was repaired, and after the same
    passages have expired."""
    corpus = load_corpus()
    x, asked = corpus.vectors, corpus.queries
    now, rng = datetime.now(UTC), np.random.default_rng(3)
    found: dict[str, float] = {}
    for share in (0.1, 0.3):
        gone = rng.random(len(x)) < share
        live = np.flatnonzero(~gone)
        truth = live[np.argsort(-(asked @ x[live].T), axis=1)[:, :10]].tolist()
        held = [{"until": now + timedelta(days=-1 if one else 30)} for one in gone]
        for index in ("hnsw", "packed"):
            options: Any = {"fields": {"until": "datetime"}, "index": index, "code": "int8", "durability": "relaxed"}
            paths = [folder / f"{kind}-{index}-{share}.qvec" for kind in ("repaired", "expired")]
            with (
                qvec.create(paths[0], x.shape[1], **options) as repaired,
                qvec.create(paths[1], x.shape[1], expires="until", **options) as expired,
            ):
                for db in (repaired, expired):
                    db.add(x, payloads=held)
                repaired.delete(np.flatnonzero(gone))
                repaired.optimize()
                for ef in (16, 32):
                    for kind, db in (("repaired", repaired), ("expired", expired)):
                        ids = db.search(asked, 10, ef=ef).ids.tolist()
                        hits = [len({*a} & {*b}) for a, b in zip(ids, truth, strict=True)]
                        found[f"recall, {index}, {share:.0%} gone, ef={ef}, {kind}"] = sum(hits) / (10 * len(asked))
    return found


def interleaved(plain: qvec.Collection, expiring: qvec.Collection, asked: Any, include: Any) -> float:
    """CPU time of searches of the second collection relative to the first."""
    sums = [0, 0]
    for turn in range(4):
        for query in asked:
            for i, db in enumerate((plain, expiring)):
                spent = cpu(partial(db.search, query, 10, include=include))
                sums[i] += spent if turn else 0  # the first turn warms up
    return sums[1] / sums[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--values", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--search-rows", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--only", choices=("facets", "expiry", "recall"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.only in (None, "facets"):
            found |= facets(args.rows, args.values, args.rounds, folder)
        if args.only in (None, "expiry"):
            found |= expiry(args.search_rows, args.queries, folder)
        if args.only in (None, "recall"):
            found |= recalls(folder)
    for label, value in found.items():
        print(f"{label}: {value:.3f}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
