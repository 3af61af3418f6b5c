"""qvec.common.system: each function does what it says, and nothing else in qvec calls the system for it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qvec
from qvec.common import system

PACKAGE = Path(qvec.__file__).parent
SYSTEM = PACKAGE / "common" / "system"
MODULES = {"fcntl", "msvcrt", "winreg"}
CALLS = re.compile(
    r"\bos\.(replace|rename|link|fsync|fdatasync|pread|pwrite|register_at_fork|statvfs|posix_fallocate|O_CLOEXEC)\b"
)
TOOLS = {"bench", "cli"}  # what they measure and print does not change a collection


def signatures(module: str) -> dict[str, str]:
    tree = ast.parse((SYSTEM / f"{module}.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    return {node.name: f"{ast.unparse(node.args)} -> {ast.unparse(node.returns)}" for node in functions if node.returns}


def test_every_system_has_every_function_with_the_same_signature() -> None:
    assert signatures("posix") == signatures("windows")
    assert sorted(signatures("posix")) == system.__all__


def test_nothing_else_calls_the_system_for_these() -> None:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        folder = path.relative_to(PACKAGE).parts[0]
        if path.parent == SYSTEM or folder in TOOLS:
            continue
        text = path.read_text()
        imported = {name for line in re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE) for name in [line]}
        if bad := sorted(imported & MODULES) + sorted({match[0] for match in CALLS.finditer(text)}):
            found[str(path.relative_to(PACKAGE))] = bad
    assert found == {}


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_the_package_is_typed_for_other_systems(platform: str, tmp_path: Path) -> None:
    mypy = shutil.which("mypy", path=str(Path(sys.executable).parent))
    if mypy is None:
        pytest.skip("mypy is not installed")
    command = [mypy, "--strict", "--platform", platform, "--cache-dir", str(tmp_path), str(SYSTEM)]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- locks ---


@pytest.fixture
def two(tmp_path: Path) -> tuple[int, int]:
    """Two descriptors of an empty file, which exclude each other."""
    path = tmp_path / "file"
    return system.open_file(path, write=True, create=True), system.open_file(path, write=True)


def test_locks_of_two_descriptors_exclude_each_other(two: tuple[int, int]) -> None:
    one, other = two
    assert system.exclude(one, 5)
    assert not system.exclude(other, 5)
    assert not system.share(other, 5)
    assert system.find(other, 0, 10) == (5, -1)
    assert system.find(one, 0, 10) is None
    assert system.share(one, 5)
    assert system.share(other, 5)
    assert not system.exclude(one, 5)
    assert system.find(other, 0, 10) == (5, -1)  # the lock that failed to change is there still
    system.unlock(other, 5)
    assert system.exclude(one, 5)
    os.close(one)
    assert system.exclude(other, 5)


def test_the_first_locked_byte_is_found_around_own_locks(two: tuple[int, int]) -> None:
    one, other = two
    for byte in (1 << 40, (1 << 41) + 7, 3):
        assert system.exclude(other, byte)
    assert system.exclude(one, 1)
    assert system.exclude(one, 1 << 39)
    assert system.find(one, 0, 1 << 62) == (3, -1)
    assert system.find(one, 4, 1 << 62) == (1 << 40, -1)
    assert system.find(one, (1 << 40) + 1, 1 << 62) == ((1 << 41) + 7, -1)
    assert system.find(one, (1 << 41) + 8, 1 << 62) is None
    system.unlock(other, 0, 1 << 62)
    assert system.find(one, 0, 1 << 62) is None
    assert system.find(one, 9, 9) is None


def test_the_lock_of_a_whole_file_is_apart_from_locks_of_bytes(two: tuple[int, int]) -> None:
    one, other = two
    assert system.lock_file(one)
    assert not system.lock_file(other)
    assert system.exclude(other, 0)
    system.unlock_file(one)
    assert system.lock_file(other)


# --- files ---


def test_a_file_is_replaced_and_processes_keep_the_one_that_they_have_open(tmp_path: Path) -> None:
    path, draft = tmp_path / "a", tmp_path / "a.new"
    path.write_bytes(b"old")
    draft.write_bytes(b"new")
    fd = system.open_file(path)
    system.replace(draft, path)
    system.flush_directory(str(tmp_path))
    assert path.read_bytes() == b"new"
    assert system.read_at(fd, 10, 1) == b"ld"
    os.close(fd)


def test_a_new_name_does_not_replace_a_file(tmp_path: Path) -> None:
    path, draft = tmp_path / "a", tmp_path / "a.new"
    draft.write_bytes(b"new")
    system.rename_new(str(draft), str(path))
    assert path.read_bytes() == b"new"
    draft.write_bytes(b"newer")
    with pytest.raises(FileExistsError):
        system.rename_new(str(draft), str(path))
    assert path.read_bytes() in (b"new", b"newer")  # one file with two names, or two files


def test_a_file_that_is_moved_aside_keeps_its_contents(tmp_path: Path) -> None:
    path, aside = tmp_path / "a", tmp_path / "a.previous"
    path.write_bytes(b"old")
    system.move_aside(str(path), str(aside))
    (tmp_path / "a.new").write_bytes(b"new")
    system.replace(tmp_path / "a.new", path)
    assert (path.read_bytes(), aside.read_bytes()) == (b"new", b"old")


def test_bytes_are_written_and_read_at_an_offset(tmp_path: Path) -> None:
    fd = system.open_file(tmp_path / "a", write=True, create=True)
    system.reserve_space(fd, 100_000)
    assert os.fstat(fd).st_size == 100_000
    assert system.write_at(fd, b"\n\r\x1a\0", 50) == 4
    assert system.read_at(fd, 4, 50) == b"\n\r\x1a\0"
    assert system.read_at(fd, 10, 99_998) == b"\0\0"
    system.flush_file(fd)
    assert os.path.samestat(os.stat(system.path_of(fd)), os.fstat(fd))
    assert not os.get_inheritable(fd)
    assert system.users_of(fd) == []
    os.close(fd)


def test_address_space_and_disks_have_limits(tmp_path: Path) -> None:
    assert system.has_address_space(1 << 30)
    assert not system.has_address_space(1 << 62)
    assert not system.has_address_space(1 << 70)
    assert 0 < system.free_bytes(str(tmp_path)) <= shutil.disk_usage(tmp_path).total
    assert system.file_size_limit() is None or system.file_size_limit() >= 0  # type: ignore[operator]
