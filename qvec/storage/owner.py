"""The owner of a write transaction: the task or thread that began it."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

_blocks: ContextVar[tuple[object, ...]] = ContextVar("qvec_blocks", default=())


class Owner(NamedTuple):
    """A thread and its running asyncio task, or None outside of an event loop."""

    thread: int
    task: Any

    @property
    def is_running_here(self) -> bool:
        """Whether the calling thread is this owner's thread. The owner cannot continue while the caller waits."""
        return self.thread == threading.get_ident()

    @property
    def has_ended(self) -> bool:
        """Whether the thread has ended."""
        return not any(thread.ident == self.thread for thread in threading.enumerate())

    def __str__(self) -> str:
        thread = next(
            (thread.name for thread in threading.enumerate() if thread.ident == self.thread), "that has ended"
        )
        return f"thread {thread}" if self.task is None else f"task {self.task.get_name()} of thread {thread}"


def current() -> Owner:
    """Return the running task and thread."""
    task = None
    if (asyncio := sys.modules.get("asyncio")) is not None:
        with contextlib.suppress(RuntimeError):  # no event loop runs in this thread
            task = asyncio.current_task()
    return Owner(threading.get_ident(), task)


@contextlib.contextmanager
def inside(block: object) -> Iterator[None]:
    """Mark the running code and everything it calls as being inside ``block``, until the ``with`` block ends.

    Tasks of other frameworks than asyncio have their own contexts: they are inside only if the block started them.
    """
    _blocks.set((*_blocks.get(), block))
    try:
        yield
    finally:  # another context may end a generator
        _blocks.set(tuple(other for other in _blocks.get() if other is not block))


def blocks() -> tuple[object, ...]:
    """Return the blocks around the running code."""
    return _blocks.get()
