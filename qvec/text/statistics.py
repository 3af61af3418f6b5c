"""Counts of documents for the scores of a text search, of one collection or of several together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qvec.common.errors import InputError


@dataclass(frozen=True)
class FieldCounts:
    """Of a text field: rows with terms, the sum of their lengths, and the number of rows with each term of a query."""

    docs: int
    tokens: int
    frequencies: Mapping[bytes, int]

    def __post_init__(self) -> None:
        most = max(self.frequencies.values(), default=0)
        if not 0 <= most <= self.docs <= self.tokens or min(self.frequencies.values(), default=0) < 0:
            raise InputError(f"counts of a text field: {most} rows with a term, {self.docs} rows, {self.tokens} tokens")


@dataclass(frozen=True)
class TextStatistics:
    """The counts of each text field that BM25 uses for some texts (:meth:`qvec.Collection.text_statistics`)."""

    fields: Mapping[str, FieldCounts]

    @classmethod
    def sum(cls, parts: Iterable[TextStatistics]) -> TextStatistics:
        """The counts of several collections together, for the same texts. Raises InputError if their fields differ."""
        listed = list(parts)
        names = listed[0].fields.keys()
        if any(part.fields.keys() != names for part in listed):
            raise InputError("the collections have different text fields")
        return cls({name: _sum([part.fields[name] for part in listed]) for name in names})


def _sum(parts: list[FieldCounts]) -> FieldCounts:
    frequencies: dict[bytes, int] = {}
    for part in parts:
        for term, count in part.frequencies.items():
            frequencies[term] = frequencies.get(term, 0) + count
    return FieldCounts(sum(part.docs for part in parts), sum(part.tokens for part in parts), frequencies)
