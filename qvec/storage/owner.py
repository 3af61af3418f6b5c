"""The owner of a write transaction: the task or thread that began it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

_blocks: ContextVar[tuple[object, ...]] = ContextVar("qvec_blocks", default=())


class _Thread:
    """A thread, as long as it runs. The system gives the number of a thread that has ended to another one."""

    __slots__ = ("__weakref__", "thread")

    def __init__(self) -> None:
        self.thread = threading.current_thread()


class _Local(threading.local):
    """``own``: lives as long as the thread does."""

    def __init__(self) -> None:
        self.own = _Thread()
        self.reference = weakref.ref(self.own)


_local = _Local()


class Owner(NamedTuple):
    """A thread and its running asyncio task, or None outside of an event loop."""

    thread: weakref.ref[_Thread]
    task: Any

    @property
    def is_running_here(self) -> bool:
        """Whether the calling thread is this owner's thread. The owner cannot continue while the caller waits."""
        return self.thread is _local.reference

    @property
    def has_ended(self) -> bool:
        """Whether the thread has ended."""
        return self.thread() is None

    @contextlib.contextmanager
    def watched(self, on_end: Callable[[], object]) -> Iterator[None]:
        """Call ``on_end`` in this owner's thread if the task or the thread ends before the ``with`` block does.

        A block may outlive its owner: another object may hold the generator or the context manager that contains it.
        ``on_end`` must not call :func:`current`, because the thread's own data is gone by then.
        """
        process = os.getpid()

        def ended(_: object) -> None:
            if os.getpid() == process and not sys.is_finalizing():  # a fork ends the other threads of the child
                on_end()

        own, task = self.thread(), self.task
        watch = None if own is None else weakref.ref(own, ended)
        del own
        if task is not None:
            task.add_done_callback(ended)
        try:
            yield
        finally:
            if task is not None:
                task.remove_done_callback(ended)
            del watch

    def __str__(self) -> str:
        own = self.thread()
        thread = "thread that has ended" if own is None else f"thread {own.thread.name}"
        return thread if self.task is None else f"task {self.task.get_name()} of {thread}"


def current() -> Owner:
    """The owner that runs now."""
    task = None
    if (asyncio := sys.modules.get("asyncio")) is not None:
        with contextlib.suppress(RuntimeError):  # no event loop runs in this thread
            task = asyncio.current_task()
    return Owner(_local.reference, task)


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
