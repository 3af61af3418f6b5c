"""JSON lines and CSV files whose rows have vectors, ids and payloads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import IdKind, Payload
from qvec.datasets.sidecars import INTEGER
from qvec.datasets.text_files import CSV_SUFFIXES, TextRow, text_rows
from qvec.interchange.base import Batch, Ids, Matrix, Source, checked_dim, int_ids, spread

_FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": {"true": True, "false": False, "True": True, "False": False, "1": True, "0": False}.__getitem__,
    "keyword": str,
    "datetime": str,
}


class TextSource(Source):
    """Rows of a text file, read three times at most: to count, for a sample, and in batches.

    vector, id: names; default: ``vector`` or ``embedding``, and ``id`` if there is one. types: the types of CSV columns
    that are not text, as those of declared fields. All other values are the payload.
    """

    def __init__(
        self, path: Path, *, vector: str | None = None, id: str | None = None, types: Mapping[str, str] | None = None
    ) -> None:
        self.name, self._path, self._vector = str(path), path, vector
        self._types = types or {}
        self._is_csv = path.suffix.lower() in CSV_SUFFIXES
        self.rows, self.dim, self._id = 0, 0, "id" if id is None else id
        kinds: set[str] = set()
        for row in text_rows(path, vector):
            self.dim = len(row.vector)
            kinds.add(self._id_kind(row))
            if len(kinds) > 1 and kinds != {"int64", "str"}:
                raise InputError(f"{path}, line {row.line}: some rows have {self._id!r} and others do not")
            if len(kinds) > 1 and not self._is_csv:
                raise InputError(f"{path}, line {row.line}: ids are strings, or integers, all of one kind")
            self.rows += 1
        if not self.rows:
            raise InputError(f"{path} has no rows")
        if id is not None and kinds == {"none"}:
            raise InputError(f"{path} has no {id!r}")
        checked_dim(self.dim, self.name)
        self.id_kind: IdKind | None = None if kinds == {"none"} else "str" if "str" in kinds else "int64"

    def batches(self, size: int) -> Iterator[Batch]:
        rows = text_rows(self._path, self._vector)
        while part := list(islice(rows, size)):
            payloads = [self._payload(row) for row in part]
            any_payload = any(payload is not None for payload in payloads)
            yield Batch(np.stack([row.vector for row in part]), self._ids(part), payloads if any_payload else None)

    def sample(self, size: int) -> Matrix:
        chosen = set(spread(self.rows, size).tolist())
        rows = enumerate(text_rows(self._path, self._vector))
        return np.stack([row.vector for i, row in rows if i in chosen])

    def _id_kind(self, row: TextRow) -> str:
        if self._id not in row.rest:
            return "none"
        id = row.rest[self._id]
        if self._is_csv:
            return "int64" if INTEGER.fullmatch(id) else "str"
        if isinstance(id, str):
            return "str"
        if isinstance(id, int) and not isinstance(id, bool):
            return "int64"
        raise InputError(f"{self._path}, line {row.line}: an id is a string or an integer, got {json.dumps(id)[:60]}")

    def _ids(self, part: list[TextRow]) -> Ids | None:
        if self.id_kind is None:
            return None
        ids = [row.rest[self._id] for row in part]
        if self.id_kind == "str":
            return list(map(str, ids))
        return int_ids(np.array([int(id) for id in ids], object), f"{self.name}, rows from line {part[0].line}")

    def _payload(self, row: TextRow) -> Payload | None:
        rest = {key: value for key, value in row.rest.items() if key != self._id or self.id_kind is None}
        for key in self._types.keys() & rest.keys() if self._is_csv else ():
            kind = self._types[key]
            try:
                rest[key] = json.loads(rest[key]) if kind.endswith("[]") else _FROM_TEXT[kind](rest[key])
            except (KeyError, ValueError, RecursionError):
                raise InputError(f"{self.name}, line {row.line}, column {key!r}: {rest[key]!r} is not {kind}") from None
        return rest or None
