"""Searches with text and sparse vectors, with or without a vector, as runs of the search pipeline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qvec._kernels import Deadline, SearchParams
from qvec.common.errors import InputError
from qvec.common.parallel import for_each
from qvec.common.types import Bitmap, Float32Array, NDArray
from qvec.rows.lookup import payloads_of, read_records
from qvec.schema.config import Config
from qvec.search.boost import DECAY
from qvec.search.explain import Explanation
from qvec.search.fusion import SPARSE, TEXT, VECTOR, Listed, fuse
from qvec.search.hits import make_hits
from qvec.search.inputs import Inputs, RawInputs, one_text, rescored, search_lists, spans_of
from qvec.search.options import SearchOptions
from qvec.search.refine import Found, no_hits
from qvec.search.results import Extras, Hits
from qvec.search.run import Run
from qvec.storage.store import Snapshot

RESCORED = 10  # rows beyond k that are scored with the payloads' weights, because lists have weights of eight bits
_OF_VECTORS = {"ef": None, "nprobe": None, "oversample": "auto", "exact": False, "recall": None}


def check_hybrid_options(options: SearchOptions, inputs: Inputs) -> None:
    """Raise InputError for options that have no meaning for these inputs."""
    if options.max_distance is not None:
        raise InputError("max_distance is a distance of vectors; hits by text, sparse vectors or boost have scores")
    if VECTOR not in inputs.names:
        for name, default in _OF_VECTORS.items():
            if name == "oversample" and inputs.names == (SPARSE,):
                continue
            if getattr(options, name) != default:
                raise InputError(f"{name} is for searches by a vector; give query=")


def nearest_to_text(
    snap: Snapshot, config: Config, options: SearchOptions, given: RawInputs, deadline: Deadline | None
) -> Hits:
    """Search with one text only, without a filter: a shortcut for the run below, which would take twice as long."""
    for name, default in _OF_VECTORS.items():
        if getattr(options, name) != default:
            raise InputError(f"{name} is for searches by a vector; give query=")
    (rows, scores), _ = search_lists(snap, one_text(snap, given), options.k, None, deadline)
    n, k = len(rows), options.k
    distances, part = -scores, scores
    if n < k:
        rows = np.concatenate([rows, np.full(k - n, -1)])
        distances = np.concatenate([distances, np.full(k - n, np.inf, np.float32)])
        part = np.concatenate([scores, np.full(k - n, np.nan, np.float32)])
    hits = make_hits(snap, config, (rows, distances, np.array(n)), options, Extras(parts={TEXT: part}), deadline)
    assert isinstance(hits, Hits)
    return hits


@dataclass(slots=True)
class HybridRun(Run):
    """A search with several inputs. Distances are the negative scores."""

    lists: dict[int, dict[str, list[Listed]]] = field(default_factory=dict)
    """For each query and input, the found list."""
    postings: int = 0
    """The number of scored postings."""

    def _find(self, at: Any, k: int, params: SearchParams | None, selected: Any) -> Found:
        """Find the best k rows of some queries, and fuse the lists of the inputs."""
        assert self.inputs is not None
        inputs, queries = self.inputs, np.arange(len(self.batch))[at]
        found, depth = no_hits(len(queries), k), max(k, inputs.depth) if self._combines else k
        near: Found | None = None
        if VECTOR in inputs.names:
            near = Run._find(self, at, depth, self._params(depth), selected)
        excluded = None if selected is None else ~selected.bits

        def search(i: int) -> None:
            lists = self._lists_of(int(queries[i]), depth, excluded)
            if near is not None:
                count = int(near[2][i])
                lists[VECTOR] = near[0][i, :count], self._scores(near[1][i, :count])
            rows, scores = fuse(lists, inputs.fusion, k if inputs.boost is None else depth)
            if inputs.boost is not None:
                rows, scores = inputs.boost.combined(self.snap, (rows, scores), k)
            found[0][i, : len(rows)], found[1][i, : len(rows)], found[2][i] = rows, -scores, len(rows)
            if self._combines:
                kept = self.lists.setdefault(int(queries[i]), {})
                for name, listed in lists.items():
                    kept.setdefault(name, []).append(listed)

        if len(queries) == 1:
            search(0)
        else:
            for_each(search, range(len(queries)), self.threads or 1)
        return found

    @property
    def _combines(self) -> bool:
        """Whether the score of a hit is not that of its only input."""
        assert self.inputs is not None
        return len(self.inputs.names) > 1 or self.inputs.boost is not None

    def _lists_of(self, query: int, depth: int, excluded: Bitmap | None) -> dict[str, Listed]:
        assert self.inputs is not None
        lists = {}
        for name, queries in self.inputs.queries.items():
            asked, n = queries[query], self._candidates(name, depth)
            lists[name], postings = search_lists(self.snap, asked, n, excluded, self.deadline)
            self.postings += postings
            if n > depth:
                lists[name] = rescored(self.snap, asked, lists[name], depth)
        return lists

    def _candidates(self, name: str, k: int) -> int:
        """Return the number of rows to list: more than k if they are scored again with the payloads' weights."""
        oversample = self.options.oversample
        if self.inputs is None or self.inputs.names != (SPARSE,) or name != SPARSE or oversample == 0:
            return k
        return k + RESCORED if oversample == "auto" else max(k, math.ceil(k * oversample))

    def _scores(self, distances: Float32Array) -> Float32Array:
        zero = 1.0 if self.access.config.metric == "cosine" else 0.0
        return np.float32(zero) - distances

    def complete(self, extras: Extras, found: Found) -> None:
        """Add the scores of each input, and highlights, to hits [n, k]."""
        assert self.inputs is not None
        rows, distances, _ = found
        if not self._combines:
            parts = {self.inputs.names[0]: np.where(rows < 0, np.float32(np.nan), -distances)}
        else:
            parts = {name: self._parts(name, rows) for name in self.inputs.names}
            if self.inputs.boost is not None:
                decays = np.full(rows.shape, np.nan, np.float32)
                decays[rows >= 0] = self.inputs.boost.decays(self.snap, rows[rows >= 0])
                parts[DECAY] = decays
        shape = rows.shape if self.queries.ndim > 1 else rows.shape[1:]
        extras.parts = {name: scores.reshape(shape) for name, scores in parts.items()}
        if self.inputs.highlight:
            spans = [self._highlights(query, rows[query]) for query in range(len(rows))]
            extras.highlights = spans if self.queries.ndim > 1 else spans[0]

    def explained(self, explanation: Explanation) -> Explanation:
        """Return the explanation, with the inputs as the strategy, and with the number of scored postings."""
        assert self.inputs is not None
        names = [explanation.strategy if name == VECTOR else name for name in self.inputs.names]
        evaluations = explanation.evaluations + self.postings
        return replace(explanation, strategy="+".join(names), evaluations=evaluations)

    def _parts(self, name: str, rows: NDArray[np.int64]) -> Float32Array:
        """Return the scores of rows [n, k] for one input; NaN for rows that its list does not contain."""
        scores = np.full(rows.shape, np.nan, np.float32)
        for query in range(len(rows)):
            for listed, of in self.lists.get(query, {}).get(name, ()):
                known = dict(zip(listed.tolist(), of.tolist(), strict=True))
                for place, row in enumerate(rows[query].tolist()):
                    if row in known:
                        scores[query, place] = known[row]
        return scores

    def _highlights(self, query: int, rows: NDArray[np.int64]) -> list[Mapping[str, list[tuple[int, int]]] | None]:
        assert self.inputs is not None
        asked = self.inputs.queries[TEXT][query]
        payloads = payloads_of(read_records(self.snap, rows.tolist()))
        return [
            None if row < 0 else spans_of(self.snap.state, asked, payload)
            for row, payload in zip(rows.tolist(), payloads, strict=True)
        ]
