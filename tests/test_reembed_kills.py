"""A process that changes the embedding model is killed at random moments, while others write and read."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import qvec
from helpers import reembed_processes
from helpers.reembed_processes import DIMS, ROWS, Model, text_of, vector_of

SCRIPT = Path(reembed_processes.__file__)
SHARE = 2  # the latest moment of a kill, relative to the time of a call that is not killed


def start(path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, SCRIPT, path, *arguments], stdout=subprocess.PIPE, text=True)


def acknowledged(log: str) -> tuple[dict[int, tuple[str, str | None]], set[int]]:
    """The last change of each id and its text, None if it was deleted; and the ids of changes that have not ended."""
    texts: dict[int, tuple[str, str | None]] = {}
    begun: dict[str, int] = {}
    for line in log.splitlines():
        state, kind, id, version = line.split()
        if state == "begin":
            begun[f"{kind} {id} {version}"] = int(id)
        else:
            del begun[f"{kind} {id} {version}"]
            texts[int(id)] = version, text_of(int(id), int(version)) if kind == "put" else None
    return texts, set(begun.values())


def check(path: Path, log: Path) -> int:
    """The collection is of one model, complete, and has all acknowledged changes. Returns its dimension."""
    before, _ = acknowledged(log.read_text())
    with qvec.open(path, "r") as db:
        stored = {record.id: record for part in db.scan() for record in part}
        dim = db.dim
    after, open_ids = acknowledged(log.read_text())
    assert set(range(ROWS)) <= set(stored)
    for record in stored.values():
        assert record.payload is not None
        np.testing.assert_array_equal(record.vector, vector_of(record.payload["text"], dim))
    for id, change in before.items():
        if after[id] == change and id not in open_ids:  # the writer has not changed it in the meantime
            found = stored.get(id)
            assert (None if found is None else (found.payload or {})["text"]) == change[1], id
    return dim


def run(path: Path, kill_after: float | None) -> float:
    """Let a process change the model, and kill it after a number of seconds. Returns the seconds that it took."""
    child = start(path, "reembed")
    assert child.stdout is not None
    assert child.stdout.readline() == "begins\n"
    begun = time.monotonic()
    if kill_after is None:
        assert child.stdout.readline() == "done\n"
    else:
        time.sleep(kill_after)
        child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    return time.monotonic() - begun


@pytest.mark.alone
@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.nightly)])
def test_the_old_or_the_new_collection_survives(path: Path, kills: int) -> None:
    log, random_time, switched = path.parent / "log", random.Random(kills), 0
    with qvec.create(path, DIMS[0], model=Model(DIMS[0]).model, index="flat") as db:
        texts = [text_of(i, 0) for i in range(ROWS)]
        db.add(np.stack([vector_of(text, DIMS[0]) for text in texts]), payloads=[{"text": text} for text in texts])
    log.touch()
    others = [start(path, "write", str(log)), start(path, "read")]
    try:
        took, dim = run(path, None), check(path, log)
        assert dim == DIMS[1]
        for _ in range(kills):
            run(path, random_time.uniform(0, SHARE * took))
            now = check(path, log)
            switched += now != dim
            dim = now
            assert [other.poll() for other in others] == [None, None]
        assert kills // 10 <= switched < kills
        run(path, None)
        assert check(path, log) != dim  # an unfinished call was continued
        with qvec.open(path, "r") as db:
            assert db.verify() == []
    finally:
        for other in others:
            other.kill()
            other.wait()
            assert other.stdout is not None
            assert other.stdout.read() == ""
            other.stdout.close()
