"""The queue of the writers of a file, in all threads and processes. One writes at a time, in order of request (ADR 19).

Each process keeps a queue of its waiting threads in memory. The thread at its head takes a ticket for the process: it
locks the byte of the lock file that follows the last locked ticket. The thread may write when no byte before its ticket
is locked. If a process dies, the system unlocks its bytes. The writer also locks a byte whose position encodes its
activity, its process id and the time when it began.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from qvec.common import system
from qvec.common.errors import InputError, LockedError
from qvec.storage import owner
from qvec.storage.file_pair import FilePair

# Positions of locked bytes in the lock file. LMDB locks bytes below 2^32, and a FilePair locks the byte
# 2^40 + (inode mod 2^40), which is below 2^41.
_JOBS = 1 << 41  # one byte for each kind of job
_TICKET_MUTEX = 1 << 42  # a process locks it while it takes a ticket
_JOB_RECORDS, _TICKETS, _WRITER_RECORD, _END = 1 << 59, 1 << 60, 1 << 61, 1 << 62

ACTIVITIES = (
    "writes", "is in a transaction", "has the file open exclusively", "compacts", "erases", "optimizes", "requantizes",
    "tunes", "repairs", "opens the file", "removes the file", "re-embeds", "builds the index",
)  # fmt: skip
_EPOCH = 1_767_225_600  # 2026-01-01; times are stored in quarters of a second
_TIME_BITS, _PID_BITS = 33, 22
_MIN_PAUSE, _MAX_PAUSE = 50e-6, 2e-3  # seconds between two checks of the preceding ticket
_FAR_PAUSE = 16e-3  # at most, between two checks of several earlier tickets


@dataclass(eq=False)
class _Writer:
    """A task or thread that writes or waits, or, if ``owner`` is None, a handle that excludes all other writers."""

    handle: object
    owner: owner.Owner | None
    activity: str
    since: float = field(default_factory=time.time)
    gate: threading.Lock = field(default_factory=threading.Lock)


class WriteQueue:
    """A queue of writers. Without a ``pair``, it is a queue of the threads of one exclusive handle only.

    A handle is the object that opened the file.
    """

    def __init__(self, path: str, pair: FilePair | None = None) -> None:
        self._path, self._pair = path, pair
        self._lock = threading.Lock()
        self._released = threading.Condition(self._lock)
        self._waiting: deque[_Writer] = deque()
        self._writer: _Writer | None = None
        self._jobs: dict[str, owner.Owner] = {}

    def acquire(self, handle: object, activity: str, timeout: float, *, whole_handle: bool = False) -> None:
        """Wait until all earlier requests have been served, then become the writer.

        ``whole_handle``: the lock belongs to the handle, and any of its threads may release it.

        Raises LockedError after ``timeout`` seconds. Raises LockedError immediately if the thread would wait for
        itself: the writer is another task of this thread, or this thread with another handle. Raises InputError if the
        calling task or thread is already the writer.
        """
        deadline = time.monotonic() + timeout
        me = _Writer(handle, None if whole_handle else owner.current(), activity)
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
        """Whether the calling task or thread is the writer and uses ``handle``."""
        writer = self._writer
        return writer is not None and writer.handle is handle and writer.owner == owner.current()

    def wait_for(self, handle: object, timeout: float) -> bool:
        """Wait until nobody writes through ``handle``. Returns False if ``timeout`` seconds were not enough."""
        with self._lock:
            return self._released.wait_for(lambda: self._writer is None or self._writer.handle is not handle, timeout)

    def move_to(self, pair: FilePair, timeout: float) -> None:
        """Use the lock file of another pair after the writer has replaced the file. Only the writer may call this."""
        self._pair = pair
        assert self._writer is not None
        self._take_ticket(self._writer, time.monotonic() + timeout, timeout)

    @contextlib.contextmanager
    def job(self, activity: str) -> Iterator[None]:
        """Reserve a job of several transactions for the ``with`` block.

        A job inside the same job of the same task or thread needs no lock of its own. Raises LockedError if another
        process, thread or task is doing the same job.
        """
        me = owner.current()
        with self._lock:
            holder = self._jobs.setdefault(activity, me)
            is_taken = holder is not me
        if is_taken and holder == me:  # equal, but set by an outer call
            yield
            return
        if is_taken:
            raise LockedError(f"{self._path}: process {os.getpid()} (this process, {holder}) {activity} already")
        if not self._begin_job(activity):
            raise LockedError(f"{self._path}: {self._who(self._job_records(activity))} already")
        try:
            yield
        finally:
            self._end_job(activity)

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
            system.unlock(self._pair.lock_fd, _TICKETS, _END - _TICKETS)
        self._writer = self._waiting.popleft() if self._waiting else None
        if self._writer is not None:
            self._writer.gate.release()
        self._released.notify_all()

    def _describe_thread(self) -> str:
        writer = self._writer
        if writer is None:
            return "it is busy"
        who = "another handle" if writer.owner is None else str(writer.owner)
        return f"process {os.getpid()} (this process, {who}) {writer.activity}{_since(writer.since)}"

    # --- processes ---

    def _take_ticket(self, me: _Writer, deadline: float, timeout: float) -> None:
        if self._pair is None:
            return
        fd, pause = self._pair.lock_fd, _MIN_PAUSE
        while not system.exclude(fd, _TICKET_MUTEX):
            pause = self._sleep(pause, deadline, timeout)
        try:
            ticket = _TICKETS
            while (found := system.find(fd, ticket, _WRITER_RECORD)) is not None:
                ticket = found[0] + 1
            system.exclude(fd, ticket)
        finally:
            system.unlock(fd, _TICKET_MUTEX)
        pause = _MIN_PAUSE
        while ahead := _count_ahead(fd, ticket):
            if ahead > 1:
                self._sleep(min(_MAX_PAUSE * ahead / 2, _FAR_PAUSE), deadline, timeout)
            else:
                pause = self._sleep(pause, deadline, timeout)
        me.since = time.time()
        system.exclude(fd, _WRITER_RECORD + _record(me.activity))

    def _sleep(self, pause: float, deadline: float, timeout: float) -> float:
        left = deadline - time.monotonic()
        if left <= 0:
            raise self._timed_out(timeout, self._who((_WRITER_RECORD, _END)))
        time.sleep(min(pause, left))
        return min(2 * pause, _MAX_PAUSE)

    def _who(self, records: tuple[int, int]) -> str:
        """Describe the process that has locked a byte in the range ``records``: its id, its activity and its start."""
        assert self._pair is not None
        found = system.find(self._pair.lock_fd, *records)
        if found is None:
            return "another process writes"
        record = (found[0] - records[0]) % (1 << (_TIME_BITS + _PID_BITS + 4))
        quarters, pid = record % (1 << _TIME_BITS), (record >> _TIME_BITS) % (1 << _PID_BITS)
        if records[0] == _WRITER_RECORD:
            activity = ACTIVITIES[(record >> (_TIME_BITS + _PID_BITS)) % len(ACTIVITIES)]
        else:
            activity = ACTIVITIES[(found[0] - _JOB_RECORDS) >> (_TIME_BITS + _PID_BITS)]
        return f"process {pid} {activity}{_since(_EPOCH + quarters / 4)}"

    def _timed_out(self, timeout: float, who: str) -> LockedError:
        return LockedError(f"{self._path}: {who}; this call waited {timeout:g} s to write")

    # --- jobs ---

    def _begin_job(self, activity: str) -> bool:
        if self._pair is None:
            return True
        number = ACTIVITIES.index(activity)
        if not system.exclude(self._pair.lock_fd, _JOBS + number):
            with self._lock:
                self._jobs.pop(activity, None)
            return False
        system.exclude(self._pair.lock_fd, _JOB_RECORDS + _record(activity))
        return True

    def _end_job(self, activity: str) -> None:
        with self._lock:
            self._jobs.pop(activity, None)
        if self._pair is not None:
            start, stop = self._job_records(activity)
            system.unlock(self._pair.lock_fd, start, stop - start)
            system.unlock(self._pair.lock_fd, _JOBS + ACTIVITIES.index(activity))

    def _job_records(self, activity: str) -> tuple[int, int]:
        size = 1 << (_TIME_BITS + _PID_BITS)
        start = _JOB_RECORDS + ACTIVITIES.index(activity) * size
        return start, start + size


def _count_ahead(fd: int, ticket: int) -> int:
    """Return 0 if no earlier ticket is locked, else the distance to the first one, rounded up to a power of two."""
    ahead = 0
    while system.find(fd, _TICKETS, ticket - ahead) is not None:
        ahead = max(1, 2 * ahead)
    return ahead


def _record(activity: str) -> int:
    """Encode an activity, this process and the time as the position of a byte, relative to the first such byte."""
    quarters = int(4 * (time.time() - _EPOCH)) % (1 << _TIME_BITS)
    return (ACTIVITIES.index(activity) << _PID_BITS | os.getpid() % (1 << _PID_BITS)) << _TIME_BITS | quarters


def _since(moment: float) -> str:
    return f" since {time.strftime('%H:%M:%S', time.localtime(moment))} ({max(0.0, time.time() - moment):.1f} s)"
