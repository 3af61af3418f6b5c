"""Work that several threads share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Part = TypeVar("Part")
Done = TypeVar("Done")


def run_on_threads(task: Callable[[], None], threads: int, pool: ThreadPoolExecutor) -> None:
    """Run the task on `threads` threads, the caller's among them."""
    others = [pool.submit(task) for _ in range(threads - 1)]
    try:
        task()
    finally:
        for other in others:
            other.result()


def mapped(
    task: Callable[[Part], Done], parts: Sequence[Part], threads: int, pool: ThreadPoolExecutor
) -> Iterator[Done]:
    """What the task makes of each part, in order: no more at a time than there are threads, so that few are held."""
    for i in range(0, len(parts), threads):
        yield from pool.map(task, parts[i : i + threads])
