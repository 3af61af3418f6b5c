"""The demo: a collection of real passages, searched with real questions; and a comparison of codes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from qvec.demo.comparison import print_comparison
from qvec.demo.corpus import load_corpus
from qvec.demo.steps import answer_questions, ask_from_another_process, build_store


def run_demo(path: Path | None = None) -> None:
    """Run the demo and print the results. The collection remains at ``path`` if one is given.

    Raises ExistsError if ``path`` exists, and QvecError if another process gets other answers.
    """
    corpus = load_corpus()
    with tempfile.TemporaryDirectory(prefix="qvec-") as name:
        folder = Path(name)
        store = folder / "demo.qvec" if path is None else path
        build_store(store, corpus)
        answers = answer_questions(store, corpus)
        ask_from_another_process(store, folder, corpus, answers)
        print_comparison(folder, corpus)
    if path is not None:
        print(f"\nThe store is in {path}. Try: qvec info {path}; qvec search {path} --id 0 -k 5")
