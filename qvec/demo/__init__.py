"""The demo: a collection of real passages, searched with real questions; and a comparison of codes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from qvec.common.console import heading
from qvec.demo.comparison import Comparison
from qvec.demo.corpus import load_corpus
from qvec.demo.hybrid import Hybrid
from qvec.demo.steps import Answers, Demo, SecondProcess, Step, Storing

STEPS: tuple[type[Step], ...] = (Storing, Answers, SecondProcess, Hybrid, Comparison)


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
    if path is not None and show:
        print(f"\nThe store is in {path}. Try: qvec info {path}; qvec search {path} --id 0 -k 5")
    return found
