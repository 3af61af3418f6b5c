"""The writers of a file: one at a time, in the order in which they asked, in all threads and processes (ADR 19).

Threads of a process wait for each other in a queue of the environment. The first of them takes a ticket: a locked byte
of the lock file, behind those of all tickets that are locked. Its turn has come when no byte before its own is locked.
The system unlocks the bytes of a process that dies. The position of one more locked byte says who writes since when.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from qvec.common.errors import InputError, LockedError
from qvec.storage import byte_locks, owner
from qvec.storage.file_pair import FilePair

# Bytes of the lock file; those below 2^41 are LMDB's and the file pair's.
_JOBS = 1 << 41  # one byte for each kind of job
_TICKET_MACHINE = 1 << 42  # locked while a ticket is taken
_JOB_RECORDS, _TICKETS, _WRITER_RECORD, _END = 1 << 59, 1 << 60, 1 << 61, 1 << 62

DOINGS = (
    "writes", "is in a transaction", "has the file open exclusively", "compacts", "erases", "optimizes", "requantizes",
    "tunes", "repairs", "opens the file", "removes the file",
)  # fmt: skip
_EPOCH = 1_767_225_600  # 2026-01-01; times are stored in quarters of a second
_TIME_BITS, _PID_BITS = 33, 22
_MIN_PAUSE, _MAX_PAUSE = 50e-6, 2e-3  # between two checks of the tickets before one's own


@dataclass(eq=False)
class _Writer:
    """A thread or task that writes or waits to, or a handle (``owner`` None) that excludes all others."""

    handle: object
    owner: owner.Owner | None
    doing: str
    since: float = field(default_factory=time.time)
    gate: threading.Lock = field(default_factory=threading.Lock)


class WriteQueue:
    """A queue of writers. Without a pair of files it is a queue of the threads of one handle."""

    def __init__(self, path: str, pair: FilePair | None = None) -> None:
        self._path, self._pair = path, pair
        self._lock = threading.Lock()
        self._released = threading.Condition(self._lock)
        self._waiting: deque[_Writer] = deque()
        self._writer: _Writer | None = None
        self._jobs: dict[str, owner.Owner] = {}

    def acquire(self, handle: object, doing: str, timeout: float, *, whole_handle: bool = False) -> None:
        """Wait until all who asked before have written. Raises LockedError after ``timeout`` seconds.

        Raises it at once if the writer is another task or handle of the calling thread, which would wait for itself,
        and InputError if the caller writes already. ``whole_handle``: any thread of the handle may release the lock.
        """
        deadline = time.monotonic() + timeout
        me = _Writer(handle, None if whole_handle else owner.current(), doing)
        try:
            self._wait_for_threads(me, timeout)
            self._take_ticket(me, deadline, timeout)
        except BaseException:
            self._leave(me)
            raise

    def release(self) -> None:
        """Let the next writer write."""
        with self._lock:
            self._pass_on()

    def is_held_by(self, handle: object) -> bool:
        """Whether the calling task or thread writes by a handle."""
        writer = self._writer
        return writer is not None and writer.handle is handle and writer.owner == owner.current()

    def wait_for(self, handle: object, timeout: float) -> bool:
        """Wait until a handle does not write; returns whether it does not."""
        with self._lock:
            return self._released.wait_for(lambda: self._writer is None or self._writer.handle is not handle, timeout)

    def move_to(self, pair: FilePair, timeout: float) -> None:
        """Go on with another pair of files, after the caller, who writes, has replaced the file."""
        self._pair = pair
        assert self._writer is not None
        self._take_ticket(self._writer, time.monotonic() + timeout, timeout)

    @contextlib.contextmanager
    def job(self, doing: str) -> Iterator[None]:
        """Do a job of many transactions. Raises LockedError if another process, thread or task does the same job."""
        me = owner.current()
        with self._lock:
            other = self._jobs.setdefault(doing, me)
            nested = other is not me
        if nested and other == me:
            yield
            return
        if nested:
            raise LockedError(f"{self._path}: process {os.getpid()} (this process, {other}) {doing} already")
        if not self._begin_job(doing):
            raise LockedError(f"{self._path}: {self._who(self._job_records(doing))} already")
        try:
            yield
        finally:
            self._end_job(doing)

    # --- threads ---

    def _wait_for_threads(self, me: _Writer, timeout: float) -> None:
        with self._lock:
            if self._writer is None:
                self._writer = me
                return
            self._refuse_to_wait_for_itself(me)
            me.gate.acquire()
            self._waiting.append(me)
        if not me.gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            raise self._timed_out(timeout, self._describe_thread())

    def _refuse_to_wait_for_itself(self, me: _Writer) -> None:
        writer = self._writer
        assert writer is not None
        if writer.owner is None or me.owner is None or not writer.owner.is_running_here:
            return
        if writer.handle is me.handle and writer.owner == me.owner:
            raise InputError("this thread has a write transaction open already")
        raise LockedError(f"{self._path}: {self._describe_thread()}, and the same thread would have to wait for itself")

    def _leave(self, me: _Writer) -> None:
        with self._lock:
            if self._writer is me:
                self._pass_on()
            elif me in self._waiting:
                self._waiting.remove(me)

    def _pass_on(self) -> None:
        if self._pair is not None and self._pair.lock_fd >= 0:
            byte_locks.unlock(self._pair.lock_fd, _TICKETS, _END - _TICKETS)
        self._writer = self._waiting.popleft() if self._waiting else None
        if self._writer is not None:
            self._writer.gate.release()
        self._released.notify_all()

    def _describe_thread(self) -> str:
        writer = self._writer
        if writer is None:
            return "it is busy"
        who = "another handle" if writer.owner is None else str(writer.owner)
        return f"process {os.getpid()} (this process, {who}) {writer.doing}{_since(writer.since)}"

    # --- processes ---

    def _take_ticket(self, me: _Writer, deadline: float, timeout: float) -> None:
        if self._pair is None:
            return
        fd, pause = self._pair.lock_fd, _MIN_PAUSE
        while not byte_locks.exclude(fd, _TICKET_MACHINE):
            pause = self._sleep(pause, deadline, timeout)
        try:
            ticket = _TICKETS
            while (found := byte_locks.find(fd, ticket, _WRITER_RECORD)) is not None:
                ticket = found[0] + 1
            byte_locks.exclude(fd, ticket)
        finally:
            byte_locks.unlock(fd, _TICKET_MACHINE)
        pause = _MIN_PAUSE
        while byte_locks.find(fd, _TICKETS, ticket) is not None:
            pause = self._sleep(pause, deadline, timeout)
        me.since = time.time()
        byte_locks.exclude(fd, _WRITER_RECORD + _record(me.doing))

    def _sleep(self, pause: float, deadline: float, timeout: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._timed_out(timeout, self._who((_WRITER_RECORD, _END)))
        time.sleep(min(pause, left))
        return min(2 * pause, _MAX_PAUSE)

    def _who(self, records: tuple[int, int]) -> str:
        """Who holds the lock of a record, what it does, and since when."""
        assert self._pair is not None
        found = byte_locks.find(self._pair.lock_fd, *records)
        if found is None:
            return "another process writes"
        record = (found[0] - records[0]) % (1 << (_TIME_BITS + _PID_BITS + 4))
        quarters, pid = record % (1 << _TIME_BITS), (record >> _TIME_BITS) % (1 << _PID_BITS)
        if records[0] == _WRITER_RECORD:
            doing = DOINGS[(record >> (_TIME_BITS + _PID_BITS)) % len(DOINGS)]
        else:
            doing = DOINGS[(found[0] - _JOB_RECORDS) >> (_TIME_BITS + _PID_BITS)]
        return f"process {pid} {doing}{_since(_EPOCH + quarters / 4)}"

    def _timed_out(self, timeout: float, who: str) -> LockedError:
        return LockedError(f"{self._path}: {who}; this call waited {timeout:g} s to write")

    # --- jobs ---

    def _begin_job(self, doing: str) -> bool:
        if self._pair is None:
            return True
        number = DOINGS.index(doing)
        if not byte_locks.exclude(self._pair.lock_fd, _JOBS + number):
            with self._lock:
                self._jobs.pop(doing, None)
            return False
        byte_locks.exclude(self._pair.lock_fd, _JOB_RECORDS + _record(doing))
        return True

    def _end_job(self, doing: str) -> None:
        with self._lock:
            self._jobs.pop(doing, None)
        if self._pair is not None:
            start, stop = self._job_records(doing)
            byte_locks.unlock(self._pair.lock_fd, start, stop - start)
            byte_locks.unlock(self._pair.lock_fd, _JOBS + DOINGS.index(doing))

    def _job_records(self, doing: str) -> tuple[int, int]:
        size = 1 << (_TIME_BITS + _PID_BITS)
        start = _JOB_RECORDS + DOINGS.index(doing) * size
        return start, start + size


def _record(doing: str) -> int:
    """What, who and since when, as the position of a byte."""
    quarters = int(4 * (time.time() - _EPOCH)) % (1 << _TIME_BITS)
    return (DOINGS.index(doing) << _PID_BITS | os.getpid() % (1 << _PID_BITS)) << _TIME_BITS | quarters


def _since(moment: float) -> str:
    return f" since {time.strftime('%H:%M:%S', time.localtime(moment))} ({max(0.0, time.time() - moment):.1f} s)"
