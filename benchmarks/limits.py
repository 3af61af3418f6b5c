"""Limits of memory for a process, its reads and faults, and a disk with a small readahead. Linux only."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


@dataclass
class Group:
    """A memory cgroup that a process can join. ``folder`` None: the machine allows none, and nothing is limited."""

    folder: Path | None

    def join(self) -> None:
        if self.folder is not None:
            (self.folder / "cgroup.procs").write_text(str(os.getpid()))


@contextlib.contextmanager
def group(limit: int) -> Iterator[Group]:
    """Make a cgroup with a hard limit in bytes for the ``with`` block: version 1 or 2, whichever has the controller."""
    folder = _made(limit)
    try:
        yield Group(folder)
    finally:
        if folder is not None:
            folder.rmdir()


def _made(limit: int) -> Path | None:
    name = f"qvec-{os.getpid()}"
    for root, file in ((CGROUPS / "memory", "memory.limit_in_bytes"), (CGROUPS, "memory.max")):
        try:
            (root / name).mkdir()
        except OSError:
            continue
        try:
            (root / name / file).write_text(str(limit))
        except OSError:
            (root / name).rmdir()
            continue
        return root / name
    return None


@dataclass
class Counters:
    """What this process has used: seconds of wall and CPU time and of waiting for a core; faults; bytes read."""

    wall: float
    cpu: float
    waited: float
    major: int
    minor: int
    read: int

    @classmethod
    def now(cls) -> Counters:
        used = resource.getrusage(resource.RUSAGE_SELF)
        lines = Path("/proc/self/io").read_text().splitlines()
        read = dict(line.split(": ") for line in lines)["read_bytes"]
        waited = int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
        return cls(time.perf_counter(), time.process_time(), waited, used.ru_majflt, used.ru_minflt, int(read))

    def since(self) -> Counters:
        now = Counters.now()
        return Counters(*(getattr(now, name) - getattr(self, name) for name in self.__dataclass_fields__))


def drop(path: Path) -> None:
    """Remove the pages of one file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def private_bytes() -> int:
    """Memory of this process without the pages of files."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def written_bytes() -> int:
    """Bytes that this process has given to the system to write. ``write_bytes``, next to it, counts whole folios of the
    page cache: on Linux 6.18, twice what a disk receives."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


@contextlib.contextmanager
def peak_private() -> Iterator[list[int]]:
    """A list whose only element is the largest private memory of this process during the ``with`` block, in bytes."""
    peak, ended = [private_bytes()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], private_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def sequential_rate(path: Path) -> float:
    """Bytes per second of reading a file that is not in memory from its beginning to its end."""
    drop(path)
    buffer, began = bytearray(1 << 20), Counters.now()
    with path.open("rb", buffering=0) as file:
        total = 0
        while read := file.readinto(buffer):
            total += read
    used = began.since()
    drop(path)
    return total / (used.wall - used.waited)


@contextlib.contextmanager
def disk(folder: Path, size: int) -> Iterator[tuple[Path, str]]:
    """A folder on a disk with the usual readahead of 128 KiB for the ``with`` block, and a description of it.

    root gets a file system in a loop device with direct I/O. For others it is the folder itself.
    """
    if os.geteuid() or not all(map(shutil.which, ("losetup", "mkfs.ext4", "mount"))):
        yield folder, "the disk of the folder, with its own readahead"
        return
    image, point = folder / "limited.img", folder / "limited"
    point.mkdir(exist_ok=True)
    with image.open("wb") as file:
        file.truncate(size)
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", str(image))
    device = _run("losetup", "--direct-io=on", "--find", "--show", str(image))
    try:
        _run("blockdev", "--setra", "256", device)  # sectors of 512 bytes
        _run("mount", device, str(point))
        try:
            yield point, "a loop device with direct I/O and 128 KiB of readahead"
        finally:
            _run("umount", str(point))
    finally:
        _run("losetup", "--detach", device)
        image.unlink()
        point.rmdir()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
