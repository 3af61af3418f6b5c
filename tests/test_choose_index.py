"""choose() over codes and indexes: what it compares, what it chooses, and what apply() builds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.recall import recall
from helpers.vectors import clustered
from qvec.codes.configs import Flat, Int8
from qvec.common.types import Float32Array
from qvec.quality.choose import Target
from qvec.quality.combinations import Combination, IndexChoice, Limits, Parameters, Search

DIM, N = 32, 1500
CODES = ["int8", "int4", "binary"]


@pytest.fixture(scope="module")
def x() -> Float32Array:
    rng = np.random.default_rng(3)
    return clustered(rng, N + 400, DIM, 100) + rng.normal(size=(N + 400, DIM)).astype(np.float32)


def made(path: Path, x: Float32Array, **options: Any) -> qvec.Collection:
    db = qvec.create(path, DIM, **{"metric": "l2", "index": "hnsw", **options})
    db.add(x[:N])
    return db


@pytest.mark.slow
def test_the_best_of_the_measured_combinations_is_chosen(tmp_path: Path, x: Float32Array) -> None:
    with made(tmp_path / "a", x) as db:
        before = db.stats()
        fast = db.choose(0.9, queries=x[N:], codes=CODES, n=200, indexes="all")
        assert isinstance(fast, IndexChoice)
        assert fast.best is not None
        assert fast.best.low >= 0.9
        assert fast.best.mean_ms == min(one.mean_ms for one in fast.tried)
        assert {one.index for one in fast.screened} == {"flat", "hnsw", "packed", "ivf"}
        assert "packed' needs codes of at least 4 bits" in fast.skipped.get("binary with index packed", "needs none")
        small = db.choose(0.9, queries=x[N:], codes=CODES, n=200, minimize="bytes", indexes=["flat", "hnsw"])
        assert small.best is not None
        assert small.best.bytes == min(one.bytes for one in small.tried)
        assert small.best.bytes <= fast.best.bytes
        assert small.best.index == "flat"
        limited = db.choose(
            0.9, queries=x[N:], codes=CODES, n=200, max_bytes=small.best.bytes, indexes=["flat", "hnsw"]
        )
        assert limited.best is not None
        assert limited.best.bytes <= small.best.bytes
        assert "the fastest of" in str(limited) or "the fastest that" in str(limited)
        assert len(limited.to_dicts()) == len(limited.tried) + len(limited.screened)
        assert db.stats() == before


@pytest.mark.parametrize("fewest_bytes", [True, False])
def test_combinations_are_measured_until_one_is_within_the_limits(
    monkeypatch: pytest.MonkeyPatch, fewest_bytes: bool
) -> None:
    limits = Limits(Target(0.9, max_p99_ms=1.0), fewest_bytes)
    screened = [
        Combination(str(i), "flat", Int8(), Flat(), i, Parameters(0, 0, i), 0.95, 0.91, 0.2 * i, 1.2) for i in range(10)
    ]
    measured = []

    def of_engine(_: Search, engine: Any, coded: Any, index: Any, depths: list[int], *, certain: bool) -> Any:
        assert certain
        measured.append(depths[0])
        yield replace(screened[depths[0]], p99_ms=0.9 if depths[0] >= 7 else 1.1)

    monkeypatch.setattr(Search, "of_engine", of_engine)
    turns: list[int] = []
    monkeypatch.setattr(Search, "_find", lambda _, engine, query, effort: turns.append(effort.candidates))
    trial: Any = SimpleNamespace(code=lambda config: None, build=lambda index: None, engine=lambda coded, built: None)
    problem: Any = SimpleNamespace(queries=np.zeros((1, 2), np.float32))
    finals = Search(trial, problem, limits, {}).finals(screened)
    assert measured == list(range(8))
    assert turns == 3 * measured  # timed again, alternately
    assert all(one.mean_ms < 0.2 for one in finals)


def test_bad_choices_are_refused(tmp_path: Path, x: Float32Array) -> None:
    with made(tmp_path / "a", x) as db:
        for options, message in [
            ({"indexes": "hnsw"}, "'all', 'current', or a list"),
            ({"indexes": []}, "'all', 'current', or a list"),
            ({"indexes": ["auto"]}, "'auto' is none"),
            ({"indexes": ["tree"]}, "index must be"),
            ({"minimize": "space"}, "minimize"),
            ({"minimize": "time"}, "minimize='time'"),
            ({"indexes": "current", "minimize": "time"}, "minimize='time'"),
            ({"n": -1}, "n "),
        ]:
            with pytest.raises(qvec.InputError, match=message):
                db.choose(0.9, **options)
        nothing = db.choose(0.9, codes=["binary"], n=200, indexes=["flat"], max_bytes=1)
        assert not nothing.met
        with pytest.raises(qvec.InputError, match="no combination of 0 meets"):
            nothing.apply()


@pytest.mark.slow
@pytest.mark.parametrize("first", ["flat", "hnsw", "packed", "ivf"])
@pytest.mark.parametrize("then", ["flat", "hnsw", "packed", "ivf"])
def test_another_index_is_built_searched_written_and_rolled_back(
    tmp_path: Path, x: Float32Array, first: str, then: str
) -> None:
    if first == then:
        pytest.skip("nothing changes")
    with made(tmp_path / "a", x[: N - 200], index=first) as db:
        choice = db.choose(0.9, queries=x[N:], codes=["int8"], indexes=[then], n=200)
        generation = choice.apply()
        assert (db.index, generation.active) == ("hnsw" if then == "packed" else then, True)
        assert db.verify() == []
        exact = db.search(x[N:], exact=True).ids
        assert recall(db.search(x[N:], recall=0.85).ids, exact) >= 0.83
        db.add(x[N - 200 : N])
        db.delete(range(100))
        assert db.verify() == []
        exact = db.search(x[N:], exact=True).ids
        assert recall(db.search(x[N:]).ids, exact) >= 0.85
    with qvec.open(tmp_path / "a") as db:
        assert db.index == ("hnsw" if then == "packed" else then)
        assert recall(db.search(x[N:]).ids, exact) >= 0.85
        db.rollback(0)
        assert db.index == ("hnsw" if first == "packed" else first)
        assert db.verify() == []
        assert recall(db.search(x[N:]).ids, exact) >= 0.85
        db.drop_generation(generation.number)
        assert db.verify() == []
        db.requantize("int4")
        db.optimize()
        assert db.verify() == []


def test_rows_added_while_the_index_is_built_are_in_it(tmp_path: Path, x: Float32Array) -> None:
    with made(tmp_path / "a", x[:1000], index="flat") as db:
        choice = db.choose(0.8, queries=x[N:], codes=["int8"], indexes=["ivf"], n=100)
        added: list[int] = []

        def meanwhile(done: int, total: int) -> None:
            if not added:
                added.append(1)
                with qvec.open(tmp_path / "a") as other:
                    other.add(x[1000:1100])
                    other.delete([5, 6])

        choice.apply(meanwhile)
        assert (len(db), db.index) == (1098, "ivf")
        assert db.verify() == []
        assert db.search(x[1050], 1, nprobe=20).ids[0] == 1050
