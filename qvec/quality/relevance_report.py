"""The report of an evaluation with relevant ids: measures of each search, and what fusion gains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qvec.common.console import WIDTH, print_table, print_text
from qvec.common.extras import require
from qvec.common.text_tables import table_lines
from qvec.quality.relevance import MEASURES, Interval
from qvec.search.fusion import Fusion

HEADINGS = ("search", "nDCG", "recall", "MRR", "hit")
FUSED = "fused"


@dataclass(frozen=True, slots=True)
class RelevanceRow:
    """The measures of one search: of each input alone, and "fused". Each is a mean with its 95 % interval.

    ``gain_ndcg``, ...: the difference from the single input that is best by this measure, for the same queries, with
    its paired interval; None for single inputs.
    """

    search: str
    ndcg: Interval
    recall: Interval
    mrr: Interval
    hit: Interval
    gain_ndcg: Interval | None = None
    gain_recall: Interval | None = None
    gain_mrr: Interval | None = None
    gain_hit: Interval | None = None


@dataclass(frozen=True, repr=False)
class RelevanceReport:
    """Relevance of the first ``k`` hits of ``n_queries`` queries. ``fusion``: of the row "fused"; None: one input."""

    k: int
    n_queries: int
    fusion: Fusion | None
    rows: tuple[RelevanceRow, ...]

    def __getitem__(self, search: str) -> RelevanceRow:
        """The row of a search: "vector", "text", "sparse" or "fused". Raises KeyError."""
        for row in self.rows:
            if row.search == search:
                return row
        raise KeyError(search)

    @property
    def title(self) -> str:
        """Description of the measurement on one line."""
        return f"relevance of the first {self.k} hits, {self.n_queries:,} queries"

    def cells(self) -> list[tuple[str, ...]]:
        """Return the cells of the table, in the order of HEADINGS."""
        rows = []
        for row in self.rows:
            rows.append((row.search, *(_with_interval(getattr(row, name)) for name in MEASURES)))
            if row.gain_ndcg is not None:
                rows.append(("gain", *(_with_interval(getattr(row, f"gain_{name}"), "+") for name in MEASURES)))
        return rows

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as plain data: each measure, and its ends ``..._low`` and ``..._high``."""
        return [dict(_flat(row)) for row in self.rows]

    def to_pandas(self) -> Any:
        """Return the rows as a pandas.DataFrame; MissingExtraError says how to install pandas."""
        return require("pandas").DataFrame(self.to_dicts())

    def show(self) -> None:
        """Print the table, within the width of the terminal."""
        print_table(self.title, HEADINGS, self.cells())
        for line in self._notes():
            print_text(line)

    def __repr__(self) -> str:
        return f"<qvec.RelevanceReport: {self.title}: print() shows them>"

    def _repr_html_(self) -> str:
        from qvec.common.tables import html_table

        return html_table(self.title, HEADINGS, self.cells(), "; ".join(self._notes()))

    def __str__(self) -> str:
        return "\n".join([self.title, *table_lines(HEADINGS, self.cells(), WIDTH), *self._notes()])

    def _notes(self) -> list[str]:
        return [] if self.fusion is None else [f"fusion: {shown(self.fusion)}; gain: over the best single input"]


def shown(fusion: Fusion) -> str:
    """A fusion as text."""
    if not isinstance(fusion, Mapping):
        return fusion
    return ", ".join(f"{name} {weight:g}" for name, weight in fusion.items())


def _with_interval(value: Interval, sign: str = "") -> str:
    return f"{value.mean:{sign}.3f} ({value.low:{sign}.3f}, {value.high:{sign}.3f})"


def _flat(row: RelevanceRow) -> Iterator[tuple[str, str | float]]:
    yield "search", row.search
    for name in (*MEASURES, *(f"gain_{name}" for name in MEASURES)):
        value: Interval | None = getattr(row, name)
        if value is not None:
            yield from ((name, value.mean), (f"{name}_low", value.low), (f"{name}_high", value.high))
