"""Who runs: the task or thread that a write transaction belongs to."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

_blocks: ContextVar[tuple[object, ...]] = ContextVar("qvec_blocks", default=())


class Owner(NamedTuple):
    """A thread, and the asyncio task that it runs, or None."""

    thread: int
    task: Any

    @property
    def is_running_here(self) -> bool:
        """Whether the calling thread is this owner's thread, which cannot go on while the caller waits."""
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
    """The owner that runs now."""
    task = None
    if (asyncio := sys.modules.get("asyncio")) is not None:
        with contextlib.suppress(RuntimeError):  # no event loop runs in this thread
            task = asyncio.current_task()
    return Owner(threading.get_ident(), task)


@contextlib.contextmanager
def inside(block: object) -> Iterator[None]:
    """Mark the running code, and what it calls, as being inside a block, until the ``with`` block ends.

    Tasks of other frameworks than asyncio have contexts of their own: they are inside only if the block started them.
    """
    _blocks.set((*_blocks.get(), block))
    try:
        yield
    finally:  # the context may be another one: a generator can be ended by anybody
        _blocks.set(tuple(other for other in _blocks.get() if other is not block))


def blocks() -> tuple[object, ...]:
    """The blocks that the running code is inside of."""
    return _blocks.get()
