"""Rows of text files: JSON lines, and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.datasets.files import Matrix
from qvec.datasets.sidecars import INT64, INTEGER, load_json, read_lines

JSONL_SUFFIXES, CSV_SUFFIXES = (".jsonl", ".ndjson"), (".csv", ".tsv")
TEXT_SUFFIXES = (*JSONL_SUFFIXES, *CSV_SUFFIXES)
VECTOR_KEYS = ("vector", "embedding")
MAX_CELL = 1 << 24  # characters of a CSV cell


@dataclass(frozen=True)
class TextRow:
    """``line``: its number, from 1. ``vector``: int64 if all values are written as integers, else float64.

    ``rest``: the other values by name.
    """

    line: int
    vector: Matrix
    rest: dict[str, Any]


def text_rows(file: Path, vector: str | None = None) -> Iterator[TextRow]:
    """Yield the rows of a file.

    A line of JSON is a list of numbers, or an object whose key ``vector`` is one (default: ``vector`` or
    ``embedding``). A CSV file without a heading has a number in each column. With a heading, the column ``vector`` has
    a list of numbers in brackets, and other cells are text; an empty cell is no value.

    Raises InputError that names the line.
    """
    rows = _csv_rows(file, vector) if file.suffix.lower() in CSV_SUFFIXES else _json_rows(file, vector)
    dim = None
    for row in rows:
        dim = len(row.vector) if dim is None else dim
        if len(row.vector) != dim:
            raise InputError(f"{file}, line {row.line}: the vector has {len(row.vector)} values, not {dim}")
        yield row


def load_text(file: Path) -> Matrix:
    """Read the vectors of a text file [n, dim]: int64 if all values are written as integers, else float64."""
    vectors = [row.vector for row in text_rows(file)]
    if not vectors:
        raise InputError(f"{file} has no rows")
    return np.stack(vectors)


def _json_rows(file: Path, vector: str | None) -> Iterator[TextRow]:
    for number, line in read_lines(file):
        if not line.strip():
            continue
        value = load_json(file, number, line)
        rest = dict(value) if isinstance(value, dict) else {}
        if isinstance(value, dict):
            key = _vector_key(file, number, list(value), vector)
            value = rest.pop(key)
        yield TextRow(number, _numbers(file, number, value), rest)


def _csv_rows(file: Path, vector: str | None) -> Iterator[TextRow]:
    csv.field_size_limit(MAX_CELL)
    lines = (line + "\n" for _, line in read_lines(file))
    reader = csv.reader(lines, delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
    names: list[str] | None = None
    key, first = "", True
    try:
        for cells in reader:
            number = reader.line_num
            if not cells:
                continue
            if first and not all(map(_is_number, cells)):
                names = cells
                if len(set(names)) < len(names):
                    raise InputError(f"{file}: two columns have the same name: {', '.join(names)}")
                key = _vector_key(file, number, names, vector)
            elif names is None:
                yield TextRow(number, _numbers(file, number, list(map(_number, cells))), {})
            elif len(cells) != len(names):
                raise InputError(f"{file}, line {number}: {len(cells)} cells, and the heading has {len(names)}")
            else:
                rest = {name: cell for name, cell in zip(names, cells, strict=True) if cell != ""}
                text = rest.pop(key, "").strip()
                rows = text.strip("[]").replace(",", " ").split()
                if not all(map(_is_number, rows)):
                    raise InputError(f"{file}, line {number}: the column {key!r} is not a list of numbers")
                yield TextRow(number, _numbers(file, number, list(map(_number, rows))), rest)
            first = False
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: {error}") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file}, line {reader.line_num}: {error}") from error


def _vector_key(file: Path, line: int, names: list[str], asked: str | None) -> str:
    wanted = VECTOR_KEYS if asked is None else (asked,)
    found = next((name for name in wanted if name in names), None)
    if found is None:
        raise InputError(f"{file}, line {line}: no {' or '.join(wanted)} among {', '.join(names[:20]) or 'no names'}")
    return found


def _numbers(file: Path, line: int, value: Any) -> Matrix:
    if not isinstance(value, list) or not value:
        raise InputError(f"{file}, line {line}: a vector is a list of numbers, got {json.dumps(value)[:60]}")
    for i, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, int | float):
            raise InputError(f"{file}, line {line}: value {i} of the vector is {json.dumps(item)[:60]}, not a number")
    try:
        if all(isinstance(item, int) and INT64.min <= item <= INT64.max for item in value):
            return np.array(value, np.int64)
        return np.array(value, np.float64)
    except OverflowError:
        raise InputError(f"{file}, line {line}: a value of the vector is too large") from None


def _number(text: str) -> int | float:
    return int(text) if INTEGER.fullmatch(text.strip()) else float(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
