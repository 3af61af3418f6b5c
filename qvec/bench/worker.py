"""The process of a contestant: builds its index, then runs the searches that its parent requests.

Requests and answers are JSON objects, one per line, on standard input and output. Output of the library is redirected
to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from qvec._kernels import simd_level
from qvec.bench.adapters.base import Adapter
from qvec.bench.contestants import adapter_class
from qvec.bench.memory import Memory, memory, peak, release, reset_peak
from qvec.bench.timing import ids_of, time_batch, time_singles


class Worker:
    """Answers requests about one index; each method is a request."""

    def __init__(self) -> None:
        self.adapter: Adapter
        self.before: Memory | None = None

    def build(
        self, adapter: str, options: dict[str, Any], metric: Any, folder: str, base: str, queries: str, threads: int
    ) -> dict[str, Any]:
        """Build and save the index. Return the seconds of the build, and by how much memory has grown."""
        self.queries = np.load(queries)
        rows: Any = np.load(base, mmap_mode="c")  # pyvsag crashes on read-only arrays
        self.adapter = adapter_class(adapter)(metric, rows.shape[1], Path(folder), options)
        self.adapter.imported()
        shape = (-1, rows.shape[1]) if self.adapter.query_rank == 1 else (-1, 1, rows.shape[1])
        self.singles = list(self.queries.reshape(shape))
        release()
        self.before = memory()
        reset_peak()
        start = time.perf_counter()
        self.adapter.build(rows, threads)
        seconds = time.perf_counter() - start
        most = peak()
        size = self.adapter.finish()
        del rows
        release()
        return {
            "build_s": seconds,
            "peak_bytes": None if most is None or self.before is None else most - self.before.rss,
            "anonymous_before": None if self.before is None else self.before.anonymous,
            "file_bytes": size,
            "queries": len(self.queries),
            "parts": self.adapter.parts(),
            "simd": simd_level(),
        }

    def points(self, k: int, sweep: dict[str, list[Any]]) -> dict[str, Any]:
        """Return the points of the sweep."""
        return {"points": self.adapter.points(k, sweep)}

    def search(
        self, point: dict[str, Any], k: int, threads: int, budget: float, cpus: list[int], ids: bool
    ) -> dict[str, Any]:
        """Time single queries and a batch; return the ids found if ``ids``."""
        calls = self.adapter.calls(k, point, threads)
        pin(cpus[:1])
        figures, found = time_singles(calls, self.singles, budget)
        answer: dict[str, Any] = {"single": figures}
        per_query = figures["seconds"] / figures["queries"]
        if calls.many is not None and per_query * len(self.queries) < 4 * budget:
            pin(cpus[:threads])
            answer["batch_s"], together = time_batch(calls.many, self.queries)
        if ids:
            answer["ids"] = ids_of(calls, found, k).tolist()
            if "batch_s" in answer:
                answer["batch_ids"] = ids_of(calls, [together], k).tolist()
        return answer

    def memory(self) -> dict[str, Any]:
        """Return by how much memory has grown since before the build."""
        release()
        now = memory()
        return {"memory": None if now is None or self.before is None else asdict(now - self.before)}


def pin(cpus: Sequence[int]) -> None:
    """Restrict all threads of this process to these processors, if the system can."""
    if not cpus or not hasattr(os, "sched_setaffinity"):
        return
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), cpus)
        except OSError:  # the thread has ended
            continue


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until the input ends; exceptions are answers too."""
    worker = Worker()
    for line in requests:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("op"))(**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
