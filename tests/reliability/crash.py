"""Rounds of SIGKILL: a worker process adds and deletes batches and acknowledges each; what is left is then judged.

As a script, the worker: ``crash.py PATH NEXT_BATCH SEED`` writes one line before each change ("+7", "-7": batch 7 is
being added, deleted) and one after it has returned ("ok").
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from child import start

import qvec

DIM = 16
SIZES = (1, 7, 64)
BATCH_IDS = 1000  # ids from one batch to the next
LONGEST = 0.060  # seconds that a worker lives from its first line on, or from its first acknowledgement
ROUNDS_PER_FILE = 50


def batch_ids(batch: int) -> list[int]:
    return list(range(BATCH_IDS * batch, BATCH_IDS * batch + SIZES[batch % len(SIZES)]))


def batch_vectors(batch: int) -> npt.NDArray[np.float32]:
    """The vectors of a batch follow from its number."""
    size = SIZES[batch % len(SIZES)]
    return np.random.default_rng(batch).normal(size=(size, DIM)).astype(np.float32)


def create(path: Path) -> None:
    qvec.create(path, DIM, metric="l2", code="int8", index=qvec.HNSW(m=8, ef_construction=40)).close()


def work(path: str, next_batch: int, seed: int) -> None:
    """Add batches, and every third time delete one, until killed."""
    chance = random.Random(seed)
    with qvec.open(path) as db:
        live = sorted({i // BATCH_IDS for records in db.scan() for i in records.ids.tolist()})
        for batch in itertools.count(next_batch):
            _say(f"+{batch}")
            db.add(batch_vectors(batch), batch_ids(batch), [{"batch": batch}] * len(batch_ids(batch)), threads=1)
            _say("ok")
            live.append(batch)
            if chance.random() < 1 / 3:
                gone = live.pop(chance.randrange(len(live)))
                _say(f"-{gone}")
                db.delete(batch_ids(gone))
                _say("ok")


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


@dataclass
class Verdict:
    """Sums over rounds. lost: acknowledged vectors that are gone, or back after their deletion was acknowledged."""

    rounds: int = 0
    acknowledged: int = 0
    vectors: int = 0
    lost: int = 0
    torn: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)
    reopen_ms: list[float] = field(default_factory=list)

    @property
    def failures(self) -> tuple[int, int, int, list[str]]:
        return self.lost, self.torn, self.wrong, self.problems


def run_rounds(folder: Path, rounds: int, seed: int) -> Iterator[Verdict]:
    """Kill a worker at a uniformly random time, ``rounds`` times; the verdict so far after each."""
    chance, verdict = random.Random(seed), Verdict()
    for number in range(rounds):
        if number % ROUNDS_PER_FILE == 0:
            path, live, next_batch = folder / f"crash-{number}.qvec", set[int](), 0
            create(path)
        lines = _killed(path, next_batch, chance, lines_before=1 + number % 2)
        next_batch = judge(path, lines, live, next_batch, verdict)
        yield verdict


def _killed(path: Path, next_batch: int, chance: random.Random, lines_before: int) -> list[str]:
    """What a worker wrote before it was killed, at a random time after its first lines."""
    with start(__file__, path, next_batch, chance.randrange(2**31)) as worker:
        assert worker.stdout is not None
        first = [worker.stdout.readline() for _ in range(lines_before)]
        time.sleep(chance.uniform(0, LONGEST))
        worker.kill()
        lines = [*first, *worker.stdout.read().splitlines()]
    assert worker.returncode == -signal.SIGKILL, f"the worker ended by itself: {worker.returncode}"
    return [line.strip() for line in lines]


def judge(path: Path, lines: list[str], live: set[int], next_batch: int, verdict: Verdict) -> int:
    """Compare a file with what was acknowledged on it; the number of the next batch. ``live`` is brought up to date."""
    pending = ""
    for line in lines:
        if line != "ok":
            pending = line
            next_batch = max(next_batch, int(line[1:]) + 1)
            continue
        verdict.acknowledged += 1
        verdict.vectors += len(batch_ids(int(pending[1:])))
        _apply(pending, live)
        pending = ""
    start = time.perf_counter()
    with qvec.open(path) as db:
        verdict.reopen_ms.append(1000 * (time.perf_counter() - start))
        found = _whole_batches(db, verdict)
        undecided = {int(pending[1:])} if pending else set()
        verdict.lost += sum(len(batch_ids(batch)) for batch in (found ^ live) - undecided)
        verdict.problems += db.verify()
        verdict.wrong += _unfindable(db, found)
    live.clear()
    live.update(found)
    verdict.rounds += 1
    return next_batch


def _apply(line: str, live: set[int]) -> None:
    (live.add if line[0] == "+" else live.discard)(int(line[1:]))


def _whole_batches(db: qvec.Collection, verdict: Verdict) -> set[int]:
    """Batches that are stored, every vector and payload as written; counts those of which only a part is."""
    ids: dict[int, list[int]] = {}
    for records in db.scan():
        for i, vector, payload in zip(records.ids.tolist(), records.vectors, records.payloads, strict=True):
            batch = i // BATCH_IDS
            ids.setdefault(batch, []).append(i)
            expected = batch_vectors(batch)[i % BATCH_IDS]
            verdict.wrong += payload != {"batch": batch} or vector.tolist() != expected.tolist()
    verdict.torn += sum(sorted(names) != batch_ids(batch) for batch, names in ids.items())
    verdict.wrong += len(db) != sum(map(len, ids.values()))
    return set(ids)


def _unfindable(db: qvec.Collection, found: set[int]) -> int:
    """Vectors of the newest batches that a search for themselves does not find first."""
    wrong = 0
    for batch in sorted(found)[-5:]:
        hits = db.search(batch_vectors(batch), 1, ef=200)
        wrong += int((hits.ids[:, 0] != batch_ids(batch)).sum())
    return wrong


def summary(verdict: Verdict) -> dict[str, Any]:
    """The figures of a run."""
    times = np.array(verdict.reopen_ms)
    return {
        "rounds": verdict.rounds,
        "acknowledged commits": verdict.acknowledged,
        "acknowledged vectors": verdict.vectors,
        "lost": verdict.lost,
        "torn": verdict.torn,
        "wrong": verdict.wrong,
        "verify problems": len(verdict.problems),
        "reopen ms, median": float(np.median(times)),
        "reopen ms, max": float(times.max()),
    }


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
