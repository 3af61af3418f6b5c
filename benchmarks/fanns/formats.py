"""The files of https://github.com/spcl/fanns-benchmark: attributes, conditions of queries, and true neighbors.

Attributes and conditions are either the JSON lines of the data sets ``arxiv-for-fanns-*``, or the text that the project
makes of them for its programs:

| filter | JSON of a row | text of a row | JSON of a query | text of a query |
|---|---|---|---|---|
| EM: equals | ``number_of_sub_categories`` | an integer | ``label`` | an integer |
| R: between | ``update_date`` | an integer | ``range_start``, ``range_end`` | ``low-high`` |
| EMIS: contains | ``main_categories`` | integers with commas | ``label`` | an integer |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qvec import InputError

KEYS = {"EM": "number_of_sub_categories", "R": "update_date", "EMIS": "main_categories"}
FILTERS = tuple(KEYS)
FIELD = "attribute"


def field_type(file: Path, kind: str) -> str:
    """The type of the field that holds the attribute: sets are of names in JSON, and of integers in text."""
    if kind != "EMIS":
        return "int"
    return "keyword[]" if _is_json(file) else "int[]"


def attributes(file: Path, kind: str) -> list[Any]:
    """The attribute of each row: an integer, or a list under EMIS. InputError names a line that has none."""
    if _is_json(file):
        return _parsed(file, lambda line: json.loads(line)[KEYS[kind]])
    return _parsed(file, _integers if kind == "EMIS" else int)


def conditions(file: Path, kind: str) -> list[dict[str, Any]]:
    """The filter of each query, as ``where`` takes it. InputError names a line that is not a condition."""
    if kind == "R":
        ranges = _parsed(file, _json_range if _is_json(file) else _text_range)
        return [{FIELD: {"$gte": low, "$lte": high}} for low, high in ranges]
    labels = _parsed(file, _json_label if _is_json(file) else int)
    return [{FIELD: label} for label in labels]


def neighbors(file: Path, k: int) -> list[npt.NDArray[np.int32]]:
    """The first ``k`` true neighbors of each query: rows of different lengths; negative ids are padding."""
    words = np.fromfile(file, "<i4")
    found, at = [], 0
    while at < len(words):
        end = at + 1 + int(words[at])
        if words[at] < 0 or end > len(words):
            raise InputError(f"{file} ends inside row {len(found)}: {words[at]} ids, {len(words) - at - 1} words left")
        row = words[at + 1 : end]
        found.append(row[row >= 0][:k])
        at = end
    return found


def _is_json(file: Path) -> bool:
    return file.suffix == ".jsonl"


def _integers(line: str) -> list[int]:
    return [int(each) for each in line.split(",") if each.strip()]


def _json_label(line: str) -> int | str:
    label: int | str = json.loads(line)["label"]
    return label


def _json_range(line: str) -> tuple[int, int]:
    record = json.loads(line)
    return int(record["range_start"]), int(record["range_end"])


def _text_range(line: str) -> tuple[int, int]:
    parts = re.fullmatch(r"(-?\d+)-(-?\d+)", line)
    if parts is None:
        raise ValueError("it is not of the form low-high")
    return int(parts[1]), int(parts[2])


def _parsed(file: Path, parse: Callable[[str], Any]) -> list[Any]:
    found = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            found.append(parse(line.strip()))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file}, line {number} is {line[:80]!r}: {error!r}") from None
    return found
