"""The best combination of code, index, layout and effort, measured on a sample of the vectors.

First all combinations are measured with few queries: for each code the numbers of candidates with which a scan of its
codes reaches the target; for each index the least effort with which it still does, by bisection. The best of these are
measured again with all queries. The least effort is then one whose confidence interval lies above the target.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from qvec._kernels import SearchParams
from qvec.codes.configs import HNSW, IVF, CodeConfig, Flat, IndexConfig
from qvec.common.errors import InputError
from qvec.index import Progress
from qvec.quality.choose import Target
from qvec.quality.evaluate import Evaluation
from qvec.quality.recall import Problem, recalls_by_code, recalls_of, wilson
from qvec.quality.report import label_of
from qvec.quality.trial import EncodedRows, Trial, index_label, searched_bytes
from qvec.quality.tuning import widths
from qvec.search.engine import Engine

SCREENING_QUERIES = 200
SLACK = 1.4  # combinations within this factor of the best of the screening are measured again
FINALISTS = 6
DEPTHS_TRIED = 2  # numbers of candidates for each code: the least that suffices, and the next
TIMED_SEARCHES, TIMED_ROUNDS = 200, 3
HEADINGS = ("code", "index", "bytes", "ef", "nprobe", "candidates", "recall", "at least", "mean ms", "p99 ms")
EVERY_INDEX: tuple[IndexConfig, ...] = (Flat(), HNSW(), HNSW(layout="packed"), IVF())


class Parameters(NamedTuple):
    """``ef`` of a graph walk, ``nprobe`` of inverted lists; ``candidates`` to re-rank. 0: none."""

    ef: int
    nprobe: int
    candidates: int


@dataclass(frozen=True, slots=True)
class Combination:
    """A code with an index, and the least effort that reached the target.

    ``bytes``: of codes and index that searches read, for each vector. ``recall``: mean recall@k; ``low``: lower end of
    its 95 % interval. ``mean_ms``, ``p99_ms``: latency of single searches on one thread.
    """

    code: str
    index: str
    config: CodeConfig
    index_config: IndexConfig
    bytes: int
    effort: Parameters
    recall: float
    low: float
    mean_ms: float
    p99_ms: float

    def __str__(self) -> str:
        effort = ", ".join(f"{name}={value}" for name, value in self.effort._asdict().items() if value)
        return (
            f"{self.code} with index {self.index} ({effort or 'a scan'}): {self.bytes} bytes, recall {self.recall:.4f} "
            f"(at least {self.low:.4f}), {self.mean_ms:.3f} ms, p99 {self.p99_ms:.3f} ms"
        )


@dataclass(frozen=True)
class Limits:
    """``fewest_bytes``: the best combination is the smallest within the limits; otherwise the fastest."""

    target: Target
    fewest_bytes: bool

    def cost(self, one: Combination) -> tuple[float, float]:
        """What the best combination has least of."""
        return (one.bytes, one.mean_ms) if self.fewest_bytes else (one.mean_ms, one.bytes)

    def admits(self, one: Combination, slack: float = 1.0) -> bool:
        """Whether a combination is within the limits; ``slack``: factor on the limit of latency."""
        target = self.target
        small = target.max_bytes is None or one.bytes <= target.max_bytes
        return small and (target.max_p99_ms is None or one.p99_ms <= slack * target.max_p99_ms)


@dataclass(frozen=True)
class Search:
    """Measures combinations on one problem. ``notes`` gets the reasons why combinations were not measured."""

    trial: Trial
    problem: Problem
    limits: Limits
    notes: dict[str, str]

    def screen(self, codes: Sequence[CodeConfig], indexes: Sequence[IndexConfig], depths: Sequence[int],
               progress: Progress | None) -> list[Combination]:  # fmt: skip
        """The combinations that reach the target on few queries."""
        few = self._with_queries(SCREENING_QUERIES)
        found: list[Combination] = []
        for i, config in enumerate(codes):
            found += few.of_code(config, indexes, depths)
            if progress is not None:
                progress(i + 1, len(codes))
        return found

    def finals(self, screened: list[Combination]) -> list[Combination]:
        """The best of the screened combinations, measured with all queries: as many as needed to find one within the
        limits, and FINALISTS if there are as many that may be the best.

        Their searches are timed again alternately, so that a machine that becomes slower or faster does so for all.
        """
        likely = sorted((one for one in screened if self.limits.admits(one, SLACK)), key=self.limits.cost)
        found: list[Combination] = []
        engines: list[Engine] = []
        for i, one in enumerate(likely):
            slow = not self.limits.fewest_bytes and one.mean_ms > SLACK * likely[0].mean_ms
            if (slow or i >= FINALISTS) and any(map(self.limits.admits, found)):
                break
            try:
                coded = self.trial.code(one.config)
                engine = self.trial.engine(coded, self.trial.build(one.index_config))
            except InputError:  # the screening has noted it
                continue
            found += self.of_engine(engine, coded, one.index_config, [one.effort.candidates], certain=True)
            engines += [engine] * (len(found) - len(engines))
        times = self._latencies([(engine, one.effort) for engine, one in zip(engines, found, strict=True)])
        return [
            replace(one, mean_ms=mean, p99_ms=min(one.p99_ms, p99))
            for one, (mean, p99) in zip(found, times, strict=True)
        ]

    def of_code(
        self, config: CodeConfig, indexes: Sequence[IndexConfig], depths: Sequence[int]
    ) -> Iterator[Combination]:
        """Combinations of one code."""
        try:
            coded = self.trial.code(config)
        except InputError as error:
            self.notes[label_of(config)] = str(error)
            return
        if self.limits.target.max_bytes is not None and coded.quantizer.code_size > self.limits.target.max_bytes:
            self.notes[label_of(config)] = f"{coded.quantizer.code_size} bytes a code"
            return
        enough = self._sufficient(coded, depths)
        if not enough:
            self.notes[label_of(config)] = "a scan of the codes does not reach the target"
            return
        for index in indexes:
            try:
                engine = self.trial.engine(coded, self.trial.build(index))
            except InputError as error:
                self.notes[f"{label_of(config)} with index {index_label(index)}"] = str(error)
                continue
            yield from self.of_engine(engine, coded, index, enough, certain=False)

    def of_engine(
        self, engine: Engine, coded: EncodedRows, index: IndexConfig, depths: Sequence[int], *, certain: bool
    ) -> Iterator[Combination]:
        """The fastest of the efforts that reach the target with these numbers of candidates, if there is one."""
        size, best = searched_bytes(engine), None
        for depth in depths:
            effort = self._least_effort(engine, depth, certain)
            if effort is None:
                continue
            interval = wilson(self._recalls(engine, effort), self.problem.k)
            ((mean, p99),) = self._latencies([(engine, effort)])
            one = Combination(label_of(coded.config), index_label(index), coded.config, index, size, effort,
                              interval.mean, interval.low, mean, p99)  # fmt: skip
            if best is None or one.mean_ms < best.mean_ms:
                best = one
        if best is not None:
            yield best

    def _sufficient(self, coded: EncodedRows, depths: Sequence[int]) -> list[int]:
        """The least numbers of candidates with which a scan of the codes reaches the target."""
        k, n = self.problem.k, len(self.problem.base)
        wanted = sorted({min(k * depth, n) for depth in depths})
        codes = coded.codes.read_range(0, n)
        recalls = recalls_by_code(coded.quantizer, codes, self.problem, wanted)
        enough = [depth for depth in wanted if recalls[depth].mean() >= self.limits.target.recall]
        exact = coded.quantizer.kind == "f32"
        return [0] if exact and enough else [depth if depth > k else 0 for depth in enough[:DEPTHS_TRIED]]

    def _least_effort(self, engine: Engine, candidates: int, certain: bool) -> Parameters | None:
        """The least effort that reaches the target: with the whole interval if ``certain``."""
        steps = widths(engine, max(self.problem.k, candidates))

        def reaches(i: int) -> bool:
            interval = wilson(self._recalls(engine, Parameters(*steps[i], candidates)), self.problem.k)
            return (interval.low if certain else interval.mean) >= self.limits.target.recall

        low, high = 0, len(steps) - 1
        if not reaches(high):
            return None
        while low < high:
            middle = (low + high) // 2
            if reaches(middle):
                high = middle
            else:
                low = middle + 1
        return Parameters(*steps[low], candidates)

    def _find(self, engine: Engine, queries: Any, effort: Parameters) -> Any:
        k = self.problem.k + int((self.problem.own >= 0).any())
        ef = max(effort.ef, k, effort.candidates)
        return engine.search(queries, SearchParams(k, ef=ef, nprobe=effort.nprobe, candidates=effort.candidates))[0]

    def _recalls(self, engine: Engine, effort: Parameters) -> Any:
        return recalls_of(self._find(engine, self.problem.queries, effort), self.problem)

    def _latencies(self, searched: Sequence[tuple[Engine, Parameters]]) -> list[tuple[float, float]]:
        """Mean and 99th percentile of single searches in milliseconds: each query's best of some rounds, in which the
        engines alternate."""
        queries = self.problem.queries[:TIMED_SEARCHES]
        spent = np.empty((TIMED_ROUNDS, len(searched), len(queries)))
        for times in spent:
            for own, (engine, effort) in zip(times, searched, strict=True):
                for i, query in enumerate(queries):
                    start = time.perf_counter()
                    self._find(engine, query, effort)
                    own[i] = time.perf_counter() - start
        best = 1e3 * spent.min(axis=0)
        return [(float(own.mean()), float(np.percentile(own, 99))) for own in best]

    def _with_queries(self, n: int) -> Search:
        problem = self.problem
        few = replace(problem, queries=problem.queries[:n], own=problem.own[:n], truth=problem.truth[:n])
        return replace(self, problem=few)


Apply = Callable[[Combination, Progress | bool | None], Any]


@dataclass(frozen=True, repr=False)
class IndexChoice:
    """The result of :meth:`qvec.Collection.choose` over codes and indexes.

    ``best``: the best combination, or None; ``tried``: all that were measured with all queries, best first;
    ``screened``: those that reached the target on few queries; ``skipped``: reasons why others were not measured.
    """

    limits: Limits
    k: int
    n: int
    n_queries: int
    best: Combination | None
    tried: list[Combination]
    screened: list[Combination]
    skipped: dict[str, str]
    _apply: Apply

    @property
    def met(self) -> bool:
        """Whether a combination meets the target within the limits."""
        return self.best is not None

    def apply(self, progress: Progress | bool | None = None) -> Any:
        """Build the codes and the index of the best combination next to the active ones, and activate them.

        Recall curves are then measured, so that ``search(recall=)`` takes the effort. Raises InputError, and changes
        nothing, if no combination meets the target.
        """
        if self.best is None:
            raise InputError(str(self))
        return self._apply(self.best, progress)

    def to_dicts(self) -> list[dict[str, Any]]:
        """All combinations as plain data; ``queries``: how many they were measured with."""
        few = min(SCREENING_QUERIES, self.n_queries)
        rows = [(one, self.n_queries) for one in self.tried] + [(one, few) for one in self.screened]
        return [
            {"code": one.code, "index": one.index, "bytes": one.bytes, **one.effort._asdict(), "recall": one.recall,
             "low": one.low, "mean_ms": one.mean_ms, "p99_ms": one.p99_ms, "queries": n}
            for one, n in rows
        ]  # fmt: skip

    @property
    def title(self) -> str:
        """Description of the measurement on one line."""
        return f"recall@{self.k} of {self.n:,} vectors, {self.n_queries:,} queries"

    def cells(self) -> list[tuple[str, ...]]:
        """The cells of a table of the combinations that were measured with all queries, in the order of HEADINGS."""
        return [
            (one.code, one.index, str(one.bytes), *(str(value or "-") for value in one.effort), f"{one.recall:.4f}",
             f"{one.low:.4f}", f"{one.mean_ms:.3f}", f"{one.p99_ms:.3f}")
            for one in self.tried
        ]  # fmt: skip

    def __str__(self) -> str:
        goal = f"recall@{self.k} of {self.limits.target.recall:g}"
        aim = "smallest" if self.limits.fewest_bytes else "fastest"
        if self.best is not None:
            return (
                f"{self.best}: the {aim} that meets {goal}, of {len(self.screened)} combinations on {self.n:,} vectors"
            )
        return f"no combination of {len(self.screened)} meets {goal}{self.limits.target.within}"

    def __repr__(self) -> str:
        return f"<qvec.IndexChoice: {self}>"


def make_search(evaluation: Evaluation, n: int, limits: Limits, threads: int) -> Search:
    """Prepare the comparison of combinations on a sample of the vectors, with n queries at most."""
    problem = evaluation.sample(n)
    return Search(Trial(evaluation.config, problem.base, threads), problem, limits, {})


def choose_combination(
    search: Search,
    codes: Sequence[CodeConfig],
    indexes: Sequence[IndexConfig],
    depths: Sequence[int],
    apply: Apply,
    progress: Progress | None,
) -> IndexChoice:
    """Screen all combinations, measure the best again, and choose the best of those within the limits."""
    screened = search.screen(codes, indexes, depths, progress)
    tried = sorted(search.finals(screened), key=search.limits.cost)
    best = next((one for one in tried if search.limits.admits(one)), None)
    problem = search.problem
    return IndexChoice(search.limits, problem.k, len(problem.base), len(problem.queries), best, tried,
                       sorted(screened, key=search.limits.cost), search.notes, apply)  # fmt: skip
