"""R23: several processes that write to one file, are killed and started again, while others read.

Each process adds, replaces and deletes batches of three vectors under ids of its own, and notes each call in a log
before and after it. Afterwards the file must have what the logs acknowledge. A call that a kill
interrupted is there as a whole or not at all. Run as a script, this file is one of the processes.
"""

from __future__ import annotations

import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from child import start
from figures import Figures, Job

import qvec

DIM, BATCH, SPAN = 8, 3, 1_000_000  # ids of a process: SPAN times its number, and those behind
TIMEOUT = 30.0
CALLS = {"short": 60, "nightly": 1000}
WRITERS = {"short": 4, "nightly": 16}
READERS = {"short": 1, "nightly": 4}
PAUSE = 0.05  # seconds between two reads, so that readers leave processor time to the writers
KILLS = {"short": 6, "nightly": 1_000_000}
Log = list[tuple[int, str, int, bool]]  # batch, call, version, whether it returned


def run(job: Job) -> Figures:
    """Write until each process has made all its calls; kill one of them from time to time."""
    figures = Figures("R23", "several writing processes, one of them killed from time to time")
    path, chance = job.folder / "many.qvec", random.Random(job.seed)
    qvec.create(path, DIM, index=qvec.HNSW(m=8, ef_construction=40), fields={"version": "int"}).close()
    writers, calls = WRITERS[job.scale], job.amount(CALLS)
    running = {number: _writer(path, number, calls) for number in range(writers)}
    readers = [start(__file__, "read", path) for _ in range(READERS[job.scale])]
    done: set[int] = set()
    kills = KILLS[job.scale]
    while len(done) < writers:
        time.sleep(1.0)
        for number, process in running.items():
            if number not in done and (code := process.poll()) is not None:
                done.add(number)
                figures.count("writers that ended")
                said = process.communicate()[0]
                if code:
                    figures.fail(f"writer {number} ended with {code}: {said[-800:]}")
                else:
                    longest = max(figures.amounts.get("longest call, seconds", 0.0), float(said.split()[-1]))
                    figures.amounts["longest call, seconds"] = longest
        # A kill of a writer that has ended is void. If only the last writers were killed, none of them could ever end
        # when a start takes longer than the time between two kills.
        number = chance.randrange(writers)
        if number not in done and figures.amounts.get("kills", 0) < kills:
            running[number].send_signal(signal.SIGKILL)
            running[number].communicate()
            figures.count("kills")
            running[number] = _writer(path, number, calls)
    for reader in readers:
        said = reader.communicate("\n", timeout=60)[0]
        figures.count("reads", int(said.split()[0]) if said.split() else 0)
        if reader.returncode:
            figures.fail(f"a reader ended with {reader.returncode}: {said[-800:]}")
    _check(path, writers, figures)
    return figures


def _writer(path: Path, number: int, calls: int) -> subprocess.Popen[str]:
    return start(__file__, "write", path, number, calls)


def _check(path: Path, writers: int, figures: Figures) -> None:
    with qvec.open(path) as db:
        for problem in db.verify():
            figures.fail(problem)
        found = {int(i): r["version"] for part in db.scan() for i, r in zip(part.ids, part.payloads, strict=True)}
    for number in range(writers):
        log = read_log(_log_path(path, number))
        figures.count("acknowledged", sum(returned for *_, returned in log))
        possible = states(log)
        for batch, versions in possible.items():
            ids = [number * SPAN + BATCH * batch + i for i in range(BATCH)]
            stored = [found.pop(i, None) for i in ids]
            if len(set(stored)) != 1:
                figures.fail(f"batch {batch} of writer {number} is there in part: {stored}")
            elif stored[0] not in versions:
                figures.fail(f"batch {batch} of writer {number} is {stored[0]}, not one of {versions}")
    if found:
        figures.fail(f"{len(found)} vectors that nobody added: {sorted(found)[:5]}")


def states(log: Log) -> dict[int, set[int | None]]:
    """For each batch the versions that it may have; None: deleted, or never there."""
    found: dict[int, set[int | None]] = {}
    for batch, call, version, returned in log:
        after = None if call == "delete" else version
        before = found.get(batch, {None})
        found[batch] = {after} if returned else before | {after}
    return found


def read_log(path: Path) -> Log:
    """The calls of a writer. A last line that is cut off was not acknowledged."""
    log: Log = []
    for line in path.read_text().splitlines() if path.exists() else ():
        match line.split():
            case ["begin", batch, call, version, "."]:
                log.append((int(batch), call, int(version), False))
            case ["end", "."]:
                log[-1] = (*log[-1][:3], True)
    return log


def _log_path(path: Path, number: int) -> Path:
    return path.with_suffix(f".{number}.log")


def write(path: Path, number: int, calls: int) -> None:
    """Make the calls that are left, after those of the log."""
    log = read_log(_log_path(path, number))
    possible = states(log)
    chance, rng = random.Random(), np.random.default_rng()
    longest = 0.0
    with _log_path(path, number).open("a") as out, qvec.open(path, timeout=TIMEOUT) as db:
        out.write("\n")
        for version in range(len(log), calls):
            batch = chance.randrange(40)
            ids = [number * SPAN + BATCH * batch + i for i in range(BATCH)]
            there = batch in possible and None not in possible[batch]
            call = chance.choice(["delete", "upsert"]) if there else "upsert"
            if batch not in possible:
                call = "add"
            print(f"begin {batch} {call} {version} .", file=out, flush=True)
            begun = time.monotonic()
            if call == "delete":
                db.delete(ids)
            else:
                method = db.add if call == "add" else db.upsert
                method(rng.normal(size=(BATCH, DIM)), ids=ids, payloads=[{"version": version}] * BATCH)
            longest = max(longest, time.monotonic() - begun)
            print("end .", file=out, flush=True)
            possible[batch] = {None if call == "delete" else version}
    print(f"{longest:.3f}")


def read(path: Path) -> None:
    """Search and scan until a line is read: each batch must be there as a whole."""
    reads = 0
    query = np.random.default_rng(0).normal(size=DIM).astype(np.float32)
    with qvec.open(path, "r") as db:
        while not select.select([0], [], [], PAUSE)[0]:
            db.search(query, 10)
            with db.snapshot() as snapshot:
                batches: dict[int, set[int]] = {}
                rows = 0
                for part in snapshot.scan():
                    rows += len(part.ids)
                    for i, record in zip(part.ids, part.payloads, strict=True):
                        batches.setdefault((int(i) % SPAN) // BATCH + int(i) // SPAN * SPAN, set()).add(
                            record["version"]
                        )
                assert rows == BATCH * len(batches) == len(snapshot), f"{rows} rows, {len(batches)} batches"
                assert all(len(versions) == 1 for versions in batches.values()), "a batch of two versions"
            reads += 1
    print(reads)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        read(Path(sys.argv[2]))
