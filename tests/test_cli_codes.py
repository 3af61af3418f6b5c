"""The commands that measure and change codes, on a store that the tests write."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import qvec
from helpers.command_line import run_command
from helpers.vectors import clustered

DIM = 24
X = clustered(np.random.default_rng(4), 1500, DIM)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("q.npy", X[:100] + np.float32(0.01))
    with qvec.create("s.qvec", DIM, code=qvec.Int8(scale="per_dim")) as db:
        db.add(X)

    return partial(run_command, capsys)


def stats() -> qvec.Stats:
    with qvec.open("s.qvec", mode="r") as db:
        assert db.verify() == []
        return db.stats()


def test_evaluate_prints_what_the_library_finds(run: Run) -> None:
    code, out, _ = run("evaluate", "s.qvec", "--queries", "q.npy", "--codes", "f32,binary", "-k", "5", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    with qvec.open("s.qvec", mode="r") as db:
        report = db.evaluate(np.load("q.npy"), 5, ["f32", "binary"])
    assert code == 0
    assert [(row["code"], row["recall"]) for row in rows] == [(row.code, row.recall) for row in report.rows]
    code, out, _ = run("evaluate", "s.qvec", "-n", "50", "--codes", "int8")
    assert (code, "50 held-out rows" in out, "oversample" in out) == (0, True, True)


@pytest.mark.slow
def test_choose_applies_the_code_that_it_names(run: Run) -> None:
    code, out, _ = run(
        "choose", "s.qvec", "--indexes", "current", "--recall", "0.9", "--codes", "binary,int8,f32", "--apply"
    )
    assert code == 0
    assert "the smallest code whose lower bound meets recall@10 of 0.9" in " ".join(out.split())
    assert (stats().generation, f"{stats().code} (" in out) == (1, True)
    code, out, _ = run("choose", "s.qvec", "--indexes", "current", "--recall", "0.9", "--max-bytes", "1")
    assert (code, "no code meets" in out) == (1, True)
    assert stats().generation == 1


@pytest.mark.slow
def test_choose_compares_indexes_and_applies_the_best(run: Run) -> None:
    options = "choose", "s.qvec", "--recall", "0.9", "--codes", "int8,f32", "--indexes", "flat,ivf"
    code, out, _ = run(*options, "--apply", "--json")
    found = json.loads(out)
    assert (code, found["met"], found["generation"]) == (0, True, 1)
    assert {row["index"] for row in found["measured"]} <= {"flat", "ivf"}
    assert (stats().code, stats().index) == (found["chosen"]["code"], found["chosen"]["index"])
    code, out, _ = run(*options, "--max-bytes", "1")
    assert (code, "no combination of 0 meets recall@10 of 0.9 within 1 bytes" in " ".join(out.split())) == (1, True)


def test_drift_exits_with_one_on_an_alarm(run: Run) -> None:
    code, out, _ = run("drift", "s.qvec", "--json")
    assert (code, json.loads(out)["level"]) == (0, "none")
    with qvec.open("s.qvec") as db:
        db.add((3 * X + 5).astype(np.float32) * np.where(np.arange(DIM) % 2, 1, -1).astype(np.float32))
    code, out, _ = run("drift", "s.qvec")
    assert (code, "alarm" in out, "requantize()" in out) == (1, True, True)


def test_requantize_changes_the_code_and_rolls_it_back(run: Run) -> None:
    code, out, _ = run("requantize", "s.qvec", "binary", "--relink", "no")
    assert (code, "generation 1 is active: binary" in out, stats().code) == (0, True, "binary")
    assert run("requantize", "s.qvec", "--rollback", "0")[0] == 0
    assert (stats().code, stats().generation) == ("int8", 0)
    assert run("requantize", "s.qvec", "--generation", "1")[0] == 0
    assert stats().generation == 1
    code, _, error = run("requantize", "s.qvec", "int8", "--rollback", "0")
    assert (code, "--rollback goes without" in error) == (2, True)


def test_generations_are_trained_moved_listed_and_dropped(run: Run) -> None:
    exported = run("generations", "s.qvec", "--export", "0")[1]
    Path("c.json").write_text(exported)
    assert run("generations", "s.qvec", "--train", "x.npy", "--method", "percentile")[0] == 0
    code, out, _ = run("generations", "s.qvec", "--import", "c.json", "--activate", "--json")
    made = [json.loads(line) for line in out.splitlines()]
    assert (code, [row["number"] for row in made], made[0]["id"] == made[2]["id"]) == (0, [0, 1, 2], True)
    assert [row["active"] for row in made] == [False, False, True]
    code, out, _ = run("generations", "s.qvec", "--drop", "0", "--json")
    assert (code, "percentile" in out, stats().generation) == (0, True, 2)
    assert run("generations", "s.qvec", "--drop", "2")[0] == 2
