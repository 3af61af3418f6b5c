"""What reads and writes return: stored records, and the outcome of an add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qvec.common.tables import SHOWN_ROWS, first_lines, short_text
from qvec.common.types import Ids, NDArray, Payload


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Records:
    """Stored vectors in the order asked for.

    ``ids``: int64 or str, shape (n,). ``vectors``: float32, shape (n, dim): the originals where they are
    kept, else decoded from the codes (zeros in dimensions that ``dims`` left out); of a :class:`Prequantized`
    collection what was put in, int8 or uint8. ``payloads``: n dicts, None where a vector has none.
    """

    ids: Ids
    vectors: NDArray[Any]
    payloads: list[Payload | None]

    def __len__(self) -> int:
        return len(self.ids)

    def to_list(self) -> list[dict[str, Any]]:
        """Give each record as a dict of id, vector and payload."""
        rows = zip(self.ids.tolist(), self.vectors, self.payloads, strict=True)
        return [{"id": id, "vector": vector, "payload": payload} for id, vector, payload in rows]

    def to_pandas(self) -> Any:
        """A pandas.DataFrame (extra ``pandas``): ``id``, ``vector`` (an array each), a column for each payload key."""
        from qvec.common.tables import data_frame

        return data_frame({"id": self.ids, "vector": list(self.vectors)}, self.payloads)

    def to_arrow(self) -> Any:
        """A pyarrow.Table (extra ``arrow``): ``id``, ``vector`` (lists of dim numbers), and payloads as in Hits."""
        from qvec.common.tables import arrow_table, vector_array

        ids = self.ids.tolist()
        return arrow_table({"id": ids, "vector": vector_array(self.vectors)}, ids, self.payloads)

    def __repr__(self) -> str:
        lines = [f"  {id}  {short_text(payload)}".rstrip() for id, payload in zip(self.ids, self.payloads, strict=True)]
        head = f"<qvec.Records: {len(self)} of dim {self.vectors.shape[1]}, {self.vectors.dtype}>"
        return "\n".join((head, *first_lines(lines, SHOWN_ROWS)))


@dataclass(frozen=True, slots=True, eq=False)
class AddResult:
    """What an add or upsert did. ``ids``: int64 or str, shape (n,): the id of each row of the batch."""

    ids: Ids
    added: int
    replaced: int
    skipped: int
