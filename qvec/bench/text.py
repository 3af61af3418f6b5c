"""Full-text search against other libraries: indexing rate, bytes, and queries/s of one thread, on the same tokens."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qvec.bench.text_contestants import CONTESTANTS, PEERS, Search, is_installed
from qvec.common.console import AnyProgress
from qvec.common.errors import InputError, NotFoundError
from qvec.text.analysis import split_words

PARTS = 20  # of the queries, in which contestants alternate
WARM_UP = 50  # queries before the first measured one
_TEXT_KEYS = ("text", "question", "query")


@dataclass(frozen=True)
class TextEntry:
    """A contestant. ``rows_per_s``, ``queries_per_s``: of a CPU second. ``bytes``: of its index. ``same``: the share of
    the first contestant's hits that it finds.
    """

    contestant: str
    rows_per_s: float
    bytes: int
    queries_per_s: float
    same: float


@dataclass(frozen=True)
class TextResult:
    """``entries``: qvec first. ``skipped``: peers that are not installed."""

    rows: int
    queries: int
    k: int
    entries: tuple[TextEntry, ...]
    skipped: tuple[str, ...]


def load_texts(folder: Path, rows: int | None, n_queries: int | None) -> tuple[list[str], list[list[str]]]:
    """The texts of passages as tokens joined by spaces, and the tokens of queries.

    The folder has ``passages.jsonl.gz`` (a line with ``text`` for each passage) and ``queries.jsonl`` (a line with
    ``text``, ``question`` or ``query``). With more rows than passages, further ones are made of random sentences of the
    others. Raises NotFoundError or InputError.
    """
    texts = [_text_of(line, ("text",), folder / "passages.jsonl.gz") for line in _lines(folder / "passages.jsonl.gz")]
    if rows is not None and rows > len(texts):
        texts += list(_made_of_sentences(texts, rows - len(texts)))
    queries = [_text_of(line, _TEXT_KEYS, folder / "queries.jsonl") for line in _lines(folder / "queries.jsonl")]
    asked = [words for text in queries[:n_queries] if (words := split_words(text))]
    if not texts or not asked:
        raise InputError(f"{folder} has {len(texts)} passages and {len(asked)} queries with words")
    return [" ".join(split_words(text)) for text in texts[:rows]], asked


def run_text(
    texts: Sequence[str], queries: Sequence[Sequence[str]], peers: Sequence[str], k: int, progress: AnyProgress
) -> TextResult:
    """Index the texts with qvec and with peers ("all": those that are installed), then measure all of them."""
    if wrong := sorted(set(peers) - {*PEERS, "all"}):
        raise InputError(f"--peers: there is no {wrong[0]!r}; with --text there are: {', '.join(PEERS)}")
    wanted = PEERS if "all" in peers else tuple(peers)
    names = ("qvec", *(name for name in wanted if is_installed(name)))
    made: dict[str, tuple[Search, int, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate(names):
            _warm_up(name, texts)
            begin = time.process_time()
            search, size = CONTESTANTS[name](texts, Path(folder))
            made[name] = search, size, time.process_time() - begin
            progress(i + 1, len(names) + 1)
        spent, found = _measured({name: search for name, (search, _, _) in made.items()}, queries, k)
        progress(len(names) + 1, len(names) + 1)
    entries = tuple(
        TextEntry(name, len(texts) / seconds, size, len(queries) / spent[name], _same(found["qvec"], found[name]))
        for name, (_, size, seconds) in made.items()
    )
    return TextResult(len(texts), len(queries), k, entries, tuple(name for name in wanted if name not in names))


def _warm_up(name: str, texts: Sequence[str]) -> None:
    """Index a few texts, so that the measured time has no imports in it."""
    with tempfile.TemporaryDirectory() as folder:
        CONTESTANTS[name](texts[: 2 * WARM_UP], Path(folder))


def _measured(
    searches: dict[str, Search], queries: Sequence[Sequence[str]], k: int
) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
    """CPU seconds of each contestant for all queries, and what it finds."""
    for search in searches.values():
        for words in queries[:WARM_UP]:
            search(words, k)
    spent = dict.fromkeys(searches, 0.0)
    found: dict[str, list[list[int]]] = {name: [] for name in searches}
    for part in np.array_split(np.arange(len(queries)), PARTS):
        for name, search in searches.items():
            begin = time.process_time()
            hits = [search(queries[i], k) for i in part.tolist()]
            spent[name] += time.process_time() - begin
            found[name] += hits
    return spent, found


def _same(expected: list[list[int]], found: list[list[int]]) -> float:
    total = sum(sum(row >= 0 for row in rows) for rows in expected)
    return sum(len({*a} & {*b} - {-1}) for a, b in zip(expected, found, strict=True)) / max(1, total)


def _made_of_sentences(texts: Sequence[str], n: int) -> Iterator[str]:
    """New passages: as many random sentences of all passages as a passage has."""
    rng = np.random.default_rng(0)
    sentences = [part for text in texts for part in re.split(r"(?<=[.!?])\s+", text)]
    for count in rng.poisson(len(sentences) / len(texts), n):
        yield " ".join(sentences[i] for i in rng.integers(0, len(sentences), max(1, count)))


def _lines(path: Path) -> list[Any]:
    if not path.exists():
        raise NotFoundError(
            f"{path} does not exist: --text measures on passages.jsonl.gz and queries.jsonl of a folder"
        )
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
            return [json.loads(line) for line in file]
    except ValueError as error:
        raise InputError(f"{path} is not JSON lines: {error}") from None


def _text_of(line: Any, keys: Sequence[str], path: Path) -> str:
    text = next((line[key] for key in keys if key in line), None) if isinstance(line, dict) else None
    if not isinstance(text, str):
        raise InputError(f"{path} has a line without {' or '.join(keys)}")
    return text
