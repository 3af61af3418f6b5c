"""The steps of the demo, and the first three: build a store, ask it, and ask it from another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from qvec.collection.open import create
from qvec.collection.open import open as open_collection
from qvec.common.console import WIDTH, emphasize, human_bytes, print_text, progress
from qvec.common.errors import QvecError
from qvec.common.text_tables import shortened
from qvec.demo.corpus import MODEL, Corpus
from qvec.search.results import BatchHits

BATCH = 500
SHOWN = (374, 363, 355, 3, 320)  # rows of questions that need no context to judge
TOP = 3
SNIPPET = 240  # characters around the answer, about three lines
PARTS = {"file_bytes": "", "codes_bytes": "codes", "graph_bytes": "graph", "vectors_bytes": "float32 vectors"}


@dataclass(frozen=True)
class Demo:
    """``store``: the file of the collection. ``folder``: for other files. ``found``: the results of earlier steps."""

    corpus: Corpus
    store: Path
    folder: Path
    found: dict[str, Any]


class Step(ABC):
    """A step of the demo. ``name``: of its result."""

    name: ClassVar[str]

    def __init__(self, demo: Demo) -> None:
        self.demo, self.corpus = demo, demo.corpus

    @property
    @abstractmethod
    def title(self) -> str:
        """What the step does."""

    @abstractmethod
    def run(self) -> Any:
        """Do it; the result as plain data."""

    @abstractmethod
    def show(self, result: Any) -> None:
        """Print a result."""


class Storing(Step):
    """Creates the store and adds the passages, a batch at a time."""

    name = "stored"

    def __init__(self, demo: Demo) -> None:
        """Raises ExistsError and other errors of :func:`qvec.create` before anything is printed."""
        super().__init__(demo)
        dim = self.corpus.vectors.shape[1]
        self.db = create(demo.store, dim, metric="cosine", code="int8", index="hnsw", model=MODEL)

    @property
    def title(self) -> str:
        n, dim = self.corpus.vectors.shape
        return f"Store {n:,} passages of Wikipedia with their {MODEL} embeddings ({dim} dimensions)"

    def run(self) -> dict[str, Any]:
        n, start = len(self.corpus.vectors), time.perf_counter()
        with self.db as db, progress("adding passages", "passages") as report:
            for first in range(0, n, BATCH):
                rows = slice(first, first + BATCH)
                db.add(self.corpus.vectors[rows], payloads=self.corpus.passages[rows])  # ids are row numbers
                report(min(first + BATCH, n), n)
            seconds, stats = time.perf_counter() - start, db.stats()
        return {"seconds": seconds, "count": stats.count, **{name: getattr(stats, name) for name in PARTS}}

    def show(self, result: dict[str, Any]) -> None:
        count, seconds = result["count"], result["seconds"]
        named = ", ".join(f"{text} {human_bytes(result[name])}" for name, text in PARTS.items() if text)
        say(f"{count:,} passages in {seconds:.1f} s ({count / seconds:,.0f} a second), {BATCH} a commit.")
        say(f"One file of {human_bytes(result['file_bytes'])}: {named}, texts and ids.")


class Answers(Step):
    """Finds the nearest passages of some questions."""

    name = "answers"
    title = f"Ask {len(SHOWN)} questions: the {TOP} nearest passages, cosine similarity first"

    def run(self) -> list[dict[str, Any]]:
        with open_collection(self.demo.store, mode="r") as db:
            hits: BatchHits = db.search(self.corpus.queries[list(SHOWN)], TOP)
        texts = (self.corpus.questions[row].text for row in SHOWN)
        return [
            {"row": row, "question": text, "hits": found}
            for row, text, found in zip(SHOWN, texts, hits.to_list(), strict=True)
        ]

    def show(self, result: list[dict[str, Any]]) -> None:
        for answer in result:
            print(f"\n  Q: {answer['question']}")
            _print_hits(answer, self.corpus)


class SecondProcess(Step):
    """Asks the first question again through the command line in a process of its own."""

    name = "second_process"
    title = "Open the file in another process and ask again"

    def run(self) -> dict[str, Any]:
        """Raises QvecError if that process fails or finds other passages."""
        first, queries = self.demo.found[Answers.name][0], self.demo.folder / "questions.npy"
        np.save(queries, self.corpus.queries)
        row = str(first["row"])
        command = ["search", str(self.demo.store), str(queries), "--row", row, "-k", str(TOP), "--json"]
        process = subprocess.Popen(
            [sys.executable, "-m", "qvec", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        output, errors = process.communicate()
        if process.returncode != 0:
            raise QvecError(f"another process could not search {self.demo.store}: {errors.strip()}")
        hits = json.loads(output)["hits"]
        if [hit["id"] for hit in hits] != [hit["id"] for hit in first["hits"]]:
            raise QvecError(f"another process found other passages: {hits}")
        pids = {"writer": os.getpid(), "reader": process.pid}
        return {"command": ["qvec", *command], **pids, "row": first["row"], "hits": hits}

    def show(self, result: dict[str, Any]) -> None:
        print(f"  $ {' '.join(result['command'])}")
        _print_hits(result, self.corpus)
        say(f"Process {result['reader']} read the file that process {result['writer']} wrote: the same passages.")


def say(text: str) -> None:
    """Print a sentence about the result of a step."""
    print_text(text, "  ")


def _print_hits(answer: dict[str, Any], corpus: Corpus) -> None:
    for hit in answer["hits"]:
        _print_hit(hit, corpus.questions[answer["row"]].answers)


def _print_hit(hit: dict[str, Any], answers: tuple[str, ...]) -> None:
    payload = hit["payload"]
    mark = "✓" if any(answer in payload["text"] for answer in answers) else " "
    say(f" {mark} {hit['score']:.3f}  {payload['title']}")
    snippet = _around(payload["text"], answers)
    indent = " " * 12
    block = textwrap.fill(snippet, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    print(emphasize(block, answers))


def _around(text: str, answers: tuple[str, ...]) -> str:
    """The part of a passage that a reader needs: the answer's surroundings, or the beginning."""
    places = [text.find(answer) for answer in sorted(answers, key=len, reverse=True)]
    place = next((place for place in places if place >= 0), 0)
    start = max(0, min(place - SNIPPET // 2, len(text) - SNIPPET))
    if start:
        start = text.find(" ", start) + 1
    return ("… " if start else "") + shortened(text[start:], SNIPPET)
