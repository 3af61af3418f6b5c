"""What qvec/common/system/windows.py does, in a Python for Windows without other packages: prints "ok" if all is well.

windows.py MODULE FOLDER
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

OTHER_PROCESS = "other"


def loaded(module: str) -> Any:
    spec = importlib.util.spec_from_file_location("windows", module)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def check_locks(system: Any, path: Path) -> None:
    one, other = system.open_file(path, write=True, create=True), system.open_file(path, write=True)
    assert system.exclude(one, 5)
    assert not system.exclude(other, 5)
    assert not system.share(other, 5)
    assert system.find(other, 0, 10) == (5, -1)
    assert system.find(one, 0, 10) is None
    assert system.share(one, 5)
    assert system.share(other, 5)
    assert not system.exclude(one, 5)
    assert system.find(other, 0, 10) == (5, -1)  # the shared lock is there again
    system.unlock(other, 5)
    assert system.exclude(one, 5)
    os.close(one)
    assert system.exclude(other, 5)
    system.unlock(other, 5)
    os.close(other)


def check_finding(system: Any, path: Path) -> None:
    one, other = system.open_file(path, write=True), system.open_file(path, write=True)
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
    assert system.lock_file(one)
    assert not system.lock_file(other)
    assert system.keep_lmdb_locks(other)
    assert system.find(one, 0, 1) == (0, -1)
    os.close(one)
    os.close(other)


def check_processes(path: Path) -> None:
    """A lock keeps another process out, and ends when its process is killed."""
    command = [sys.executable, __file__, sys.argv[1], str(path), OTHER_PROCESS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "locked"
        system = loaded(sys.argv[1])
        fd = system.open_file(path, write=True)
        assert system.find(fd, 0, 1 << 62) == (77, -1)
        assert not system.exclude(fd, 77)
        process.kill()
    assert system.exclude(fd, 77)
    os.close(fd)


def check_files(system: Any, folder: Path) -> None:
    path, draft, aside = folder / "a", folder / "a.new", folder / "a.previous"
    path.write_bytes(b"old")
    draft.write_bytes(b"new")
    try:
        system.rename_new(str(draft), str(path))
    except FileExistsError:
        pass
    else:
        raise AssertionError("a file was replaced")
    fd = system.open_file(path)
    assert os.path.samefile(system.path_of(fd), path)
    system.move_aside(str(path), str(aside))
    system.replace(draft, path)
    system.flush_directory(str(folder))
    assert (path.read_bytes(), aside.read_bytes()) == (b"new", b"old")
    assert system.read_at(fd, 10, 1) == b"ld"
    os.close(fd)
    aside.write_bytes(b"newer")
    system.replace(aside, path)
    assert path.read_bytes() == b"newer"
    try:
        system.open_file(folder / "none")
    except FileNotFoundError:
        pass
    else:
        raise AssertionError("a file was created")


def check_bytes(system: Any, folder: Path) -> None:
    fd = system.open_file(folder / "b", write=True, create=True)
    system.reserve_space(fd, 100_000)
    assert os.fstat(fd).st_size == 100_000
    assert system.write_at(fd, b"\n\r\x1a\0", 50) == 4
    assert system.read_at(fd, 4, 50) == b"\n\r\x1a\0"
    assert system.read_at(fd, 10, 99_998) == b"\0\0"
    system.flush_file(fd)
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert system.has_address_space(1 << 30)
    assert not system.has_address_space(1 << 62)
    assert not system.has_address_space(1 << 70)
    assert system.free_bytes(str(folder)) > 0


def main(module: str, folder: str, *mode: str) -> None:
    system = loaded(module)
    if mode == (OTHER_PROCESS,):
        assert system.exclude(system.open_file(folder, write=True), 77)
        print("locked", flush=True)
        sys.stdin.read()
        return
    path = Path(folder) / "locks"
    check_locks(system, path)
    check_finding(system, path)
    check_processes(path)
    check_files(system, Path(folder))
    check_bytes(system, Path(folder))
    print("ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
