"""R1: kill -9 at a random time, then a check of the file.

A worker changes batches (:mod:`workloads`). It announces each change before it begins, and prints "ok" after the call
has returned. The file must contain all acknowledged changes, and of the pending change all or nothing.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figures, Job
from forked_workers import Server, Worker, ask
from workloads import BATCH_IDS, DIM, WORKLOADS, Change, Live, ids_of, size_of, vectors_of

import qvec

LONGEST = 0.025  # maximum lifetime of a worker in seconds, from its first change
ROUNDS_PER_FILE = 15
MOST = 400  # batches of a file
DEEP = 8  # everything is verified after this number of kills of a file, and after the last one
ROUNDS = {"short": 20, "nightly": 5000}  # of each workload
EXPECTED = ("qvec", "-lock", ".qvec.reembed", ".qvec.previous")  # ends of the names of files


def create(path: str, options: dict[str, Any]) -> None:
    qvec.create(path, DIM, metric="l2", code="int8", **options).close()


def work(path: str, name: str, live: Live, first: int, seed: int, say: Callable[[str], None]) -> None:
    """Change until killed."""
    steps, _ = WORKLOADS[name]
    with qvec.open(path) as db:
        for change, run in steps(live, first, random.Random(seed)):
            say(json.dumps(change))
            run(db)
            say("ok")
            apply(change, live)


def apply(change: Change, live: Live) -> Live:
    for batch, version in change:
        if version < 0:
            live.pop(batch, None)
        else:
            live[batch] = version
    return live


def found(path: str, deep: bool = True) -> dict[str, Any]:
    """The batches of a file, and its problems; ``deep``: also verify everything."""
    start = time.perf_counter()
    with qvec.open(path) as db:
        reopen_ms = 1000 * (time.perf_counter() - start)
        rows: dict[tuple[int, int], list[int]] = {}
        wrong = []
        for records in db.scan():
            for i, vector, payload in zip(records.ids.tolist(), records.vectors, records.payloads, strict=True):
                batch, version = payload["batch"], payload["version"]
                rows.setdefault((batch, version), []).append(i)
                if not np.array_equal(vector, vectors_of(batch, version, db.dim)[i - BATCH_IDS * batch]):
                    wrong.append(f"the vector of id {i} is not that of version {version}")
        torn = [f"{key} is there in part" for key, ids in rows.items() if sorted(ids) != ids_of(key[0])]
        if len(db) != sum(map(len, rows.values())):
            wrong.append(f"{len(db)} vectors are said to be there")
        for batch, version in sorted(rows)[-4 if deep else -1 :]:
            wrong += [f"id {i} is not found" for i in not_found(db, batch, version)]
        if "batch" in db.fields:
            counts = {batch: size_of(batch) for batch, _ in rows}
            wrong += ["facets do not count the rows"] if db.facets("batch") != counts else []
        if "body" in db.fields:
            wrong += [
                f"batch {key} is not what its words find" for key in sorted(rows) if not is_found_by_words(db, key)
            ]
        if deep:
            wrong += db.verify()
        return {"rows": sorted(rows), "torn": torn, "wrong": wrong, "reopen_ms": reopen_ms}


def not_found(db: qvec.Collection, batch: int, version: int) -> list[int]:
    """Ids of a batch whose own vectors a search over the whole index does not find."""
    effort: dict[str, Any] = {"nprobe": n} if (n := db.stats().lists) else {"ef": max(10, len(db))}
    hits = db.search(vectors_of(batch, version, db.dim), 1, include=(), **effort)
    return [i for i, hit in zip(ids_of(batch), hits.ids[:, 0].tolist(), strict=True) if i != hit]


def is_found_by_words(db: qvec.Collection, key: tuple[int, int]) -> bool:
    """Whether words, a sparse vector and `$match` find exactly the rows of a version of a batch."""
    batch, version = key
    match = {"body": {"$match": f"batch{batch} version{version}"}}
    found = db.search(text=f"batch{batch}", k=50), db.search(sparse={100_000 + batch: 1.0}, k=50)
    rows = [sorted(hits.ids[: int(hits.counts)].tolist()) for hits in found]
    return rows == [ids_of(batch)] * 2 and db.count(match) == size_of(batch)


def check(
    server: Server, path: str, live: Live, pending: Change | None, figures: Figures, where: str, deep: bool = True
) -> Live:
    """Compare a file with the acknowledged changes, with and without the pending one; returns the file's batches."""
    try:
        state = server.ask(path, deep)
    except (RuntimeError, TimeoutError) as error:
        figures.fail(f"{where}: {error}")
        return {}
    there: Live = {}
    for batch, version in state["rows"]:
        if batch in there:
            figures.fail(f"{where}: batch {batch} is there in two versions")
        there[batch] = version
    allowed = [live] if pending is None else [live, apply(pending, dict(live))]
    if there not in allowed:
        differing = {b for b in {*there, *live} if there.get(b) != live.get(b)}
        figures.count("lost", len(differing))
        figures.fail(f"{where}: batches {sorted(differing)} are neither as acknowledged nor as after {pending}")
    for text in (*state["torn"], *state["wrong"]):
        figures.fail(f"{where}: {text}")
    figures.amounts.setdefault("reopen ms", []).append(state["reopen_ms"])
    return there


def killed(
    path: str, name: str, live: Live, first: int, chance: random.Random, changes: int
) -> tuple[int, Change | None, int]:
    """One round. Returns the number of acknowledged changes (applied to ``live``), the pending change, and the next
    batch.

    The time is measured from the end of a number of whole changes.
    """
    seed = chance.randrange(2**31)
    worker = Worker(lambda say: work(path, name, dict(live), first, seed, say))
    acknowledged, pending = 0, None
    lines = [worker.line() for _ in range(2 * changes + 1)]
    time.sleep(chance.uniform(0, LONGEST))
    worker.kill()
    while lines[-1] is not None:
        lines.append(worker.line())
    for line in filter(None, lines):
        if line == "ok":
            acknowledged += 1
            apply(pending or [], live)
            pending = None
        elif line.startswith("{"):
            raise AssertionError(f"the worker failed: {line}")
        else:
            pending = [(batch, version) for batch, version in json.loads(line)]
            first = max([first, *(batch + 1 for batch, _ in pending)])
    ended = worker.end()
    if ended != "SIGKILL":
        raise AssertionError(f"the worker ended by itself: {ended}")
    return acknowledged, pending, first


def warm_up(folder: Path) -> None:
    """Import modules and run once on files that are closed again, so that children need not do so."""
    for name, (steps, options) in WORKLOADS.items():
        path, live = str(folder / f"warm-{name}.qvec"), {}
        create(path, options)
        with qvec.open(path) as db:
            for change, run in itertools.islice(steps(live, 0, random.Random(0)), 30):
                run(db)
                apply(change, live)
        found(path)
    for leftover in folder.glob("warm-*"):
        leftover.unlink()


def run(job: Job) -> Figures:
    figures = Figures("R1", "kill -9 of a writer at a random time")
    warm_up(job.folder)
    with Server(found) as server:
        for name in job.chosen(WORKLOADS):
            _run_workload(name, job, server, figures)
    times = figures.amounts.pop("reopen ms", [0.0])
    figures.amounts["reopen ms, median"] = round(float(np.median(times)), 2)
    figures.amounts["reopen ms, max"] = round(float(np.max(times)), 2)
    return figures


def _run_workload(name: str, job: Job, server: Server, figures: Figures) -> None:
    chance, rounds = random.Random(f"{job.seed} {name}"), job.amount(ROUNDS)
    at = 0  # of the file's rounds
    for number in range(rounds):
        if at == 0:
            path, live, first = str(job.folder / f"{name}-{number}.qvec"), {}, 0
            ask(create, path, WORKLOADS[name][1])
        acknowledged, pending, first = killed(path, name, live, first, chance, number % 3)
        last = at == ROUNDS_PER_FILE - 1 or first > MOST or number == rounds - 1
        deep = last or at % DEEP == DEEP - 1
        at = 0 if last else at + 1
        figures.count("kills")
        figures.count(f"kills: {name}")
        figures.count("acknowledged commits", acknowledged)
        figures.count("kills inside a change", pending is not None)
        figures.count("verified", deep)
        live = check(server, path, live, pending, figures, f"seed {job.seed}, {name}, round {number}", deep)
        if last:
            strays = [file.name for file in job.folder.glob(f"{name}-*") if not file.name.endswith(EXPECTED)]
            if strays:
                figures.fail(f"{name}: files were left: {strays}")
            for leftover in job.folder.glob(f"{name}-*"):
                leftover.unlink()
