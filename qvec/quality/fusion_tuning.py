"""Relevance of searches by each input and by their fusion, and the choice of the fusion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import IdKind, Ids, Int64Array, check_choice
from qvec.quality.relevance import MEASURES, Float64Array, Grades, Places, figures, intervals
from qvec.quality.relevance_report import FUSED, RelevanceReport, RelevanceRow, shown
from qvec.schema.fusion import Measure, TunedFusion, tuned_for
from qvec.schema.validation import MAX_K, check_count
from qvec.search.fusion import DEFAULT_DEPTH, INPUTS, SPARSE, TEXT, VECTOR, Fusion, Listed, check_fusion, fuse
from qvec.search.results import BatchHits
from qvec.storage.store import Transaction

MIN_QUERIES = 20  # ten to choose with, ten to prove
STEPS = {2: 20, 3: 10}  # of the weights that are tried, by number of inputs
_PER_SEARCH = 256  # queries of one search


Search = Callable[..., Any]
"""The ``search`` of a snapshot of the collection."""


@dataclass(frozen=True)
class Questions:
    """Queries with their relevant ids. ``inputs``: for each input, one value a query. ``options``: of the text."""

    inputs: Mapping[str, Any]
    relevant: Any
    k: int
    depth: int
    seed: int
    options: Mapping[str, Any]

    @classmethod
    def checked(
        cls, query: Any, texts: Any, sparse: Any, relevant: Any, k: Any, depth: Any, seed: Any, text_weights: Any
    ) -> Questions:
        """Check the arguments of a call. Raises InputError."""
        if relevant is None:
            raise InputError("texts and sparse are measured against relevant ids; give relevant=")
        given = {VECTOR: query, TEXT: texts, SPARSE: sparse}
        inputs = {name: given[name] for name in INPUTS if given[name] is not None}
        if not inputs:
            raise InputError("give queries, texts or sparse")
        if isinstance(relevant, str | Mapping) or not isinstance(relevant, Sequence | np.ndarray):
            raise InputError("relevant must be a list with the relevant ids of each query")
        for name, values in inputs.items():
            if (n := values.shape[0] if hasattr(values, "shape") else len(values)) != len(relevant):
                raise InputError(f"there are {len(relevant)} lists of relevant ids, and {n} queries of {name}")
        if not len(relevant):
            raise InputError("there must be one query or more")
        if text_weights is not None and TEXT not in inputs:
            raise InputError("text_weights are weights of text fields; give texts=")
        length = DEFAULT_DEPTH if depth is None else check_count("fusion_depth", depth, 1, MAX_K)
        options = {} if text_weights is None else {"text_weights": text_weights}
        hits = check_count("k", k, 1, MAX_K)
        return cls(inputs, relevant, hits, max(length, hits), check_count("seed", seed, 0, 2**63), options)


@dataclass(frozen=True)
class Answers:
    """The lists of each input for the queries, and the rows that are relevant."""

    lists: Mapping[str, list[Listed]]
    relevant: list[Grades]
    k: int
    seed: int

    @classmethod
    def of(cls, search: Search, ids: Ids, kind: IdKind, questions: Questions) -> Answers:
        """Search for every query by each input. ``ids``: of all rows, in row order."""
        places = Places(ids, kind)
        relevant = [places.grades(ids, i) for i, ids in enumerate(questions.relevant)]
        lists = {name: list(_lists(search, places, name, questions)) for name in questions.inputs}
        return cls(lists, relevant, questions.k, questions.seed)

    def part(self, chosen: Int64Array) -> Answers:
        """Some of the queries."""
        lists = {name: [every[i] for i in chosen.tolist()] for name, every in self.lists.items()}
        return replace(self, lists=lists, relevant=[self.relevant[i] for i in chosen.tolist()])

    def measure(self, search: str | Fusion) -> Float64Array:
        """The measures, float64 [n, 4], of one input, or of a fusion of all."""
        if isinstance(search, str) and search in self.lists:
            ranked = [rows for rows, _ in self.lists[search]]
        else:
            queries = range(len(self.relevant))
            ranked = [fuse({name: every[i] for name, every in self.lists.items()}, search, self.k)[0] for i in queries]
        return figures(ranked, self.relevant, self.k)

    def report(self, fusion: Fusion | None) -> RelevanceReport:
        """The measures of each input, and of their fusion if there are several."""
        single = {name: self.measure(name) for name in self.lists}
        rows = [RelevanceRow(name, *intervals(values, self.seed)) for name, values in single.items()]
        if fusion is not None:
            fused = self.measure(fusion)
            gains = intervals(fused - _best_single([*single.values()]), self.seed)
            rows.append(RelevanceRow(FUSED, *intervals(fused, self.seed), *gains))
        return RelevanceReport(self.k, len(self.relevant), fusion, tuple(rows))


def _best_single(single: Sequence[Float64Array]) -> Float64Array:
    """Of each measure, the figures of the input with the best mean."""
    values = np.stack(single)
    best = values.mean(1).argmax(0)
    return np.stack([values[best[i], :, i] for i in range(values.shape[2])], axis=1)


def _lists(search: Search, places: Places, name: str, questions: Questions) -> Iterator[Listed]:
    values, depth = questions.inputs[name], questions.depth if len(questions.inputs) > 1 else questions.k
    for start in range(0, len(questions.relevant), _PER_SEARCH):
        part = values[start : start + _PER_SEARCH]
        if name == VECTOR:
            hits: BatchHits = search(part, depth, include=())
        elif name == TEXT:
            hits = search(text=list(part), k=depth, include=(), **questions.options)
        else:
            hits = search(sparse=part, k=depth, include=())
        for i, count in enumerate(np.asarray(hits.counts).tolist()):
            yield places.of(hits.ids[i][:count]), hits.scores[i][:count]


def candidates(inputs: Sequence[str]) -> list[Fusion]:
    """The fusions that are tried: "rrf", and weights in equal steps, those near equal weights first."""
    steps, n = STEPS[len(inputs)], len(inputs)
    grid = [cut for cut in np.ndindex(*(steps + 1,) * (n - 1)) if sum(cut) <= steps]
    weights = [np.array([*cut, steps - sum(cut)]) / steps for cut in grid]
    weights.sort(key=lambda one: float(((one - 1 / n) ** 2).sum()))
    return ["rrf", *({name: round(float(w), 6) for name, w in zip(inputs, one, strict=True)} for one in weights)]


@dataclass(frozen=True, repr=False)
class FusionChoice:
    """The result of ``tune_fusion``. ``fusion``: what was chosen, on one half of the queries.

    ``report``: its measures on the other half. ``tuned``: the record that the file stores.
    """

    fusion: Fusion
    report: RelevanceReport
    tuned: TunedFusion

    @property
    def proved(self) -> bool:
        """Whether the interval of the gain over the best single input is above zero on the other half."""
        return self.tuned.low > 0

    def __repr__(self) -> str:
        tuned = self.tuned
        gain = f"{tuned.measure} {tuned.gain:+.4f} ({tuned.low:+.4f}, {tuned.high:+.4f})"
        return f"<qvec.FusionChoice: {shown(self.fusion)}; {gain} over the best single input>"

    def __str__(self) -> str:
        return str(self.report)


def choose_fusion(answers: Answers, depth: int, measure: Measure) -> FusionChoice:
    """Choose on one half of the queries, drawn by the seed, and measure on the other half. Raises InputError."""
    check_choice("measure", measure, MEASURES)
    n = len(answers.relevant)
    if len(answers.lists) < 2:
        raise InputError(f"fusion joins two inputs or more of {', '.join(INPUTS)}; give queries, texts or sparse too")
    if n < MIN_QUERIES:
        raise InputError(f"tune_fusion needs {MIN_QUERIES} queries or more, got {n}")
    order, column = np.random.default_rng(answers.seed).permutation(n), MEASURES.index(measure)
    chooses, proves = answers.part(np.sort(order[: n // 2])), answers.part(np.sort(order[n // 2 :]))
    tried = candidates([*answers.lists])
    best = tried[int(np.argmax([chooses.measure(fusion)[:, column].mean() for fusion in tried]))]
    report = proves.report(best)
    gain = getattr(report[FUSED], f"gain_{measure}")
    weights = () if isinstance(best, str) else tuple(best.values())
    names: Any = tuple(answers.lists)
    tuned = TunedFusion(
        names, "weighted" if weights else "rrf", weights, depth, measure, answers.k, report.n_queries, *gain
    )
    return FusionChoice(best, report, tuned)


def measured(
    search: Search, ids: Ids, kind: IdKind, fusions: Sequence[TunedFusion], questions: Questions, fusion: Any
) -> RelevanceReport:
    """Measure searches by each input and, if there are several, by their fusion: as given, or the default."""
    inputs = tuple(questions.inputs)
    chosen: Fusion | None = None
    if len(inputs) > 1 or fusion is not None:
        tuned = tuned_for(fusions, inputs) if fusion is None else None
        chosen = check_fusion(fusion, inputs) if tuned is None else tuned.fusion
    return Answers.of(search, ids, kind, questions).report(chosen)


def store_fusion(txn: Transaction, tuned: TunedFusion) -> None:
    """Make a fusion the default of searches with its inputs."""
    others = tuple(one for one in txn.state.fusions if set(one.inputs) != set(tuned.inputs))
    txn.state = replace(txn.state, fusions=(*others, tuned))
