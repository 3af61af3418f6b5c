"""Paths and files that cannot be opened or created raise the right error and are not changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb  # noqa: TID251 - to make files that are LMDB's but not qvec's
import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec import Collection
from qvec.storage import header

DIM = 8
X = clustered(np.random.default_rng(1), 5, DIM)


@pytest.fixture
def db(path: Path) -> Iterator[Collection]:
    with qvec.create(path, DIM) as db:
        db.add(X)
        yield db


@pytest.mark.parametrize("mode", ["rw", "r"])
def test_a_missing_file_is_not_found_and_not_made(tmp_path: Path, mode: Any) -> None:
    with pytest.raises(qvec.NotFoundError, match=r"none\.qvec") as caught:
        qvec.open(tmp_path / "none.qvec", mode)
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(FileNotFoundError, match="no-folder"):
        qvec.create(tmp_path / "no-folder" / "x.qvec", DIM)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "content", [b"", b"x", b"vectors\n" * 5000, bytes(8192), os.urandom(10_000), b"\x89HDF\r\n\x1a\n" * 2000]
)
@pytest.mark.parametrize("mode", ["rw", "r"])
def test_a_file_that_is_not_qvecs_is_refused_and_left_alone(path: Path, mode: Any, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(qvec.FormatError, match=r"test\.qvec") as caught:
        qvec.open(path, mode)
    assert isinstance(caught.value, ValueError)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", ["rw", "r"])
def test_an_lmdb_file_that_is_not_qvecs_is_refused_and_left_alone(path: Path, mode: Any) -> None:
    with lmdb.open(str(path), subdir=False, max_dbs=2) as env, env.begin(write=True) as txn:
        txn.put(b"config", b"hello")
        env.open_db(b"ids", txn)
    content = path.read_bytes()
    with pytest.raises(qvec.FormatError, match=r"test\.qvec"):
        qvec.open(path, mode)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", ["rw", "r"])
def test_a_file_of_a_newer_format_is_refused_by_its_number(
    path: Path, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = header.FORMAT_VERSION + 1
    with monkeypatch.context() as patch:
        patch.setattr(header, "FORMAT_VERSION", newer)
        qvec.create(path, DIM).close()
    content = path.read_bytes()
    with pytest.raises(qvec.FormatError, match=f"format {newer}.*reads up to {newer - 1}") as caught:
        qvec.open(path, mode)
    assert isinstance(caught.value, ValueError)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", ["rw", "r"])
def test_a_truncated_file_is_refused_before_it_is_mapped(db: Collection, path: Path, mode: Any) -> None:
    db.close()
    content = path.read_bytes()
    for size in (len(content) - 1, len(content) // 2, 4096, 100):
        path.write_bytes(content[:size])
        with pytest.raises((qvec.CorruptError, qvec.FormatError), match=r"test\.qvec"):
            qvec.open(path, mode)
        assert path.read_bytes() == content[:size]


@pytest.mark.parametrize("mode", ["rw", "r"])
def test_a_folder_is_not_a_collection(tmp_path: Path, mode: Any) -> None:
    with pytest.raises(qvec.FormatError, match="directory"):
        qvec.open(tmp_path, mode)
    with pytest.raises(qvec.ExistsError):
        qvec.create(tmp_path, DIM)


@pytest.mark.parametrize("path", ["a\0b.qvec", "", b"a\0b.qvec"])
def test_paths_that_cannot_be(path: Any) -> None:
    with pytest.raises((qvec.InputError, qvec.NotFoundError)):
        qvec.create(path, DIM)
    with pytest.raises((qvec.InputError, qvec.NotFoundError)):
        qvec.open(path)


@pytest.mark.parametrize("path", [None, 7, 1.5, ["x"], object()])
def test_a_path_must_be_a_path(path: Any) -> None:
    with pytest.raises(TypeError):
        qvec.create(path, DIM)
    with pytest.raises(TypeError):
        qvec.open(path)


def test_a_file_that_exists_is_not_overwritten(path: Path) -> None:
    path.write_bytes(b"precious")
    with pytest.raises(qvec.ExistsError, match=r"test\.qvec") as caught:
        qvec.create(path, DIM)
    assert isinstance(caught.value, FileExistsError)
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(("options", "message"), [
    ({"mode": "w"}, "mode .*'w'"),
    ({"mode": None}, "mode .*None"),
    ({"memory": "disk"}, "memory .*'disk'"),
    ({"checksums": "yes"}, "checksums .*'yes'"),
])  # fmt: skip
def test_open_options_that_are_refused(db: Collection, path: Path, options: dict[str, Any], message: str) -> None:
    db.close()
    with pytest.raises(qvec.InputError, match=message):
        qvec.open(path, **options)
    with qvec.open(path) as again:  # and the refused call holds no lock
        assert len(again) == 5


OPEN_FOR_WRITING = """
import sys, qvec
try:
    qvec.open(sys.argv[1], exclusive=True, timeout=0.1)
except qvec.LockedError as error:
    assert isinstance(error, BlockingIOError)
    assert "test.qvec" in str(error), error
    sys.exit(42)
"""


def test_an_exclusive_open_is_refused_in_this_process_and_in_another(db: Collection, path: Path) -> None:
    before = db.stats()
    db.close()
    db = qvec.open(path, exclusive=True)
    with pytest.raises(qvec.LockedError, match=r"test\.qvec") as caught:
        qvec.open(path, exclusive=True, timeout=0)
    assert isinstance(caught.value, BlockingIOError)
    other = subprocess.run([sys.executable, "-c", OPEN_FOR_WRITING, str(path)], timeout=60, check=False)
    assert other.returncode == 42
    assert db.stats() == before
    db.close()
    with qvec.open(path) as again:
        assert len(again) == 5
