"""A navigable small-world graph in fixed-degree lists, built in batches that need no locks.

One level and a table of entry points stand in for the upper layers of HNSW (Malkov and Yashunin 2018): in more than a
few dozen dimensions the hierarchy brings nothing over good entries. The steps of a batch are in kernels/build.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qvec._kernels import Codec, Column, Finder, GraphFinder, Linker, reachable
from qvec.configs import HNSW
from qvec.index import packed
from qvec.index.base import Coded, IndexState, Progress, Rows
from qvec.index.parallel import run_on_threads
from qvec.layout import ADJACENCY, NODES, narrow_column
from qvec.storage.store import ColumnSpec
from qvec.types import Float32Array, NDArray

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

ALPHA = 1.1  # squared distances
BATCH_SHARE = 50  # a batch is at most n / 50 rows: they search the graph as it stood before
BATCH_ROWS = 1024  # and each row of a batch is scored against all others of it
ENTRIES = 64
SAMPLE = 4096
LLOYD_ROUNDS = 4


def choose_entries(codec: Codec, codes: Column, n: int) -> Rows:
    """Up to 64 rows to start walks from: row 0, the root of the tree, and medoids of a sample (Lloyd's k-means)."""
    if n <= ENTRIES:
        return np.arange(n, dtype=np.uint32)
    rows = np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64))
    x = codec.decode(codes.read(rows))
    nearest = rows[_medoids(x, ENTRIES - 1)]
    return np.unique(np.concatenate(([0], nearest))).astype(np.uint32)


def _medoids(x: Float32Array, k: int) -> NDArray[np.int64]:
    x = x - x.mean(axis=0)
    centres = x[np.linspace(0, len(x) - 1, k).astype(np.int64)]
    for _ in range(LLOYD_ROUNDS):
        owner = np.argmin(_distances(x, centres), axis=1)
        order = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[order], np.arange(k + 1))
        filled = np.flatnonzero(np.diff(bounds))
        sums = np.add.reduceat(x[order], bounds[filled], axis=0)
        centres[filled] = sums / np.diff(bounds)[filled, None]
    nearest: NDArray[np.int64] = np.argmin(_distances(x, centres), axis=0)
    return nearest


def _distances(x: Float32Array, centres: Float32Array) -> Float32Array:
    """Squared distances but for |x|^2, which shifts a row as a whole."""
    shifted: Float32Array = np.einsum("ij,ij->i", centres, centres) - 2 * (x @ centres.T)
    return shifted


@dataclass
class Build:
    """Links the rows [linker.n, stop) of a column into a graph."""

    coded: Coded
    adjacency: Column
    ef: int
    threads: int
    progress: Progress | None = None
    nodes: Column | None = None

    def run(self, entries: Rows, chosen_at: int, start: int, stop: int) -> tuple[Rows, int]:
        """Link rows [start, stop); the entries afterwards, and at how many rows they were last chosen."""
        if start == 0:
            entries, chosen_at = np.zeros(1, np.uint32), 1
        codec, codes = self.coded.codec, self.coded.codes
        linker = Linker(codec, codes, self.adjacency, start, entries, ALPHA)
        from concurrent.futures import ThreadPoolExecutor  # late: a tenth of the import's time

        with ThreadPoolExecutor(self.threads) as pool:
            while linker.n < stop:
                self._link_batch(linker, min(stop - linker.n, max(1, linker.n // BATCH_SHARE), BATCH_ROWS), pool)
                if linker.n >= 2 * chosen_at or (linker.n == stop and stop >= 1.2 * chosen_at):
                    entries, chosen_at = choose_entries(codec, codes, linker.n), linker.n
                    linker.set_entries(entries)
                if self.progress is not None:
                    self.progress(linker.n - start, stop - start)
            if self.nodes is not None:
                packed.pack(self.coded, self.adjacency, self.nodes, linker.changed, linker.n, self.threads, pool)
        return entries, chosen_at

    def _link_batch(self, linker: Linker, count: int, pool: ThreadPoolExecutor) -> None:
        threads = min(self.threads, (count + 3) // 4)
        linker.begin(count)
        run_on_threads(lambda: linker.link_out(self.ef), threads, pool)
        linker.group()
        run_on_threads(linker.link_in, threads, pool)
        linker.finish()


class HNSWIndex:
    """See :class:`qvec.index.base.Index`. State: rows linked, entry rows, and at how many rows those were chosen."""

    kind: ClassVar[str] = "hnsw"

    def __init__(self, config: HNSW) -> None:
        self.config = config

    def columns(self, codec: Codec) -> dict[str, ColumnSpec]:
        columns = {ADJACENCY: narrow_column(ADJACENCY, 8 * self.config.m)}
        if self.config.layout == "packed":
            columns[NODES] = packed.node_column(codec, 2 * self.config.m)
        return columns

    def extend(
        self,
        columns: Mapping[str, Column],
        coded: Coded,
        state: IndexState,
        stop: int,
        threads: int,
        progress: Progress | None,
    ) -> IndexState:
        nodes = columns[NODES] if self.config.layout == "packed" else None
        build = Build(coded, columns[ADJACENCY], self.config.ef_construction, threads, progress, nodes)
        entries, chosen_at = build.run(_entries(state), state.get("chosen_at", 0), state.get("n", 0), stop)
        return {"n": stop, "entries": entries.astype("<u4").tobytes(), "chosen_at": chosen_at}

    def finder(self, columns: Mapping[str, Column], coded: Coded, state: IndexState, n: int) -> Finder:
        entries = _entries(state)
        if self.config.layout == "packed" and NODES in columns:
            return packed.finder(coded, columns[NODES], 2 * self.config.m, n, entries)
        return GraphFinder(coded.codec, coded.codes, columns[ADJACENCY], n, entries)

    def check(self, columns: Mapping[str, Column], coded: Coded, state: IndexState, n: int) -> list[str]:
        if state.get("n") != n:
            return [f"the graph holds {state.get('n')} rows of {n}"]
        reached = reachable(coded.codec, coded.codes, columns[ADJACENCY], n, _entries(state))
        bits = np.unpackbits(reached.view(np.uint8), bitorder="little")[:n]
        lost = np.flatnonzero(bits == 0)
        problems = [f"{len(lost)} rows cannot be reached in the graph, the first is row {lost[0]}"] if len(lost) else []
        if self.config.layout == "packed" and len(wrong := packed.wrong(coded, columns[ADJACENCY], columns[NODES], n)):
            problems.append(f"{len(wrong)} packed nodes differ from their lists and codes, the first is row {wrong[0]}")
        return problems


def _entries(state: IndexState) -> Rows:
    return np.frombuffer(state.get("entries", b""), "<u4").astype(np.uint32)
