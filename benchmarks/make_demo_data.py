"""Choose the passages and questions that ``qvec demo`` ships.

    python benchmarks/make_demo_data.py FOLDER

FOLDER holds a set of embedded passages and answerable questions:

- ``base.npy`` (n, dim) float16: unit embeddings of the passages; ``passages.jsonl.gz``: line i = row i: src,
  title, text;
- ``answerable.npy`` (q, dim) float16: unit embeddings of the questions; ``answerable.jsonl``: line i = row i:
  question,
  passage (the row that answers it), answers.

One question is taken for each passage that answers any, up to 400, then passages at random until there are
5,000. The same folder gives the same bytes: the seed is fixed and the gzip headers carry no time.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

N_PASSAGES, N_QUESTIONS, SEED = 5_000, 400, 20_240
TARGET = Path(__file__).resolve().parent.parent / "demo_data" / "qvec_demo_data"


def choose_questions(questions: list[dict[str, Any]], rng: np.random.Generator) -> list[int]:
    """Rows of one random question for each answering passage, in the order of the file."""
    by_passage: dict[int, int] = {}
    for row in rng.permutation(len(questions)).tolist():
        by_passage.setdefault(questions[row]["passage"], row)
    return sorted(list(by_passage.values())[:N_QUESTIONS])


def choose_passages(answering: Iterable[int], n: int, rng: np.random.Generator) -> list[int]:
    """The answering rows and random others, shuffled so that a row's number says nothing about it."""
    needed = set(answering)
    others = [row for row in rng.permutation(n).tolist() if row not in needed]
    return rng.permutation([*sorted(needed), *others[: N_PASSAGES - len(needed)]]).tolist()


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in text.decode().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    passages, questions = read_jsonl(folder / "passages.jsonl.gz"), read_jsonl(folder / "answerable.jsonl")
    rng = np.random.default_rng(SEED)
    asked = choose_questions(questions, rng)
    kept = choose_passages((questions[row]["passage"] for row in asked), len(passages), rng)
    new_row = {old: new for new, old in enumerate(kept)}
    TARGET.mkdir(parents=True, exist_ok=True)
    np.save(TARGET / "passages.npy", np.load(folder / "base.npy", mmap_mode="r")[kept])
    np.save(TARGET / "questions.npy", np.load(folder / "answerable.npy")[asked])
    write_jsonl(TARGET / "passages.jsonl.gz", (passages[row] for row in kept))
    write_jsonl(
        TARGET / "questions.jsonl.gz",
        ({**questions[row], "passage": new_row[questions[row]["passage"]]} for row in asked),
    )


if __name__ == "__main__":
    main()
