"""The demo: a collection of real passages, searched with real questions; and a comparison of codes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from qvec.common.console import heading, print_text
from qvec.demo.comparison import Comparison
from qvec.demo.corpus import load_corpus
from qvec.demo.hybrid import Hybrid
from qvec.demo.indexes import Indexes
from qvec.demo.steps import Answers, Demo, SecondProcess, Step, Storing

STEPS: tuple[type[Step], ...] = (Storing, Answers, SecondProcess, Hybrid, Comparison, Indexes)


def run_demo(path: Path | None = None, *, show: bool = True) -> dict[str, Any]:
    """Run the demo; what each step found, as plain data. The collection remains at ``path`` if one is given.

    ``show``: print each step and its result.

    Raises ExistsError if ``path`` exists, and QvecError if another process gets other answers.
    """
    corpus = load_corpus()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="qvec-") as name:
        folder = Path(name)
        demo = Demo(corpus, folder / "demo.qvec" if path is None else path, folder, found)
        for number, kind in enumerate(STEPS, 1):
            step = kind(demo)
            if show:
                heading(f"{number}. {step.title}")
            found[step.name] = result = step.run()
            if show:
                step.show(result)
    if show:
        heading("Try next")
        for command, about in next_commands(path):
            print(f"  $ {command}")
            print_text(about, "      ")
    return found


def next_commands(path: Path | None) -> list[tuple[str, str]]:
    """Return three commands to try after the demo, and what they do. ``path``: the store that it left."""
    if path is None:
        of_store = [
            ("qvec demo --path demo.qvec", "leaves the store of the demo in a file, to search in it"),
            ("qvec import mine.qvec vectors.npy", "stores your own vectors; qvec import --help lists other formats"),
        ]
    else:
        of_store = [
            (f"qvec search {path} --id 0 -k 5", "finds the passages that are nearest to the first one"),
            (f"qvec report {path}", "writes a page about the store: sizes, codes, recall, drift and latency"),
        ]
    bench = "qvec bench demo --indexes hnsw packed --peers all --out bench"
    return [*of_store, (bench, "compares speed, recall and memory with the installed libraries, in bench/report.html")]
