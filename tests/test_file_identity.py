"""Files that are replaced, renamed, linked, copied or removed while they are open."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

import qvec
from helpers.store_files import make_store, run_python
from qvec.common import system
from qvec.common.errors import LockedError
from qvec.storage import environment
from qvec.storage.store import Store

DIM = 8


def rows(n: int) -> np.ndarray:
    return np.tile(np.eye(DIM), (n // DIM + 1, 1))[:n]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A collection of two vectors, in two commits."""
    path = tmp_path / "a.qvec"
    fill(path, 2)
    return path


def fill(path: Path, commits: int, n: int = 1) -> None:
    with qvec.create(path, DIM, code="f32", index="flat") as db:
        for _ in range(commits):
            db.add(rows(n))


@pytest.mark.parametrize("how", ["replaced", "removed and created"])
@pytest.mark.parametrize("mode", ["r", "rw"])
@pytest.mark.parametrize("commits", [1, 2, 3])
def test_one_process_may_use_the_old_and_the_new_file_of_a_path(path: Path, mode: str, how: str, commits: int) -> None:
    with qvec.open(path, mode) as old:  # type: ignore[arg-type]
        if how == "replaced":
            fill(path.with_suffix(".new"), commits, 4)
            os.replace(path.with_suffix(".new"), path)
        else:
            path.unlink()
            fill(path, commits, 4)
        with qvec.open(path) as new:
            new.add(rows(1))
            assert (len(old), len(new)) == (2, 4 * commits + 1)
            assert old.verify() == new.verify() == []
        with qvec.open(path, "r") as reader:
            assert len(reader) == 4 * commits + 1
        assert len(old) == 2


def test_a_writer_of_a_removed_file_is_told_so(path: Path) -> None:
    with qvec.open(path) as db:
        path.unlink()
        with pytest.raises(qvec.ReplacedError, match=r"a\.qvec is gone"):
            db.add(rows(1))
        with pytest.raises(qvec.ReplacedError):
            db.compact()
        assert not path.exists()
        db.backup(path)  # the way to get it again
    with qvec.open(path) as db:
        assert len(db) == 2


def test_a_file_that_loses_its_name_inside_a_transaction_is_not_committed(path: Path) -> None:
    fill(path.with_suffix(".new"), 1, 4)
    with qvec.open(path) as db, pytest.raises(qvec.ReplacedError, match="refers to another"), db.transaction():  # noqa: PT012
        db.add(rows(1))
        os.replace(path.with_suffix(".new"), path)
    with qvec.open(path) as db:
        assert len(db) == 4


def test_a_file_with_two_hard_links_is_opened_for_reading_only(path: Path) -> None:
    os.link(path, path.with_name("b.qvec"))
    with pytest.raises(qvec.InputError, match="2 hard links"):
        qvec.open(path)
    with qvec.open(path, "r") as db:
        assert len(db) == 2


def test_a_name_that_a_killed_create_left_is_removed(path: Path) -> None:
    draft = path.with_name("a.qvec.0123abcd.new")
    os.link(path, draft)
    with qvec.open(path) as db:
        db.add(rows(1))
    assert not draft.exists()


OPEN_ELSEWHERE = """
try:
    with qvec.open(sys.argv[1], sys.argv[2]) as db:
        print(len(db))
except qvec.LockedError as error:
    print(error)
"""


@pytest.mark.parametrize("mode", ["r", "rw"])
@pytest.mark.parametrize("how", ["renamed", "lock file removed"])
def test_a_file_in_use_with_another_lock_file_is_refused_with_the_process_that_uses_it(
    path: Path, mode: str, how: str
) -> None:
    with qvec.open(path, "r"):
        other = path.with_name("b.qvec")
        if how == "renamed":
            path.rename(other)
        else:
            Path(f"{path}-lock").unlink()
            other = path
        said = run_python("import qvec\n" + OPEN_ELSEWHERE, other, mode)
        assert (
            f"in use under another name, or its lock file was removed while it was in use (by process {os.getpid()})"
            in said
        )
    assert run_python("import qvec\n" + OPEN_ELSEWHERE, other, mode).strip() == "2"


WRITE_MUCH = """
with qvec.open(sys.argv[1]) as db:
    for i in range(20):
        db.upsert(np.random.default_rng(i).normal(size=(300, 8)), ids=range(300))
"""


@pytest.mark.parametrize("how", ["copytree", "read the lock file", "link", "subprocess"])
def test_readers_stay_registered_whatever_their_process_does_with_the_files(path: Path, how: str) -> None:
    with qvec.open(path) as db:
        db.upsert(np.random.default_rng(99).normal(size=(300, DIM)), ids=range(300))
    with qvec.open(path, "r") as db, db.snapshot() as snapshot:
        before = snapshot.get(range(300)).vectors.copy()
        if how == "copytree":
            shutil.copytree(path.parent, path.parent.parent / f"{path.parent.name}-copy")
        elif how == "read the lock file":
            Path(f"{path}-lock").read_bytes()
        elif how == "link":
            os.link(path, path.with_name("b.qvec"))
            os.unlink(path.with_name("b.qvec"))
        else:
            run_python("print(open(sys.argv[1] + '-lock', 'rb').read(1))", path)
        run_python("import qvec\nimport numpy as np\n" + WRITE_MUCH, path)
        assert snapshot.verify() == []
        assert np.array_equal(snapshot.get(range(300)).vectors, before)
        assert not np.array_equal(db.get(range(300)).vectors, before)


def test_a_copied_directory_is_a_collection_of_its_own(path: Path, tmp_path: Path) -> None:
    with qvec.open(path) as db:
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in (path, Path(f"{path}-lock")):
            shutil.copy(name, copy)
        with qvec.open(copy / "a.qvec") as other:
            other.add(rows(3))
            assert (len(db), len(other)) == (2, 5)


def test_a_lock_file_with_the_number_of_another_file_is_not_used(path: Path) -> None:
    """What a process leaves that dies between replacing a file and removing its lock file."""
    with qvec.open(path) as db:
        for _ in range(20):
            db.add(rows(1))
    saved = Path(f"{path}-lock").read_bytes()
    path.unlink()
    fill(path, 3, 4)
    Path(f"{path}-lock").write_bytes(saved)
    with qvec.open(path) as db:
        assert len(db) == 12
        db.add(rows(1))
    with qvec.open(path, "r") as db:
        assert len(db) == 13


def test_an_opening_waits_until_a_new_child_has_closed_its_copies(tmp_path: Path) -> None:
    """Until then, the lock of this process on the byte of its id is still held."""
    make_store(tmp_path).close()
    copy = system.open_file(tmp_path / "a.qvec-lock", write=True)
    assert system.share(copy, os.getpid())
    threading.Timer(0.2, os.close, (copy,)).start()
    Store.open(tmp_path / "a.qvec").close()


def test_an_opening_names_a_child_that_does_not_close_its_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path).close()
    copy = system.open_file(tmp_path / "a.qvec-lock", write=True)
    assert system.share(copy, os.getpid())
    monkeypatch.setattr(environment, "PATIENCE", 0.05)
    with pytest.raises(LockedError, match=r"a\.qvec: a child of this process keeps its lock file locked"):
        Store.open(tmp_path / "a.qvec")
    os.close(copy)
    Store.open(tmp_path / "a.qvec").close()
