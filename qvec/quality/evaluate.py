"""Evaluation of codes on the user's vectors and queries: recall, causes of its loss, bytes, and latency."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qvec._kernels import SearchParams
from qvec.codes.configs import CodeConfig
from qvec.codes.registry import Quantizer, every_code, make_config
from qvec.common.errors import InputError
from qvec.common.types import Codes, Float32Array, Int64Array
from qvec.index import Progress, load_index
from qvec.quality.recall import (
    Z95,
    CodeNames,
    Problem,
    Recalls,
    make_problem,
    recalls_by_code,
    recalls_of,
    wilson,
)
from qvec.quality.report import Report, Row, label_of
from qvec.rows.lookup import live_rows
from qvec.rows.originals import originals_of
from qvec.schema.config import Config
from qvec.schema.layout import CODES, NODES, VECTORS, active_columns, column_in_memory, wide_column
from qvec.schema.quantizers import QuantizerLoader, Quantizers, train_code
from qvec.schema.validation import check_count
from qvec.search.engine import Engine
from qvec.storage.store import Snapshot

EF = 64
TIMED_SEARCHES = 100


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a snapshot. ``queries``: None: stored rows serve as queries. ``rows``: vectors at most.

    ``z``: standard errors on either side of an interval. ``trained``: quantizers that were trained before.
    """

    snap: Snapshot
    quantizers: QuantizerLoader
    queries: Float32Array | None
    k: int
    oversamples: Sequence[int]
    rows: int
    seed: int
    progress: Progress | None = None
    z: float = Z95
    trained: dict[CodeConfig, Quantizer] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.queries is not None and not len(self.queries):
            raise InputError("queries must hold one query or more")
        check_count("k", self.k, 1, 10_000)
        check_count("rows", self.rows, self.k + 1, 2**31)

    @property
    def config(self) -> Config:
        """The configuration of the collection."""
        return self.quantizers.config

    @property
    def n_queries(self) -> int:
        """Number of queries to draw from."""
        return min(self.rows, int(self.snap.state.live)) if self.queries is None else len(self.queries)

    def run(self, codes: CodeNames, n: int) -> Report:
        """Measure each code with ``n`` queries at most. A larger ``n`` adds queries to those of a smaller.

        Raises InputError if there are too few vectors, or no originals to compare with.
        """
        wanted = self.wanted(codes)
        factors = _checked_factors(self.oversamples)
        numbers, problem, whole = self._problem(n)
        found: list[Row] = []
        skipped: dict[str, str] = {}
        for i, config in enumerate(wanted):
            try:
                found += self._rows(config, problem, factors, whole)
            except InputError as error:  # too few vectors for this code
                skipped[label_of(config)] = str(error)
            if self.progress is not None:
                self.progress(i + 1, len(wanted))
        index = self.snap.state.index.kind if whole else "none (a sample was scanned)"
        n_queries = len(problem.queries)
        return Report(self.k, len(numbers), n_queries, self.queries is None, index, found, skipped)

    def wanted(self, codes: CodeNames) -> list[CodeConfig]:
        """The configurations of codes."""
        if isinstance(codes, str) and codes == "all":
            return every_code(0 if self.config.originals == "none" else self.config.dim)
        return [make_config(code) for code in codes]

    def sample(self, n: int) -> Problem:
        """The problem of n queries at most, whose base has no deleted rows."""
        problem = self._problem(n)[1]
        if not len(problem.hidden):
            return problem
        own = problem.own - np.searchsorted(problem.hidden, problem.own)
        base = np.delete(problem.base, problem.hidden, axis=0)
        none = np.zeros(0, np.int64)
        return replace(problem, base=base, own=np.where(problem.own < 0, -1, own), hidden=none)

    def _problem(self, n: int) -> tuple[Int64Array, Problem, bool]:
        """The live rows that are measured, the problem, and whether all live rows are measured.

        If they are, the base has deleted rows too, hidden: its row numbers are then those of the graph.
        """
        rng = np.random.default_rng(self.seed)
        live = live_rows(self.snap)
        if len(live) < self.k + 1:
            raise InputError(f"an evaluation at k={self.k} needs {self.k + 1} vectors or more, there are {len(live)}")
        whole = len(live) <= self.rows
        chosen = live if whole else np.sort(rng.choice(live, self.rows, replace=False))
        base_rows = np.arange(self.snap.state.n) if whole else chosen
        base = originals_of(self.snap, self.quantizers).read(base_rows)
        hidden = np.setdiff1d(base_rows, chosen) if whole else np.zeros(0, np.int64)
        if self.queries is None:
            own = rng.permutation(np.searchsorted(base_rows, chosen))[:n]
            queries = base[own]
        else:
            picked = rng.permutation(len(self.queries))[:n]
            queries, own = self.queries[picked], np.full(len(picked), -1)
        return chosen, make_problem(base, queries, own, hidden, self.k, self.config.metric), whole

    def _rows(self, config: CodeConfig, problem: Problem, factors: list[int], whole: bool) -> Iterator[Row]:
        quantizer = self._quantizer(config, problem)
        codes = quantizer.encode(problem.base)
        scanned = recalls_by_code(quantizer, codes, problem, [self.k * factor for factor in factors])
        engine = self._engine(quantizer, codes) if whole else None
        for factor in factors:
            by_code = scanned[self.k * factor]
            recalls: Recalls = by_code
            times: tuple[float | None, float | None] = None, None
            if engine is not None:
                search = Search(engine, problem, factor)
                times = search.latency()
                recalls = by_code if engine.index.kind == "flat" else search.recalls()
            interval = wilson(recalls, self.k, self.z)
            losses = 1.0 - float(by_code.mean()), None if engine is None else float(by_code.mean()) - interval.mean
            yield Row(label_of(config), config, quantizer.code_size, factor, *interval, *losses, *times)

    def _quantizer(self, config: CodeConfig, problem: Problem) -> Quantizer:
        if config not in self.trained:
            visible = np.delete(problem.base, problem.hidden, axis=0) if len(problem.hidden) else problem.base
            self.trained[config] = train_code(visible, config, self.config).quantizer
        return self.trained[config]

    def _engine(self, quantizer: Quantizer, codes: Codes) -> Engine:
        """The collection's index with other codes, which are in memory only."""
        state = self.snap.state
        column = column_in_memory(CODES, wide_column(CODES, quantizer.code_size), len(codes))
        column.write(0, codes)
        columns = active_columns(self.snap.columns, state.column_names)
        originals = originals_of(self.snap, self.quantizers)
        index = load_index(self.config.index, state)
        columns |= {CODES: column, VECTORS: originals.column}
        columns.pop(NODES, None)  # they match the active codes only
        return Engine(self.snap, Quantizers(quantizer, originals.quantizer), index, columns)


@dataclass(frozen=True)
class Search:
    """Searches of a problem's queries that re-rank ``factor`` candidates per hit; 1: no re-ranking."""

    engine: Engine
    problem: Problem
    factor: int

    def run(self, queries: Float32Array) -> Int64Array:
        """Return rows, int64 [nq, k], or k + 1 if queries are stored rows themselves."""
        k = self.problem.k + int((self.problem.own >= 0).any())
        candidates = 0 if self.factor == 1 else k * self.factor
        return self.engine.search(queries, SearchParams(k, ef=max(EF, k, candidates), candidates=candidates))[0]

    def recalls(self) -> Recalls:
        """Recall of each query."""
        return recalls_of(self.run(self.problem.queries), self.problem)

    def latency(self) -> tuple[float, float]:
        """Median and 99th percentile of a single search, in milliseconds."""
        spent = []
        for query in self.problem.queries[:TIMED_SEARCHES]:
            start = time.perf_counter()
            self.run(query)
            spent.append(time.perf_counter() - start)
        p50, p99 = np.percentile(spent, [50, 99]) * 1e3
        return float(p50), float(p99)


def _checked_factors(oversamples: Sequence[int]) -> list[int]:
    if not len(oversamples):
        raise InputError("oversamples must name one factor or more")
    return sorted({check_count("oversamples", factor, 1, 10_000) for factor in oversamples})
