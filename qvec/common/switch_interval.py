"""Shorten the interpreter's switch interval, so that long work in Python does not delay other threads."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

from qvec.common.system import after_fork

SHORT_INTERVAL = 1e-4  # seconds; Python's default is 5e-3, the time of fifty searches

_lock = threading.Lock()
_users, _before = 0, 0.0


@contextlib.contextmanager
def short_switch_interval() -> Iterator[None]:
    """While the block runs, a thread waits at most SHORT_INTERVAL for another one that computes in Python."""
    global _users, _before
    with _lock:
        if not _users:
            _before = sys.getswitchinterval()
            sys.setswitchinterval(min(_before, SHORT_INTERVAL))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                sys.setswitchinterval(_before)


def _after_fork() -> None:
    """The child gets a new lock: the thread that held the old one does not exist there."""
    global _lock
    _lock = threading.Lock()


after_fork(_after_fork)
