"""Threads that run calls for an event loop.

With `concurrent.futures` and `asyncio.wrap_future`, a call takes three steps of the loop, and a hundred calls that end
at once block the loop for milliseconds. Here a call takes one step, and only a few results are passed at a time, so
that the loop can check its timers and sockets in between.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

HANDED_OVER = 8  # results between two looks of the loop at its timers


class Call:
    """A call that waits for a thread, runs, or has ended. ``future``: its result; canceled if its task was.

    ``is_dropped``: it need not begin. ``ended``: a future for a canceled task that waits for the end of the call.
    """

    __slots__ = ("ended", "future", "handover", "has_begun", "has_ended", "is_dropped", "work")

    def __init__(self, work: Callable[[], Any], handover: _Handover) -> None:
        self.work, self.handover = work, handover
        self.future: asyncio.Future[Any] = handover.loop.create_future()
        self.ended: asyncio.Future[None] | None = None
        self.is_dropped = self.has_begun = self.has_ended = False

    async def end(self) -> None:
        """Wait until the call has ended, whatever its result."""
        if not self.has_ended:
            self.ended = self.handover.loop.create_future()
            await self.ended

    def deliver(self, result: Any, error: BaseException | None) -> None:
        """Set the result of an ended call. Called in the loop."""
        self.has_ended = True
        if not self.future.done():
            if error is None:
                self.future.set_result(result)
            else:  # a future cannot raise StopIteration
                self.future.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)


class _Handover:
    """Passes results from threads to one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._results: deque[tuple[Call, Any, BaseException | None]] = deque()
        self._lock = threading.Lock()
        self._is_scheduled = False

    def give(self, call: Call, result: Any, error: BaseException | None) -> None:
        """Pass a result to the loop. Called in a thread."""
        self._results.append((call, result, error))
        with self._lock:
            if self._is_scheduled:
                return
            self._is_scheduled = True
        try:
            self.loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop is closed, and nobody waits
            self._results.clear()

    def _deliver(self) -> None:
        for _ in range(min(HANDED_OVER, len(self._results))):
            call, result, error = self._results.popleft()
            call.deliver(result, error)
        with self._lock:
            self._is_scheduled = bool(self._results)
        if self._is_scheduled:
            self.loop.call_soon(self._deliver)


class LoopPool:
    """Threads, started by the first calls, which end after `close` or when nothing refers to the pool any more."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads, self._name, self._begun = threads, name, 0
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._handover: _Handover | None = None
        self._is_closed = False

    def submit(self, work: Callable[[], Any]) -> Call:
        """Run a call in a thread, for the running loop. Raises RuntimeError after `close`."""
        if self._is_closed:
            raise RuntimeError("the threads of this handle have ended: it was closed")
        loop = asyncio.get_running_loop()
        if self._handover is None or self._handover.loop is not loop:
            self._handover = _Handover(loop)
        call = Call(work, self._handover)
        self._calls.put(call)
        if self._begun < self._threads:
            self._begun += 1
            name = f"{self._name}_{self._begun}"
            threading.Thread(target=_serve, args=(self._calls,), name=name, daemon=True).start()
        return call

    def close(self) -> None:
        """End the threads after the waiting calls."""
        self._is_closed = True
        for _ in range(self._begun):
            self._calls.put(None)

    def __del__(self) -> None:
        if not self._is_closed:
            self.close()


def _serve(calls: SimpleQueue[Call | None]) -> None:
    """Make calls until the pool is closed."""
    while (call := calls.get()) is not None:
        if call.is_dropped:
            call.handover.give(call, None, None)
            continue
        call.has_begun, result, error = True, None, None
        try:
            result = call.work()
        except BaseException as caught:
            error = caught
        call.handover.give(call, result, error)
        del call, result, error  # not kept while the thread waits
