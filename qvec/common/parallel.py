"""Threads that share work. The kernels release the interpreter's lock, so that their calls run in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Part = TypeVar("Part")
Result = TypeVar("Result")


def thread_pool(threads: int) -> ThreadPoolExecutor:
    """A pool of threads, to be used as a context manager."""
    from concurrent.futures import ThreadPoolExecutor  # late: a tenth of the import's time

    return ThreadPoolExecutor(threads)


def run_on_threads(task: Callable[[], None], threads: int, pool: ThreadPoolExecutor) -> None:
    """Run the same task on ``threads`` threads, one of them the caller's; the task itself divides the work."""
    others = [pool.submit(task) for _ in range(threads - 1)]
    try:
        task()
    finally:
        for other in others:
            other.result()


def for_each(task: Callable[[Part], object], parts: Iterable[Part], threads: int) -> None:
    """Call the task for each part. A free thread takes the next part; after an error, no thread does."""
    waiting = iter(parts)

    def work() -> None:
        try:
            for part in waiting:
                task(part)
        finally:
            for _ in waiting:
                pass

    if threads < 2:
        work()
        return
    with thread_pool(threads - 1) as pool:
        run_on_threads(work, threads, pool)


def map_parts(task: Callable[[Part], Result], parts: Sequence[Part], threads: int) -> Iterator[Result]:
    """Yield the result of each part, in order. At most ``threads`` results are in memory at a time."""
    if threads < 2 or len(parts) < 2:
        yield from map(task, parts)
        return
    with thread_pool(threads) as pool:
        for i in range(0, len(parts), threads):
            yield from pool.map(task, parts[i : i + threads])
