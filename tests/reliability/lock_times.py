"""R26: how long single transactions hold the write lock, in every call that may take long.

Run as a script, this file prints the longest transaction of each call:

    python tests/reliability/lock_times.py [--rows 100000] [--dim 384] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figures, Job

import qvec
from qvec import interchange

LIMIT = 2.0  # seconds of CPU and disk time
ROWS = {"short": 6000, "nightly": 100_000}
DIM = {"short": 32, "nightly": 384}
TAGS = 50


@dataclass
class Held:
    """The transactions of one call: what they do, and for how many seconds of wall and of CPU time they hold the lock.

    The smaller of both counts: other work on the machine prolongs the first, several threads the second.
    """

    times: list[tuple[str, float, float]] = field(default_factory=list)

    @property
    def longest(self) -> tuple[str, float, float]:
        return max(self.times, key=lambda one: min(one[1:]), default=("", 0.0, 0.0))


@contextlib.contextmanager
def held(db: qvec.Collection) -> Iterator[Held]:
    """Time the transactions of a handle in the ``with`` block."""
    queue, found = db._store._queue, Held()
    acquire, release = queue.acquire, queue.release
    begun: list[tuple[str, float, float]] = []

    def timed_acquire(handle: object, activity: str, *arguments: Any, **options: Any) -> None:
        acquire(handle, activity, *arguments, **options)
        begun[:] = [(activity, time.perf_counter(), time.process_time())]

    def timed_release() -> None:
        for doing, wall, cpu in begun:
            found.times.append((doing, time.perf_counter() - wall, time.process_time() - cpu))
        begun.clear()
        release()

    queue.acquire, queue.release = timed_acquire, timed_release  # type: ignore[method-assign]
    try:
        yield found
    finally:
        del queue.acquire, queue.release


@dataclass(frozen=True)
class Sizes:
    folder: Path
    rows: int
    dim: int
    seed: int

    def vectors(self, n: int, seed: int = 0) -> np.ndarray:
        """Vectors around a thousand centers."""
        rng = np.random.default_rng(self.seed + seed)
        centers = rng.normal(size=(1000, self.dim)).astype(np.float32)
        return centers[rng.integers(0, 1000, n)] + 0.7 * rng.normal(size=(n, self.dim)).astype(np.float32)

    def payloads(self, n: int) -> list[dict[str, Any]]:
        text = "some words of a passage of text, as they are stored with vectors" * 4
        return [{"tag": f"t{i % TAGS}", "name": f"name {i}", "year": i % 100, "text": text} for i in range(n)]

    def make(self, name: str, index: Any = "hnsw", rows: int | None = None, **options: Any) -> qvec.Collection:
        db = qvec.create(self.folder / f"{name}.qvec", self.dim, index=index, **options)
        n = self.rows if rows is None else rows
        db.add(self.vectors(n), payloads=self.payloads(n))
        return db


Action = Callable[[], object]


def _add_field(sizes: Sizes) -> Iterator[tuple[qvec.Collection, Action]]:
    with sizes.make("fields", "flat") as db:
        yield db, lambda: db.add_field("tag", "keyword")
        yield db, lambda: db.add_field("name", "keyword")
        yield db, lambda: db.add_field("year", "int")
        yield db, lambda: db.drop_field("name")


def _requantize(sizes: Sizes) -> Iterator[tuple[qvec.Collection, Action]]:
    with sizes.make("codes", "flat") as db:
        yield db, lambda: db.requantize("rabitq4")
        yield db, lambda: db.rollback(0)
        yield db, lambda: db.drop_generation(1)


def _relink(sizes: Sizes) -> Iterator[tuple[qvec.Collection, Action]]:
    for index in ("hnsw", "packed"):
        with sizes.make(index, index) as db:
            yield db, lambda: db.requantize("rabitq4", relink=True)


def _optimize(sizes: Sizes) -> Iterator[tuple[qvec.Collection, Action]]:
    with sizes.make("optimized") as db:
        db.delete(list(range(0, sizes.rows, 20)))
        yield db, lambda: db.optimize()
        for _ in range(40):
            db.add(sizes.vectors(5, 1))  # a few rows: their reverse edges are added later
        yield db, lambda: db.optimize()


def _tune(sizes: Sizes) -> Iterator[tuple[qvec.Collection, Action]]:
    with sizes.make("tuned") as db:
        yield db, lambda: db.tune(sizes.vectors(200, 2))


def _erase(sizes: Sizes) -> Iterator[tuple[qvec.Collection, Action]]:
    with sizes.make("erased") as db:
        yield db, lambda: db.erase(list(range(sizes.rows // 100)))


def _compact(sizes: Sizes) -> Iterator[tuple[qvec.Collection, Action]]:
    with sizes.make("compacted") as db:
        db.delete(list(range(sizes.rows // 10)))
        yield db, lambda: db.compact()


def _import(sizes: Sizes) -> Iterator[tuple[qvec.Collection, Action]]:
    source = sizes.folder / "vectors.npy"
    np.save(source, sizes.vectors(sizes.rows))
    with qvec.create(sizes.folder / "imported.qvec", sizes.dim, index="hnsw") as db:
        yield db, lambda: interchange.add_from(db, interchange.open_source(source))


def _index_changes(sizes: Sizes) -> Iterator[tuple[qvec.Collection, Action]]:
    auto = min(sizes.rows, 10_000)
    with sizes.make("auto", "auto", auto) as db:  # the next row makes a graph of it
        yield db, lambda: db.add(sizes.vectors(1, 3))
    with sizes.make("lists", qvec.IVF(), sizes.rows // 4) as db:
        for part in np.array_split(sizes.vectors(sizes.rows - sizes.rows // 4 - 1, 4), 64):
            db.add(part)
        yield db, lambda: db.add(sizes.vectors(2, 5))  # four times as many rows: the centroids are chosen again


def _add(sizes: Sizes) -> Iterator[tuple[qvec.Collection, Action]]:
    parts = np.array_split(sizes.vectors(sizes.rows), 4)
    for name, index in (("hnsw", "hnsw"), ("packed", "packed"), ("ivf", qvec.IVF())):
        with qvec.create(sizes.folder / f"added {name}.qvec", sizes.dim, index=index) as db:
            for part in parts:
                yield db, partial(db.add, part)


CALLS: dict[str, Callable[[Sizes], Iterator[tuple[qvec.Collection, Action]]]] = {
    "add_field, drop_field": _add_field,
    "requantize, rollback": _requantize,
    "requantize with a new graph": _relink,
    "optimize": _optimize,
    "tune": _tune,
    "erase": _erase,
    "compact": _compact,
    "import": _import,
    "index changes": _index_changes,
    "add": _add,
}


def measure(sizes: Sizes, name: str) -> Iterator[Held]:
    """The transactions of each step of a call."""
    for db, action in CALLS[name](sizes):
        with held(db) as found:
            action()
        yield found


def run(job: Job) -> Figures:
    figures = Figures("R26", f"transactions that hold the write lock for more than {LIMIT:g} s")
    sizes = Sizes(job.folder, ROWS[job.scale], DIM[job.scale], job.seed)
    for name in job.chosen(CALLS):
        for step, found in enumerate(measure(sizes, name)):
            figures.count("transactions", len(found.times))
            doing, wall, cpu = found.longest
            figures.amounts[f"{name} {step}"] = round(min(wall, cpu), 3)
            if min(wall, cpu) > LIMIT:
                figures.fail(f"{name}, step {step}: a transaction ({doing}) took {wall:.2f} s, {cpu:.2f} s of CPU time")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS["nightly"])
    parser.add_argument("--dim", type=int, default=DIM["nightly"])
    parser.add_argument("--only", nargs="*", choices=list(CALLS), default=list(CALLS))
    args = parser.parse_args()
    for name in args.only:
        with tempfile.TemporaryDirectory() as folder:
            for step, found in enumerate(measure(Sizes(Path(folder), args.rows, args.dim, 1), name)):
                doing, wall, cpu = found.longest
                n, total = len(found.times), sum(one[1] for one in found.times)
                print(
                    f"{name:28} {step} longest {wall:6.2f} s, CPU {cpu:6.2f} s ({doing}); {n} of {total:.1f} s in all",
                    flush=True,
                )


if __name__ == "__main__":
    main()
