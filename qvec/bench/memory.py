"""Memory of a process, from Linux's /proc."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """Resident bytes.

    ``file``: pages of mapped files; ``anonymous``: others; ``pss``: shared pages are divided among processes.
    """

    rss: int
    pss: int
    anonymous: int
    file: int

    def __sub__(self, other: Memory) -> Memory:
        return Memory(**{name: value - asdict(other)[name] for name, value in asdict(self).items()})


def memory(pid: int | str = "self") -> Memory | None:
    """Return the current memory of a process; None on systems without /proc."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    fields = {name: 1024 * int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines[1:])}
    rss, anonymous = fields["Rss"], fields["Anonymous"]
    return Memory(rss, fields["Pss"], anonymous, rss - anonymous)


def anonymous_now(pid: int) -> int:
    """Return resident bytes without pages of files; 0 if unknown. Cheaper than :func:`memory`."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * mmap.PAGESIZE


def reset_peak() -> None:
    """Reset the peak of this process to its current memory, if the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int | None:
    """Return the peak memory since :func:`reset_peak`, pages of files included."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return None


def release() -> None:
    """Return freed memory to the system, so that leftovers of a build do not count for the index."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
