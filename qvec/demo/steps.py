"""The first three steps of the demo: build a store, ask it, and ask it from another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np

from qvec.collection.open import create
from qvec.collection.open import open as open_collection
from qvec.common.console import WIDTH, emphasize, heading, human_bytes, progress, shortened
from qvec.common.errors import QvecError
from qvec.demo.corpus import MODEL, Corpus
from qvec.search.results import BatchHits

BATCH = 500
SHOWN = (374, 363, 355, 3, 320)  # rows of questions that need no context to judge
TOP = 3
SNIPPET = 240  # characters around the answer, about three lines

Answers = dict[int, list[dict[str, Any]]]


def build_store(path: Path, corpus: Corpus) -> None:
    """Create the store and add the passages, a batch at a time."""
    n, dim = corpus.vectors.shape
    start = time.perf_counter()
    with create(path, dim, metric="cosine", code="int8", index="hnsw", model=MODEL) as db:
        heading(f"1. Store {n:,} passages of Wikipedia with their {MODEL} embeddings ({dim} dimensions)")
        with progress("adding passages", "passages") as report:
            for first in range(0, n, BATCH):
                rows = slice(first, first + BATCH)
                db.add(corpus.vectors[rows], payloads=corpus.passages[rows])  # ids are row numbers
                report(min(first + BATCH, n), n)
        seconds, stats = time.perf_counter() - start, db.stats()
    parts = {"codes": stats.codes_bytes, "graph": stats.graph_bytes, "float32 vectors": stats.vectors_bytes}
    named = ", ".join(f"{name} {human_bytes(size)}" for name, size in parts.items())
    print(f"  {stats.count:,} passages in {seconds:.1f} s ({n / seconds:,.0f} a second), {BATCH} a commit.")
    print(f"  One file of {human_bytes(stats.file_bytes)}: {named}, texts and ids.")


def answer_questions(path: Path, corpus: Corpus) -> Answers:
    """Print the nearest passages of some questions, and return them by the question's row."""
    heading(f"2. Ask {len(SHOWN)} questions: the {TOP} nearest passages, cosine similarity first")
    with open_collection(path, mode="r") as db:
        hits_of_all: BatchHits = db.search(corpus.queries[list(SHOWN)], TOP)
        found = dict(zip(SHOWN, hits_of_all.to_list(), strict=True))
    for row, hits in found.items():
        question = corpus.questions[row]
        print(f"\n  Q: {question.text}")
        for hit in hits:
            _print_hit(hit, question.answers)
    return found


def ask_from_another_process(path: Path, folder: Path, corpus: Corpus, answers: Answers) -> None:
    """Ask the first question again through the command line in a process of its own.

    Raises QvecError if that process fails or finds other passages.
    """
    heading("3. Open the file in another process and ask again")
    row = SHOWN[0]
    queries = folder / "questions.npy"
    np.save(queries, corpus.queries)
    arguments = ["search", str(path), str(queries), "--row", str(row), "-k", str(TOP), "--json"]
    print(f"  $ qvec {' '.join(arguments)}")
    process = subprocess.Popen(
        [sys.executable, "-m", "qvec", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    output, errors = process.communicate()
    if process.returncode != 0:
        raise QvecError(f"another process could not search {path}: {errors.strip()}")
    hits = json.loads(output)["hits"]
    if [hit["id"] for hit in hits] != [hit["id"] for hit in answers[row]]:
        raise QvecError(f"another process found other passages: {hits}")
    for hit in hits:
        _print_hit(hit, corpus.questions[row].answers)
    print(f"  Process {process.pid} read the file that process {os.getpid()} wrote: the same passages.")


def _print_hit(hit: dict[str, Any], answers: tuple[str, ...]) -> None:
    payload = hit["payload"]
    mark = "✓" if any(answer in payload["text"] for answer in answers) else " "
    print(f"   {mark} {hit['score']:.3f}  {payload['title']}")
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
