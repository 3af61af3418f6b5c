"""Results of reads and writes: stored records, and the outcome of an add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

from qvec.common.tables import SHOWN_ROWS, first_lines, short_text
from qvec.common.types import Ids, NDArray, Payload


class Record(NamedTuple):
    """One stored vector. ``id``: int or str. ``payload``: None if the vector has none."""

    id: Any
    vector: NDArray[Any]
    payload: Payload | None


class Records(Sequence[Record]):
    """Stored vectors in the requested order: a sequence of :class:`Record`, and arrays.

    ``ids``: int64 or str, shape (n,). ``vectors``: float32, shape (n, dim): the originals if they are stored, else
    decoded from the codes (zeros in dimensions that ``dims`` leaves out); of a :class:`Prequantized` collection the
    int8 or uint8 values that were added. ``payloads``: n dicts, None for a vector without a payload.
    """

    __slots__ = ("ids", "payloads", "vectors")

    def __init__(self, ids: Ids, vectors: NDArray[Any], payloads: list[Payload | None]) -> None:
        self.ids, self.vectors, self.payloads = ids, vectors, payloads

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, row: int) -> Record: ...
    @overload
    def __getitem__(self, row: slice) -> Records: ...
    def __getitem__(self, row: int | slice) -> Record | Records:
        if isinstance(row, slice):
            return Records(self.ids[row], self.vectors[row], self.payloads[row])
        return Record(self.ids.item(row), self.vectors[row], self.payloads[row])

    def to_list(self) -> list[dict[str, Any]]:
        """Each record as a dict of id, vector and payload."""
        return [record._asdict() for record in self]

    def to_pandas(self) -> Any:
        """A pandas.DataFrame (extra ``pandas``): ``id``, ``vector`` (an array each), a column for each payload key."""
        from qvec.common.tables import data_frame

        return data_frame({"id": self.ids, "vector": list(self.vectors)}, self.payloads)

    def to_arrow(self) -> Any:
        """A pyarrow.Table (extra ``arrow``): ``id``, ``vector`` (lists of dim numbers), and payloads as in Hits."""
        from qvec.common.tables import arrow_table, vector_array

        ids = self.ids.tolist()
        return arrow_table({"id": ids, "vector": vector_array(self.vectors)}, ids, self.payloads)

    def _repr_html_(self) -> str:
        from qvec.common.tables import html_table

        rows = [(id, short_text(payload)) for id, payload in zip(self.ids[:SHOWN_ROWS], self.payloads, strict=False)]
        note = f"{len(self) - SHOWN_ROWS} more" if len(self) > SHOWN_ROWS else ""
        title = f"{len(self)} records of dim {self.vectors.shape[1]}, {self.vectors.dtype}"
        return html_table(title, ("id", "payload"), rows, note)

    def __repr__(self) -> str:
        lines = [f"  {id}  {short_text(payload)}".rstrip() for id, payload in zip(self.ids, self.payloads, strict=True)]
        head = f"<qvec.Records: {len(self)} of dim {self.vectors.shape[1]}, {self.vectors.dtype}>"
        return "\n".join((head, *first_lines(lines, SHOWN_ROWS)))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AddResult:
    """The outcome of an add or upsert. ``ids``: int64 or str, shape (n,): the id of each row of the batch."""

    ids: Ids
    added: int
    replaced: int
    skipped: int

    def __repr__(self) -> str:
        shown = ", ".join(map(str, self.ids[:SHOWN_ROWS].tolist()))
        more = ", ..." if len(self.ids) > SHOWN_ROWS else ""
        return (
            f"<qvec.AddResult: {self.added} added, {self.replaced} replaced, {self.skipped} skipped; ids {shown}{more}>"
        )
