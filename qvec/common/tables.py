"""Rows as Arrow and pandas tables: fixed columns, and one column for each payload key.

A key has its own Arrow column if all of its values, but for None, have one type: bool, int (64 bits), float, str,
datetime (in UTC), bytes, or a list of one of the first five. Other values (None, mixed types, dicts, nested lists) are
in the column ``payload`` as a JSON object, which is null if nothing is left or the row has no payload. :func:`merged`
restores the payload, except for datetimes in the JSON object, which are ISO 8601 text, and sparse vectors, which are
lists of ids and weights; sparse fields take them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from qvec.common.errors import InputError
from qvec.common.extras import require
from qvec.common.sparse_form import decoded

Payload = dict[str, Any]
Fixed = Mapping[str, Any]

SHOWN_ROWS, SHOWN_WIDTH = 10, 60  # of a repr
REST = "payload"
MAX_COLUMNS = 256  # further keys are in the rest, since payloads keyed by user or day would need a column for each
_INT64 = 1 << 63
_SCALARS = {bool: "bool", int: "int", float: "float", str: "str", datetime: "datetime", bytes: "bytes"}
_IN_LISTS = frozenset({"bool", "int", "float", "str", "datetime"})
_ANY_LIST = "[]"  # an empty list fits lists of any type


class PayloadColumns:
    """The keys of the payloads observed so far, with the types of their columns; None: a key has no column."""

    def __init__(self, payloads: Iterable[Payload | None] = ()) -> None:
        self._kinds: dict[str, str | None] = {}
        self.observe(payloads)

    def observe(self, payloads: Iterable[Payload | None]) -> None:
        """Take the types of payloads of the table into account."""
        for payload in payloads:
            for key, value in (payload or {}).items():
                if value is None:  # in the rest of its own row; the column has the other rows' values
                    continue
                kind = _kind(value)
                known = self._kinds.setdefault(key, kind)
                if known != kind:
                    self._kinds[key] = _common(known, kind)

    def kinds(self, taken: Iterable[str]) -> dict[str, str]:
        """The type of each column by key, in order of first occurrence; ``taken`` names are left out."""
        apart = {*taken, REST}
        kinds = {key: kind for key, kind in self._kinds.items() if kind and kind != _ANY_LIST and key not in apart}
        return dict(list(kinds.items())[:MAX_COLUMNS])


def split(id: object, payload: Payload | None, kinds: Mapping[str, str]) -> tuple[Payload, str | None]:
    """The values for the columns, and the rest as JSON. A value that does not fit its column is in the rest.

    Raises InputError naming the id and the key if the rest contains bytes, which JSON cannot represent.
    """
    if payload is None:
        return {}, None
    held = {key: value for key, value in payload.items() if key in kinds and _fits(_kind(value), kinds[key])}
    rest = {key: value for key, value in payload.items() if key not in held}
    return held, to_json(id, rest) if rest or not held else None


def merged(held: Payload, rest: str | None) -> Payload | None:
    """The payload that :func:`split` divided into columns and rest."""
    payload = {key: value for key, value in held.items() if value is not None}
    if rest is not None:
        payload |= json.loads(rest)
    return payload if payload or rest is not None else None


def to_json(id: object, payload: Payload | None) -> str:
    """One line of JSON. Raises InputError naming the id and the key if JSON cannot represent the payload."""
    try:
        return json.dumps(payload, ensure_ascii=False, default=_json_form)
    except TypeError:
        lists = {key: sparse_lists(value) for key, value in (payload or {}).items()}
    if all(map(_is_json, lists.values())):
        return json.dumps(lists, ensure_ascii=False, default=_json_form)
    key = next(key for key, value in lists.items() if not _is_json(value))
    raise InputError(
        f"the payload of {id!r} has bytes under {key!r}, which would be stored as JSON; Parquet and Arrow store "
        f"bytes if all values of the key are bytes and no other column has its name"
    )


def sparse_lists(value: Any) -> Any:
    """Ids and weights of a sparse vector as lists, if the value is one as payloads store it."""
    if not isinstance(value, dict) or not {"ids", "weights"} <= value.keys() <= {"ids", "weights", "scale"}:
        return value
    found = decoded(value)
    return value if found is None else {"ids": found[0].tolist(), "weights": found[1].tolist()}


def arrow_table(fixed: Fixed, ids: Sequence[Any], payloads: Sequence[Payload | None] | None) -> Any:
    """A pyarrow.Table of fixed columns (names to arrays) and the columns of payloads."""
    pa = require("pyarrow")
    columns = payload_arrays(ids, payloads, PayloadColumns(payloads).kinds(fixed)) if payloads else {}
    if columns and columns[REST].null_count == len(ids):
        del columns[REST]
    return pa.table({**fixed, **columns})


def payload_arrays(ids: Sequence[Any], payloads: Sequence[Payload | None], kinds: Mapping[str, str]) -> dict[str, Any]:
    """pyarrow arrays of the columns of payloads, and of the rest."""
    pa = require("pyarrow")
    parts = [split(id, payload, kinds) for id, payload in zip(ids, payloads, strict=True)]
    arrays = {key: pa.array([held.get(key) for held, _ in parts], arrow_type(kind)) for key, kind in kinds.items()}
    return arrays | {REST: pa.array([rest for _, rest in parts], pa.string())}


def arrow_type(kind: str) -> Any:
    """The pyarrow type of a column."""
    pa = require("pyarrow")
    if kind.startswith("["):
        return pa.list_(arrow_type(kind[1:-1]))
    if kind == "datetime":
        return pa.timestamp("us", "UTC")
    types = {"bool": pa.bool_, "int": pa.int64, "float": pa.float64, "str": pa.string, "bytes": pa.binary}
    return types[kind]()


def vector_array(vectors: Any) -> Any:
    """A matrix [n, dim] as a pyarrow array of fixed-size lists, of the matrix's own dtype."""
    pa = require("pyarrow")
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def data_frame(fixed: Fixed, payloads: Sequence[Payload | None] | None) -> Any:
    """A pandas.DataFrame of fixed columns and one for each payload key (``payload.KEY`` where the name is taken).

    A column with missing integers, booleans or floats has a nullable dtype, and one of mixed types the dtype object: no
    value changes.
    """
    pandas = require("pandas")
    columns: dict[str, Any] = dict(fixed)
    index = pandas.RangeIndex(len(payloads or ())) if payloads else None
    for key in dict.fromkeys(key for payload in payloads or () for key in payload or ()):
        name = key
        while name in columns:
            name = f"{REST}.{name}"
        values = [(payload or {}).get(key) for payload in payloads or ()]
        columns[name] = pandas.Series(values, index=index, dtype=_dtype_of(values))
    return pandas.DataFrame(columns)


def _dtype_of(values: Sequence[Any]) -> Any:
    """The pandas dtype that represents values exactly; None: the one that pandas infers."""
    kinds = {type(value) for value in values}
    missing = type(None) in kinds
    kinds.discard(type(None))
    if kinds == {int}:
        fits = all(value is None or -_INT64 <= value < _INT64 for value in values)
        return ("Int64" if missing else "int64") if fits else object
    if kinds == {bool}:
        return "boolean" if missing else "bool"
    if kinds == {float}:
        return (
            object
            if missing and any(value is not None and value != value for value in values)
            else ("Float64" if missing else "float64")
        )
    return None if kinds in ({str}, {datetime}) else object


def html_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """A table for notebooks; all texts are escaped."""
    from html import escape  # late, to keep `import qvec` fast

    head = "".join(f"<th>{escape(str(column))}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    notes = f"<p>{escape(note)}</p>" if note else ""
    return f"<p><b>{escape(title)}</b></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"


def as_html(shown: Any) -> str:
    """What a notebook shows of an object."""
    html: str = shown._repr_html_()
    return html


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, default=_json_form)
    except TypeError:
        return False
    return True


def _json_form(value: object) -> str:
    """The JSON form of a datetime. Raises TypeError for other values."""
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"JSON cannot represent {type(value).__name__}")


def _kind(value: Any) -> str | None:
    """The type of the column for a value. None: the value belongs to the rest."""
    if type(value) is not list:
        return None if type(value) is int and not -_INT64 <= value < _INT64 else _SCALARS.get(type(value))
    inside = {_kind(item) for item in value}
    if not inside:
        return _ANY_LIST
    (only, *others) = inside
    return f"[{only}]" if not others and only in _IN_LISTS else None


def _common(known: str | None, kind: str | None) -> str | None:
    if known is None or kind is None:
        return None
    if _fits(kind, known):
        return known
    return kind if _fits(known, kind) else None


def _fits(kind: str | None, column: str) -> bool:
    return kind == column or (kind == _ANY_LIST and column.startswith("["))


def short_text(value: object) -> str:
    """The text of a value for a repr, cut to SHOWN_WIDTH characters; None is empty."""
    text = "" if value is None else str(value)
    return text if len(text) <= SHOWN_WIDTH else text[: SHOWN_WIDTH - 3] + "..."


def first_lines(lines: list[str], n: int) -> list[str]:
    """The first n lines, and a line that counts the others."""
    return lines if len(lines) <= n else [*lines[:n], f"  ... {len(lines) - n} more"]
