"""Files of an evaluation of relevance: judgments (qrels) and the texts of queries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qvec.common.errors import InputError
from qvec.datasets.files import PathLike, existing_file
from qvec.datasets.sidecars import load_json, read_lines

Judgments = dict[str, dict[str, float]]
"""For each query, the grades of documents."""
_ID_KEYS, _TEXT_KEYS = ("_id", "id"), ("text", "question", "query")


def load_judgments(path: PathLike) -> Judgments:
    """Read a file of judgments: ``query document grade`` (BEIR) or ``query iteration document grade`` (TREC).

    Columns are separated by tabs, or by spaces. A first line whose last column is no number is a heading. Raises
    NotFoundError, or InputError that names the line.
    """
    file = existing_file(path)
    found: Judgments = {}
    for number, line in read_lines(file):
        cells = line.split("\t") if "\t" in line else line.split()
        if not cells or (number == 1 and _grade(cells[-1]) is None):
            continue
        if len(cells) not in (3, 4):
            raise InputError(
                f"{file}, line {number}: {len(cells)} columns; query, document and grade are 3, TREC has 4"
            )
        query, document, grade = cells[0].strip(), cells[-2].strip(), _grade(cells[-1])
        if grade is None or grade < 0:
            raise InputError(f"{file}, line {number}: the grade {cells[-1]!r} is not a number of 0 or above")
        if document in found.setdefault(query, {}):
            raise InputError(f"{file}, line {number}: query {query!r} has document {document!r} twice")
        found[query][document] = grade
    if not found:
        raise InputError(f"{file} has no judgments")
    return found


def load_texts(path: PathLike) -> dict[str, str]:
    """Read the texts of queries by their names, in order.

    A ``.jsonl`` file has an object per line with a ``text`` (or ``question``, ``query``) and an ``_id`` (or ``id``);
    another file is text with a query per line. Without an id, the name is the number of the line, from 0. Raises
    NotFoundError, or InputError that names the line.
    """
    file = existing_file(path)
    found: dict[str, str] = {}
    for number, (name, text) in enumerate(_texts(file), 1):
        if name in found:
            raise InputError(f"{file}, line {number}: the name {name!r} occurs twice")
        found[name] = text
    if not found:
        raise InputError(f"{file} has no texts")
    return found


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    is_json = ".jsonl" in file.name.lower()[-9:]
    for number, line in read_lines(file):
        if not is_json:
            yield str(number - 1), line.rstrip("\r")
            continue
        value = load_json(file, number, line)
        text = next((value[key] for key in _TEXT_KEYS if key in value), None) if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise InputError(f"{file}, line {number}: there is no text under {', '.join(_TEXT_KEYS)}")
        yield str(next((value[key] for key in _ID_KEYS if key in value), number - 1)), text


def _grade(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
