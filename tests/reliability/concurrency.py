"""R10 to R12: threads, processes and a long-lived snapshot while a writer commits."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import writer_readers
from figures import Figures, Job

import qvec
from qvec.storage.copies import copy_to
from qvec.storage.stats import collect

SECONDS = {"short": 4.0, "nightly": 600.0}
READERS = 8
COMMITS = 1000
DIM = 16
SLOWER = 2.0  # limit of the 99th percentile with a writer, divided by that without one
MIN_SEARCHES = 200  # for a percentile
COMPARED = 10_000  # the limit applies from this number of searches: a hundred of them are above the percentile


def prepared(path: Path, index: Any = "hnsw") -> Path:
    with qvec.create(path, DIM, metric="l2", code="int8", index=index) as db:
        for batch in range(20):
            writer_readers.add_batch(db, batch)
    return path


def run_threads(job: Job) -> Figures:
    """One handle that a thread writes and eight threads read; each snapshot must have complete batches."""
    figures = Figures("R10", f"1 writer and {READERS} readers, threads of one process")
    path = prepared(job.folder / "a.qvec")
    with qvec.open(path) as db:
        idle = _read_by_threads(db, max(1.0, job.amount(SECONDS) / 10), job.seed)
        stop, commits = threading.Event(), [0]
        writer = threading.Thread(target=_write_until, args=(db, stop, commits))
        writer.start()
        seen = _read_by_threads(db, job.amount(SECONDS), job.seed)
        stop.set()
        writer.join()
        for problem in db.verify():
            figures.fail(problem)
        if len(db) != writer_readers.BATCH * (20 + commits[0]):
            figures.fail(f"{len(db)} vectors after {commits[0]} commits")
        free = threading.Thread(target=db.close)  # while others search: each search ends or raises ClosedError
        last = [writer_readers.Reading() for _ in range(READERS)]
        readers = [threading.Thread(target=_read_to_the_end, args=(db, one)) for one in last]
        for thread in (*readers, free):
            thread.start()
        for thread in (*readers, free):
            thread.join(30)
            if thread.is_alive():
                figures.fail("a thread hangs after close()")
    figures.amounts["commits"] = commits[0]
    _check(figures, seen + last, idle)
    _compare(figures, idle, seen)
    if threading.active_count() > 1:
        figures.fail(f"{threading.active_count() - 1} threads outlive close()")
    return figures


def _write_until(db: qvec.Collection, stop: threading.Event, commits: list[int]) -> None:
    while not stop.is_set():
        writer_readers.add_batch(db, 20 + commits[0])
        commits[0] += 1
        time.sleep(0.02)


def _read_by_threads(db: qvec.Collection, seconds: float, seed: int) -> list[writer_readers.Reading]:
    seen = [writer_readers.Reading() for _ in range(READERS)]
    threads = [threading.Thread(target=_read, args=(db, seconds, seed + i, one)) for i, one in enumerate(seen)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def _read(db: qvec.Collection, seconds: float, seed: int, seen: writer_readers.Reading) -> None:
    writer_readers.read_on(db, time.monotonic() + seconds, 20, 20, seed, seen)


def _read_to_the_end(db: qvec.Collection, seen: writer_readers.Reading) -> None:
    try:
        while True:
            db.search(np.ones(DIM, np.float32), 5)
    except qvec.ClosedError:
        return
    except Exception as error:
        seen.errors.append(repr(error))


def run_processes(job: Job) -> Figures:
    """One writer and eight readers, each a process; then one writer and readers that are killed."""
    figures = Figures("R11", f"1 writer and {READERS} readers, processes")
    path = prepared(job.folder / "a.qvec")
    _, *idle = writer_readers.run(path, max(1.0, job.amount(SECONDS) / 10), 20, readers=READERS, pause=1e9)
    done = writer_readers.run(path, job.amount(SECONDS), 20, readers=READERS, pause=0.02)
    commits = done[0]["commits"]
    seen = [writer_readers.Reading(**one) for one in done[1:]]
    before = [writer_readers.Reading(**one) for one in idle]
    figures.amounts["commits"] = commits
    _check(figures, seen, before)
    _compare(figures, before, seen)
    with qvec.open(path) as db:
        if len(db) != writer_readers.BATCH * (20 + commits):
            figures.fail(f"{len(db)} vectors after {commits} commits")
        for problem in db.verify():
            figures.fail(problem)
        stats = collect(db._store)
        figures.amounts["file / used"] = round(stats.file_bytes / stats.used_bytes, 2)
        if stats.readers > 1:
            figures.fail(f"stats() reports {stats.readers} readers")
    return figures


def run_snapshot(job: Job) -> Figures:
    """Keep a snapshot open for a thousand commits, and measure what it costs."""
    figures, chance = Figures("R12", f"a snapshot held open for {COMMITS} commits"), random.Random(job.seed)
    path = prepared(job.folder / "a.qvec", "flat")
    with qvec.open(path) as db:
        size = os.path.getsize(path)
        with db.snapshot() as snapshot:
            before = snapshot.search(np.ones(DIM, np.float32), 20)
            for i in range(COMMITS):
                batch = chance.randrange(20)
                db.upsert(
                    writer_readers.center(batch, DIM), [writer_readers.BATCH * batch], [{"batch": batch, "turn": i}]
                )
            after = snapshot.search(np.ones(DIM, np.float32), 20)
            if before.ids.tolist() != after.ids.tolist() or before.distances.tolist() != after.distances.tolist():
                figures.fail("the answers of the snapshot changed")
            stats = collect(db._store)
            if stats.snapshots[0][1] < COMMITS or stats.commits_held < COMMITS:
                figures.fail(f"stats() does not count the commits held: {stats.snapshots}, {stats.commits_held}")
            grown = os.path.getsize(path)
        for i in range(200):
            db.upsert(writer_readers.center(3, DIM), [3], [{"turn": i}])
        later = os.path.getsize(path)
        live = job.folder / "copy.qvec"
        copy_to(db._store, live)
        figures.amounts |= {
            "commits": COMMITS,
            "bytes before": size,
            "bytes with snapshot": grown,
            "bytes copied": os.path.getsize(live),
        }
        if later > grown + (1 << 20):
            figures.fail(f"the file grew from {grown} to {later} bytes after the snapshot was closed")
        if os.path.getsize(live) > 1.5 * size + (1 << 20):
            figures.fail(f"a compact copy has {os.path.getsize(live)} bytes; {size} before")
        for problem in db.verify():
            figures.fail(problem)
    return figures


def _check(figures: Figures, *runs: list[writer_readers.Reading]) -> None:
    for seen in (one for run in runs for one in run):
        figures.count("searches", seen.searches)
        figures.count("checks", seen.checks)
        figures.count("half-seen batches", seen.half_seen)
        for error in seen.errors:
            figures.fail(error)
        if seen.half_seen:
            figures.fail(f"{seen.half_seen} batches were seen in part")


def _compare(figures: Figures, idle: list[writer_readers.Reading], seen: list[writer_readers.Reading]) -> None:
    times = [np.concatenate([one.search_us for one in run]) for run in (idle, seen)]
    if min(map(len, times)) < MIN_SEARCHES:
        return
    idle_p99, busy_p99 = (float(np.percentile(some, 99)) for some in times)
    figures.amounts |= {"p99 us, idle": round(idle_p99), "p99 us, with a writer": round(busy_p99)}
    figures.amounts["p99 ratio"] = round(busy_p99 / idle_p99, 2)
    if len(times[0]) > COMPARED and busy_p99 > SLOWER * idle_p99:
        figures.fail(f"the 99th percentile with a writer is {busy_p99 / idle_p99:.2f} times that without one")
