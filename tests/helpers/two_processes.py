"""A small program as one would write it for sqlite3: two processes and a pool of threads on one file, and no locks.

A watcher process ingests notes in batches, replaces edited ones and deletes old ones. A server process answers from a
pool of threads, which also count what was read and store bookmarks. ``python two_processes.py FOLDER`` runs both
and prints a summary.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import qvec

DIM = 32
NOTES, EDITS, DELETES, QUESTIONS, BOOKMARKS = 240, 60, 40, 200, 50


def embed(text: str) -> np.ndarray:
    """A vector of a text: one random direction for each word."""
    total = np.zeros(DIM, np.float32)
    for word in text.lower().split():
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little")
        total += np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return total


# --- the store of notes, which both processes use ---


@dataclass
class Notes:
    """Notes under their names, with tags."""

    path: Path

    def __post_init__(self) -> None:
        self.db = qvec.create(
            self.path, DIM, ids="str", fields={"tag": "keyword", "reads": "int"}, exist_ok=True, timeout=60
        )

    def ingest(self, notes: dict[str, str], tag: str) -> None:
        """Add or replace notes."""
        payloads = [{"text": text, "tag": tag, "reads": 0} for text in notes.values()]
        self.db.upsert(np.stack([embed(text) for text in notes.values()]), list(notes), payloads)

    def edit(self, name: str, text: str) -> None:
        """Replace the text of a note and keep its count."""
        with self.db.transaction():
            old = self.db.get([name]).payloads[0]
            assert old is not None
            self.db.upsert(embed(text), [name], {**old, "text": text})

    def forget(self, names: list[str]) -> int:
        """Delete notes."""
        return self.db.delete(names)

    def ask(self, question: str, tag: str | None = None) -> list[tuple[str, str]]:
        """The three nearest notes, and their texts."""
        where = None if tag is None else {"tag": tag}
        hits = self.db.search(embed(question), 3, where=where)
        return [(str(name), payload["text"]) for name, payload in zip(hits.ids, hits.payloads, strict=True) if payload]

    def count_read(self, name: str) -> bool:
        """Add one to the count of a note; False if it is gone."""
        with self.db.transaction():
            found = self.db.get([name], missing="ignore").payloads
            if not found or found[0] is None:
                return False
            self.db.update_payloads([name], {"reads": found[0]["reads"] + 1})
            return True

    def bookmark(self, name: str, number: int) -> None:
        """Store a copy of a note under a name of its own."""
        self.ingest({f"bookmark-{number}": f"see {name}"}, "bookmark")

    def close(self) -> None:
        """Close the file."""
        self.db.close()


# --- the two processes ---


def text_of(number: int, version: int = 0) -> str:
    """The text of a note."""
    topics = ["garden", "kitchen", "train", "harbor", "library", "mountain"]
    return f"note {number} about the {topics[number % len(topics)]} in version {version}"


def watch(path: Path) -> dict[str, Any]:
    """Ingest notes in batches, edit some and delete others."""
    notes = Notes(path)
    for first in range(0, NOTES, 20):
        notes.ingest({f"note-{i}": text_of(i) for i in range(first, first + 20)}, "watched")
    for number in range(EDITS):
        notes.edit(f"note-{number}", text_of(number, 1))
    deleted = notes.forget([f"note-{i}" for i in range(NOTES - DELETES, NOTES)])
    notes.close()
    return {"deleted": deleted}


def serve(path: Path) -> dict[str, Any]:
    """Answer questions in a pool of threads; count reads and store bookmarks."""
    notes = Notes(path)

    def answer(number: int) -> int:
        found = notes.ask(text_of(number % NOTES), "watched" if number % 2 else None)
        return sum(notes.count_read(name) for name, _ in found[:1])

    def mark(number: int) -> None:
        notes.bookmark(f"note-{number}", number)

    while not len(notes.db):  # until the first notes are there
        time.sleep(0.01)
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(answer, number) for number in range(QUESTIONS)]
        marks = [pool.submit(mark, number) for number in range(BOOKMARKS)]
        counted = sum(task.result() for task in answers)
        for task in marks:
            task.result()
    notes.close()
    return {"counted": counted}


def main(folder: Path) -> dict[str, Any]:
    """Run both processes; what they did, and what the file has."""
    path = folder / "notes.qvec"
    command = [sys.executable, __file__, str(path)]
    started = [subprocess.Popen([*command, role], stdout=subprocess.PIPE, text=True) for role in ("watch", "serve")]
    done: dict[str, Any] = {}
    for process in started:
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 0, said
        done |= json.loads(said)
    with qvec.open(path, "r") as db:
        payloads = {str(i): record for part in db.scan() for i, record in zip(part.ids, part.payloads, strict=True)}
        reads = sum(record["reads"] for record in payloads.values())
        edited = sum("version 1" in record["text"] for record in payloads.values())
        return {**done, "notes": len(payloads), "reads": reads, "edited": edited, "problems": db.verify()}


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(json.dumps(main(Path(sys.argv[1]))))
    else:
        print(json.dumps((watch if sys.argv[2] == "watch" else serve)(Path(sys.argv[1]))))
