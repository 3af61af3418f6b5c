"""One process that writes and four that search: no reader ever sees a part of a batch."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import writer_readers

import qvec

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SECONDS = float(os.environ.get("QVEC_SECONDS", "5"))
DIM = 16


def prepared(path: Path, index: str) -> Path:
    """A collection of 20 batches."""
    with qvec.create(path, DIM, metric="l2", code="int8", index=index) as db:
        for batch in range(20):
            writer_readers.add_batch(db, batch)
    return path


@pytest.mark.timeout(120 + 3 * SECONDS)
@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_readers_see_whole_batches_while_a_writer_commits(path: Path, index: str) -> None:
    writer, *readers = writer_readers.run(prepared(path, index), SECONDS, 20, readers=4)
    assert writer["commits"] >= 10
    for reader in readers:
        assert reader["errors"] == []
        assert reader["half_seen"] == 0
        assert min(reader["searches"], reader["checks"]) >= 10
    assert max(reader["newest"] for reader in readers) >= writer["commits"] / 2  # they followed the writer
    with qvec.open(path) as db:
        assert len(db) == writer_readers.BATCH * (20 + writer["commits"])
        assert db.verify() == []


def test_the_readers_check_sees_a_half_written_batch(path: Path) -> None:
    with qvec.open(prepared(path, "flat")) as db:
        seen = writer_readers.Reading()
        writer_readers.check(db, 0, random.Random(1), seen)
        assert seen.half_seen == 0
        db.add(np.tile(writer_readers.center(20, DIM), (30, 1)), np.arange(20 * 64, 20 * 64 + 30), [{"batch": 20}] * 30)
        writer_readers.check(db, 0, random.Random(1), seen)
        assert seen.half_seen == 2


WRITE = """
import sys, time, numpy as np, qvec
path, first, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
end, count = time.monotonic() + seconds, 0
while time.monotonic() < end:
    try:
        with qvec.open(path) as db:
            db.add(np.full((1, 16), first + count, 'f4'), ids=[first + count])
            count += 1
    except qvec.LockedError:
        time.sleep(0.001)
print(count)
"""


def test_writers_that_contend_lose_no_update(path: Path) -> None:
    prepared(path, "flat")
    commands = [[sys.executable, "-c", WRITE, str(path), str(first), "2"] for first in (10**6, 2 * 10**6)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    counts = [int(writer.communicate(timeout=60)[0]) for writer in writers]
    assert min(counts) >= 1
    with qvec.open(path) as db:
        assert len(db) == 20 * 64 + sum(counts)
        for first, count in zip((10**6, 2 * 10**6), counts, strict=True):
            assert all(first + i in db for i in range(count))
        assert db.verify() == []


READ_FOREVER = """
import sys, qvec
db = qvec.open(sys.argv[1], "r")
batches = db.scan(batch_size=1)
next(batches)
print("holding", flush=True)
sys.stdin.read()
"""


def test_a_killed_reader_leaves_nothing_that_makes_the_file_grow(path: Path) -> None:
    with qvec.open(prepared(path, "flat")) as db:
        for _ in range(3):
            reader = subprocess.Popen(
                [sys.executable, "-c", READ_FOREVER, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert reader.stdout is not None
            assert reader.stdout.readline() == "holding\n"
            reader.kill()
            reader.communicate()
        for i in range(100):
            db.upsert(writer_readers.center(5, DIM), [5], [{"batch": 0, "turn": i}])
        size = path.stat().st_size
        for i in range(300):
            db.upsert(writer_readers.center(5, DIM), [5], [{"batch": 0, "turn": i}])
        grown = path.stat().st_size - size
        assert grown < 300 * 20_000, "pages of replaced blocks are not used again"
        assert db.verify() == []


def test_a_writer_that_is_killed_leaves_its_lock_to_the_next(path: Path) -> None:
    prepared(path, "flat")
    hold = "import sys, qvec\ndb = qvec.open(sys.argv[1], exclusive=True)\nprint('open', flush=True)\nsys.stdin.read()"
    writer = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    with pytest.raises(qvec.LockedError, match=f"process {writer.pid} has the file open exclusively"):
        qvec.open(path, exclusive=True, timeout=0.1)
    writer.kill()
    writer.communicate()
    start = time.perf_counter()
    with qvec.open(path) as db:
        assert time.perf_counter() - start < 1
        writer_readers.add_batch(db, 20)
        assert db.verify() == []
