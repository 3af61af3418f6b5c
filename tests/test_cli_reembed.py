"""`qvec reembed`: another embedding model from the command line."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.command_line import run_command


def model_of(dim: int) -> Any:
    def embed(texts: list[str]) -> np.ndarray:
        return np.array([[1.0 + text.count(chr(97 + i)) for i in range(dim)] for text in texts])

    embed.model = f"fastembed:{dim}"  # type: ignore[attr-defined]
    return embed


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qvec.cli.reembed.embedder", lambda text: None if text is None else model_of(int(text)))
    with qvec.create("s.qvec", 4, embed=model_of(4)) as db:
        db.add(texts=["abc", "bcd", "zzz"])
    return partial(run_command, capsys)


def test_the_model_is_changed_and_changed_back(run: Any) -> None:
    code, out, _ = run("reembed", "s.qvec", "--embed", "6", "--json")
    assert (code, json.loads(out)) == (0, {"dim": 6, "model": "fastembed:6", "count": 3})
    code, out, _ = run("reembed", "s.qvec", "--undo")
    assert (code, out) == (0, "3 vectors of 4 dimensions, model fastembed:4\n")
    assert run("reembed", "s.qvec", "--embed", "6")[1] == "3 vectors of 6 dimensions, model fastembed:6\n"
    assert run("reembed", "s.qvec", "--discard")[1] == "the other collection was removed\n"
    assert run("reembed", "s.qvec", "--discard")[1] == "there is no other collection\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "as --embed"), (("--undo", "--discard"), "--undo or --discard"), (("--undo",), "has not replaced another")],
)
def test_what_is_missing_is_named(run: Any, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run("reembed", "s.qvec", *arguments)
    assert code == 2
    assert message in err


def test_vectors_without_texts_are_left_out_on_request(run: Any) -> None:
    with qvec.open("s.qvec") as db:
        db.add(np.ones((1, 4)), [9])
    assert "id 9 has no text" in run("reembed", "s.qvec", "--embed", "6")[2]
    assert run("reembed", "s.qvec", "--embed", "6", "--skip-missing")[1].startswith("3 vectors of 6")
