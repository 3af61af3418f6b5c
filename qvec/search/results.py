"""What a search returns: arrays, and the same as lists, tables and text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qvec.common.tables import SHOWN_ROWS, first_lines, short_text
from qvec.common.types import Float32Array, Ids, Int64Array, NDArray

if TYPE_CHECKING:
    from qvec.search.explain import Explanation

SHOWN_QUERIES = 5  # of a repr


@dataclass(slots=True, eq=False, repr=False)  # not frozen: that would double the cost of making one
class Hits:
    """The nearest neighbors of one query (1-D) or of a batch (2-D), nearest first.

    ``ids``: int64 or str, shape (k,) or (n, k); places that hold no hit are ``-1`` or ``""``. ``distances``:
    float32, same shape, ascending: squared Euclidean (l2), ``-dot`` (ip), ``1 - cos`` (cosine); infinite
    where there is no hit. ``counts``: hits found: an int64 scalar array of shape () or shape (n,). ``payloads``: a list
    of k payloads, or n such lists; None where payloads were not asked for. ``vectors``: as stored (:class:`Records`),
    shape (k, dim) or (n, k, dim), zeros where there is no hit; None where they were not asked for.

    ``explanation``: how they were found, where that was asked for.

    ``groups``: what the field holds that hits were grouped by, in the places of their payloads.

    With ``mmr`` hits come in the order in which they were chosen, not by distance; grouped, group after group.
    """

    ids: Ids
    distances: Float32Array
    counts: Int64Array
    payloads: list[Any] | None = None
    zero_score: float = 0.0
    """Score at distance 0: 1 under cosine."""
    vectors: NDArray[Any] | None = None
    explanation: Explanation | None = None
    groups: list[Any] | None = None

    @property
    def scores(self) -> Float32Array:
        """float32, shape of ``ids``, descending: ``-distance`` (l2), dot (ip), cos (cosine)."""
        return np.float32(self.zero_score) - self.distances

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Unpack as ``ids, distances = hits``."""
        yield self.ids
        yield self.distances

    def to_list(self) -> list[Any]:
        """Give each hit as a dict of id, distance, score and what was asked for of payload, vector and group.

        A list, or n lists.
        """
        fixed, payloads = self._columns()
        columns = {name: list(values) if name == "vector" else values.tolist() for name, values in fixed.items()}
        columns |= {} if payloads is None else {"payload": payloads}
        columns |= {} if self.groups is None else {"group": self._flat(self.groups)}
        hits = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if self.ids.ndim == 1:
            return hits
        ends = np.cumsum(self.counts).tolist()
        return [hits[end - count : end] for end, count in zip(ends, self.counts.tolist(), strict=True)]

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with a row for each hit (extra ``pandas``).

        Columns: ``query`` (of a batch) and ``rank``, both from 0, ``id``, ``distance``, ``score``, ``vector`` if asked
        for, and one for each payload key, called ``payload.KEY`` where its name is taken.
        """
        from qvec.common.tables import data_frame

        fixed, payloads = self._columns()
        if "vector" in fixed:
            fixed["vector"] = list(fixed["vector"])
        return data_frame(self._places() | fixed, payloads)

    def to_arrow(self) -> Any:
        """A pyarrow.Table with a row for each hit (extra ``arrow``): the columns of :meth:`to_pandas`.

        A payload key has a column where its values are all of one type; the rest is JSON in the column ``payload``.
        """
        from qvec.common.tables import arrow_table, vector_array

        fixed, payloads = self._columns()
        ids = fixed["id"].tolist()
        if "vector" in fixed:
            fixed["vector"] = vector_array(fixed["vector"])
        return arrow_table(self._places() | fixed | {"id": ids}, ids, payloads)

    def __repr__(self) -> str:
        n, k = self.ids.size // max(1, self.ids.shape[-1]), self.ids.shape[-1]
        found = np.atleast_1d(self.counts)
        if self.ids.ndim == 1:
            return "\n".join((f"<qvec.Hits of one query: {found[0]} of k={k}>", *self._lines()))
        span = f"{found.min()} to {found.max()}" if n else "0"
        lists = [
            f"  {i}: {', '.join(map(str, ids[: min(count, SHOWN_ROWS)]))}{', ...' if count > SHOWN_ROWS else ''}"
            for i, (ids, count) in enumerate(zip(self.ids.tolist(), found.tolist(), strict=True))
        ]
        return "\n".join((f"<qvec.Hits of {n} queries: {span} of k={k}>", *first_lines(lists, SHOWN_QUERIES)))

    def _lines(self) -> list[str]:
        hits = self.to_list()
        lines = [f"  {hit['id']}  {hit['distance']:.6g}  {short_text(hit.get('payload'))}".rstrip() for hit in hits]
        return first_lines(lines, SHOWN_ROWS)

    def _places(self) -> dict[str, NDArray[np.int64]]:
        """Which query, where there are several, and which place each hit belongs to."""
        places = np.argwhere(self._found())
        return dict(zip(("query", "rank")[2 - places.shape[1] :], places.T, strict=True))

    def _columns(self) -> tuple[dict[str, Any], list[Any] | None]:
        """Columns of the hits of all queries, and their payloads."""
        found = self._found()
        columns = {"id": self.ids[found], "distance": self.distances[found], "score": self.scores[found]}
        if self.vectors is not None:
            columns["vector"] = self.vectors[found]
        if self.payloads is None:
            return columns, None
        return columns, self._flat(self.payloads)

    def _flat(self, lists: list[Any]) -> list[Any]:
        """What lists hold in the places of hits."""
        found = self._found()
        rows = [lists] if found.ndim == 1 else lists
        return [rows[q][i] for q, i in np.argwhere(np.atleast_2d(found)).tolist()]

    def _found(self) -> NDArray[np.bool_]:
        """Which places hold a hit."""
        return np.asarray(np.arange(self.ids.shape[-1]) < self.counts[..., None])
