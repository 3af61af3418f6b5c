"""Turns of the interpreter: long work in Python leaves it to other threads sooner."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

TURN = 1e-4  # seconds; Python's own are 5e-3, fifty searches long

_lock = threading.Lock()
_users, _before = 0, 0.0


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    """While a block runs, no thread of this process waits longer than TURN for one that computes in Python."""
    global _users, _before
    with _lock:
        if not _users:
            _before = sys.getswitchinterval()
            sys.setswitchinterval(min(_before, TURN))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                sys.setswitchinterval(_before)


def _after_fork() -> None:
    """In the child: the thread that held the lock is not there to free it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
