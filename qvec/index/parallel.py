"""Tasks that several threads share until nothing is left to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


def run_on_threads(task: Callable[[], None], threads: int, pool: ThreadPoolExecutor) -> None:
    """Run the task on `threads` threads, the caller's among them."""
    others = [pool.submit(task) for _ in range(threads - 1)]
    try:
        task()
    finally:
        for other in others:
            other.result()
