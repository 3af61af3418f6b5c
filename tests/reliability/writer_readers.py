"""One process that commits batches, while others search and check that they never see a part of a batch.

As a script: ``writer_readers.py write PATH SECONDS FIRST PAUSE`` (ms between commits) or
``writer_readers.py read PATH SECONDS FIRST CHECKED SEED``, where
FIRST is the number of the first batch that is written while readers run, and CHECKED how many searches in a hundred
are checks. Each prints one JSON object at the end.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from child import start

import qvec

BATCH = 64
IDLE_MS = 3_600_000  # between commits: there are none
Float32 = npt.NDArray[np.float32]


def center(batch: int, dim: int) -> Float32:
    """The center of the vectors of a batch, far from all others. It follows from the batch's number."""
    return (np.random.default_rng(batch).normal(size=dim) * 10).astype(np.float32)


def add_batch(db: qvec.Collection, batch: int) -> None:
    """Vectors around the batch's center, ids from 64 times its number, its number as payload."""
    dim = db.stats().dim
    noise = np.random.default_rng(~batch & 0xFFFF).normal(size=(BATCH, dim)).astype(np.float32)
    db.add(
        center(batch, dim) + np.float32(0.1) * noise, np.arange(BATCH * batch, BATCH * (batch + 1)),
        [{"batch": batch}] * BATCH, threads=1,
    )  # fmt: skip


@dataclass
class Writing:
    """Results of a writer."""

    commits: int = 0
    commit_ms: list[float] = field(default_factory=list)


def write(path: str, seconds: float, first: int, pause_ms: int = 0) -> Writing:
    """Commit batch after batch."""
    done = Writing()
    with qvec.open(path) as db:
        _ready()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if pause_ms:
                time.sleep(min(pause_ms / 1000, max(0.0, end - time.monotonic())))
                if pause_ms > IDLE_MS:
                    continue
            start = time.perf_counter()
            add_batch(db, first + done.commits)
            done.commit_ms.append(1000 * (time.perf_counter() - start))
            done.commits += 1
    return done


@dataclass
class Reading:
    """Results of a reader. half_seen: number of batches that it saw only in part."""

    searches: int = 0
    checks: int = 0
    half_seen: int = 0
    errors: list[str] = field(default_factory=list)
    newest: int = 0
    search_us: list[float] = field(default_factory=list)


def read(path: str, seconds: float, first: int, checked: int, seed: int) -> Reading:
    """Search random queries, and check some batches."""
    seen = Reading()
    with qvec.open(path, "r") as db:
        dim = db.stats().dim
        queries = np.random.default_rng(seed).normal(size=(1000, dim)).astype(np.float32)
        db.search(queries[0])
        _ready()
        read_on(db, time.monotonic() + seconds, first, checked, seed, seen)
    return seen


def read_on(db: qvec.Collection, end: float, first: int, checked: int, seed: int, seen: Reading) -> None:
    """Read until a time of the monotonic clock."""
    chance = random.Random(seed)
    queries = np.random.default_rng(seed).normal(size=(1000, db.stats().dim)).astype(np.float32)
    while time.monotonic() < end:
        try:
            if chance.randrange(100) < checked:
                check(db, first, chance, seen)
            else:
                _search(db, queries[seen.searches % 1000], seen)
        except Exception as error:
            seen.errors.append(repr(error))


def _search(db: qvec.Collection, query: Float32, seen: Reading) -> None:
    start = time.perf_counter()
    hits = db.search(query, 10)
    seen.search_us.append(1e6 * (time.perf_counter() - start))
    seen.searches += 1
    if int(hits.counts) != 10 or not (np.diff(hits.distances) >= 0).all() or len(set(hits.ids.tolist())) != 10:
        seen.errors.append(f"unsound hits: {hits}")


def check(db: qvec.Collection, first: int, chance: random.Random, seen: Reading) -> None:
    """Check that a stored batch is found completely, and the next batch completely or not at all."""
    seen.checks += 1
    count = len(db)
    if count % BATCH:
        seen.half_seen += 1
    written = count // BATCH - first
    seen.newest = max(seen.newest, written)
    for batch in (first + chance.randrange(written) if written else first, first + written):
        found = _members(db, batch)
        if len(found) not in (0, BATCH) or (batch < first + written and len(found) != BATCH):
            seen.half_seen += 1


def _members(db: qvec.Collection, batch: int) -> list[int]:
    """Ids of a batch that one search finds. Their payloads must name the batch."""
    hits = db.search(center(batch, db.stats().dim), BATCH, exact=True)
    found = [(i, payload) for i, payload in zip(hits.ids.tolist(), hits.payloads, strict=True) if i // BATCH == batch]
    if any(payload != {"batch": batch} for _, payload in found):
        raise AssertionError(f"a payload of batch {batch} is another's")
    return [i for i, _ in found]


def _ready() -> None:
    """Report that the file is open, and wait for the signal to begin."""
    print("ready", flush=True)
    sys.stdin.readline()


def run(
    path: Path,
    seconds: float,
    first: int,
    *,
    readers: int,
    writers: int = 1,
    checked: int = 20,
    pause: float = 0.0,
) -> list[dict[str, Any]]:
    """Start the processes, let all begin at once, and return their results, writers first."""
    commands: list[list[Any]] = [["write", path, seconds, first, round(1000 * pause)]] * writers
    commands += [["read", path, seconds, first, checked, seed] for seed in range(readers)]
    processes = [start(__file__, *command) for command in commands]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        return [json.loads(process.communicate(timeout=seconds + 60)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def main(role: str, path: str, seconds: str, *numbers: str) -> None:
    result = (write if role == "write" else read)(path, float(seconds), *map(int, numbers))
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main(*sys.argv[1:])
