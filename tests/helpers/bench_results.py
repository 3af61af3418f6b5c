"""Results of runs with made-up figures."""

from __future__ import annotations

from qvec.bench.records import Entry, Point, Result


def point(recall: float, qps: float, batch: float | None = None) -> Point:
    return Point({"ef": 1}, recall, qps, qps, 1.0, 2.0, 3.0, 10, None if batch is None else recall, batch, batch)


def entry(name: str, own: bool, *points: Point) -> Entry:
    memory = {"rss": 4000, "pss": 3000, "anonymous": 1000, "file": 3000}
    return Entry(name, own, name, "1", {}, 1.5, 100, 200, 150, memory, {}, "avx2", list(points))


def written(*entries: Entry) -> Result:
    dataset = {"dataset": "x", "n": 10, "dim": 4, "metric": "l2"}
    settings = {"k": 10, "build_threads": 2, "batch_threads": 1, "rounds": 3, "started": "2025-01-01T00:00:00Z"}
    return Result(dataset, settings, {"cpu": "c", "cores": 2}, list(entries))


RESULT = written(
    entry("qvec </script><b>int8", True, point(0.91234, 654321, 700), point(0.99, 60)),
    entry("hnswlib", False, point(0.9, 100), point(1.0, 5)),
)
