"""Passages and questions of the package qvec-demo-data, which a checkout has in demo_data/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvec.common.errors import InputError, MissingExtraError
from qvec.common.extras import find
from qvec.datasets import Workload, exact_knn, load_payloads, load_vectors
from qvec.datasets.workload import DEPTH

MODEL = "all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Question:
    """A question, the row of the passage that answers it, and the answers in its text."""

    text: str
    passage: int
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """``vectors`` (n, dim) and ``queries`` (q, dim): unit embeddings of the passages and the questions."""

    vectors: NDArray[np.float32]
    passages: list[dict[str, Any]]
    queries: NDArray[np.float32]
    questions: list[Question]


def data_folder() -> Path:
    """The folder of the package qvec-demo-data. Raises MissingExtraError with the command that installs it."""
    module = find("qvec_demo_data")
    if module is None:
        raise MissingExtraError(
            "the package qvec-demo-data, which has the passages and questions, is not installed. It is the folder "
            "demo_data of a checkout and of the archive of the sources; install it there with: pip install ./demo_data"
        )
    folder: Path = module.FOLDER
    return folder


def load_corpus() -> Corpus:
    """Load everything into memory (8 MB). Raises MissingExtraError without the package qvec-demo-data."""
    folder = data_folder()
    return Corpus(
        np.array(load_vectors(folder / "passages.npy"), np.float32),
        _records(folder / "passages.jsonl.gz"),
        np.array(load_vectors(folder / "questions.npy"), np.float32),
        [_question(record) for record in _records(folder / "questions.jsonl.gz")],
    )


class StoredEmbedder:
    """A function for ``embed=`` that needs no model: it knows the texts of the corpus and their stored embeddings."""

    model = MODEL

    def __init__(self, corpus: Corpus) -> None:
        texts = [*(passage["text"] for passage in corpus.passages), *(question.text for question in corpus.questions)]
        self._vectors = dict(zip(texts, (*corpus.vectors, *corpus.queries), strict=True))

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        """Return the vectors of texts, float32 [n, 384]. InputError names a text that the corpus does not have."""
        for text in texts:
            if text not in self._vectors:
                raise InputError(f"{text[:80]!r} is not a text of the demo; embed other texts with a model ({MODEL})")
        return np.stack([self._vectors[text] for text in texts])


def demo_workload(k: int = 10, rows: int | None = None, max_queries: int | None = None) -> Workload:
    """Return the passages and questions, or the first of each, with at least ``k`` exact neighbors per question."""
    corpus = load_corpus()
    base, queries = corpus.vectors[:rows], corpus.queries[:max_queries]
    return Workload("demo", "cosine", base, queries, exact_knn(base, queries, max(k, DEPTH), "cosine")[0])


def _records(file: Path) -> list[dict[str, Any]]:
    return [record for record in load_payloads(file) if record is not None]


def _question(line: dict[str, Any]) -> Question:
    return Question(line["question"], line["passage"], tuple(line["answers"]))
