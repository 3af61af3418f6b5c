"""Files with one id, or one payload, for each row of a file of vectors."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvec.common.errors import InputError
from qvec.datasets.files import PathLike, existing_file

Ids = NDArray[np.int64] | list[str]
Payload = dict[str, Any]

INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
INT64 = np.iinfo(np.int64)


def load_ids(path: PathLike) -> Ids:
    """Read one id for each row: int64 (n,), or strings.

    A ``.npy`` file has integers or strings (1-D). A ``.jsonl`` or ``.jsonl.gz`` file has a JSON string or integer per
    line. Other files are UTF-8 text with an id per line; the ids are integers if all lines are integers in canonical
    form (``7``, not ``007``), otherwise strings.

    Raises NotFoundError, or InputError that names the line or the dtype.
    """
    file = existing_file(path)
    if file.suffix.lower() == ".npy":
        return _npy_ids(file)
    return _json_ids(file) if ".jsonl" in file.name.lower()[-9:] else _text_ids(file)


def load_payloads(path: PathLike) -> list[Payload | None]:
    """Read a ``.jsonl`` or ``.jsonl.gz`` file with a JSON object, or null, per line.

    Raises NotFoundError, or InputError that names the file and the line.
    """
    file = existing_file(path)
    return [_parse(file, number, line) for number, line in read_lines(file)]


def _npy_ids(file: Path) -> Ids:
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{file} is not a readable .npy file: {error}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{file} is an .npz archive; ids are in an .npy file")
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        kind = f"shape {array.shape} and dtype {array.dtype}"
        raise InputError(f"{file} has {kind}; ids are 1-D integers or strings")
    if array.dtype.kind == "U":
        return [str(value) for value in array]
    above = np.flatnonzero(array > INT64.max)
    if above.size:
        raise InputError(f"{file}: row {above[0]} has id {array[above[0]]}; the limit is {INT64.max}")
    return np.asarray(array, np.int64)


def _text_ids(file: Path) -> Ids:
    values = []
    for number, line in read_lines(file):
        if not line:
            raise InputError(f"{file}, line {number}: an id is missing")
        values.append(line)
    if not all(INTEGER.fullmatch(value) for value in values):
        return values
    return _as_int64(file, [int(value) for value in values])


def _json_ids(file: Path) -> Ids:
    values = [load_json(file, number, line) for number, line in read_lines(file)]
    kind = type(values[0]) if values else int
    for number, value in enumerate(values, 1):
        if type(value) is not kind or kind not in (int, str):
            raise InputError(f"{file}, line {number}: ids are strings, or integers, all of one kind; got {value!r}")
    return values if kind is str else _as_int64(file, values)


def _as_int64(file: Path, values: list[int]) -> NDArray[np.int64]:
    for row, value in enumerate(values):
        if not INT64.min <= value <= INT64.max:
            raise InputError(f"{file}, line {row + 1}: {value} does not fit into 64 bits")
    return np.array(values, np.int64)


def _parse(file: Path, number: int, line: str) -> Payload | None:
    value = load_json(file, number, line)
    if value is not None and not isinstance(value, dict):
        raise InputError(f"{file}, line {number}: a payload is an object or null, not {type(value).__name__}")
    return value


def load_json(file: Path, number: int, line: str) -> Any:
    """Parse one line of JSON. Raises InputError that names the line."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}, line {number}: not JSON: {error}") from error


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield lines, numbered from 1. Only newlines end a line: JSON strings may have other line separators."""
    opener = gzip.open if file.suffix.lower() == ".gz" else open
    number = 0
    try:
        with opener(file, "rt", encoding="utf-8-sig", newline="\n") as text:
            for number, line in enumerate(text, 1):
                yield number, line.removesuffix("\n").removesuffix("\r")
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{file}, after line {number}: {error}") from error
