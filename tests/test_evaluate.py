"""Evaluation against plain NumPy: its intervals, its report, and the choice of codes."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec.codes.configs import Binary, Int8, Mixed, RaBitQ, code_name
from qvec.codes.registry import CONFIGS
from qvec.common.types import Float32Array
from qvec.quality.choose import Choice, Target, choose, round_sizes
from qvec.quality.recall import nearest, wilson
from qvec.quality.report import Report, label_of

DIM, N = 24, 1500
METRICS = ("cosine", "ip", "l2")
PLAIN = [name for name in CONFIGS if name != "prequantized"]  # with names that fit into a line of a table


@pytest.fixture(scope="module")
def x() -> Float32Array:
    return clustered(np.random.default_rng(5), N + 200, DIM)


def distances(x: Float32Array, q: Float32Array, metric: str) -> np.ndarray[Any, Any]:
    x, q = x.astype(np.float64), q.astype(np.float64)
    if metric == "l2":
        return ((q[:, None] - x[None]) ** 2).sum(axis=2)
    if metric == "cosine":
        x, q = (y / np.linalg.norm(y, axis=1, keepdims=True) for y in (x, q))
    return -q @ x.T


@pytest.mark.parametrize("metric", METRICS)
def test_recall_of_rotated_codes_is_that_of_a_brute_force_comparison(
    tmp_path: Path, x: Float32Array, metric: Any
) -> None:
    base, queries = x[:N], x[N:]
    exact = np.argsort(distances(base, queries, metric), axis=1, kind="stable")[:, :10]
    with qvec.create(tmp_path / "a", DIM, metric=metric, code="binary") as db:
        db.add(base)
        found = db.search(queries, 10, oversample=0).ids
        wide = db.search(queries, 10, oversample=5).ids
        report = db.evaluate(queries, codes=["binary", "f32"], oversamples=(1, 5))
    plain, ranked, *floats = report.rows
    for row, ids in ((plain, found), (ranked, wide)):
        expected = np.mean([np.isin(a, b).mean() for a, b in zip(exact, ids, strict=True)])
        assert row.recall == pytest.approx(expected, abs=0.01)  # equal Hamming distances are cut either way
        assert row.low < row.recall < row.high
        assert row.code_loss == pytest.approx(1 - row.recall)
    assert [row.recall for row in floats] == pytest.approx([1.0, 1.0])
    assert (report.k, report.n, report.n_queries, report.held_out) == (10, N, 200, False)


def test_held_out_rows_do_not_find_themselves_nor_the_deleted(tmp_path: Path, x: Float32Array) -> None:
    duplicates = np.concatenate([x[:500], x[:500] + np.float32(1e-4)])
    with qvec.create(tmp_path / "a", DIM, metric="l2", index=qvec.HNSW(m=8, ef_construction=80)) as db:
        db.add(duplicates)
        db.delete(range(500))
        report = db.evaluate(k=1, codes=["f32"], oversamples=(1,), n=300)
        (row,) = report.rows
        assert (report.n, report.n_queries, report.held_out) == (500, 300, True)
        assert row.recall > 0.98  # lower if the query's own row or a deleted duplicate were in the truth
        assert row.index_loss == pytest.approx(1 - row.code_loss - row.recall)


def test_every_registered_code_is_measured_or_skipped_with_a_reason(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, code="f32") as db:
        db.add(x[:200])
        report = db.evaluate(oversamples=(1, 3))
        measured = {row.config.kind for row in report.rows}
        assert measured | {name.split("(")[0] for name in report.skipped} == set(CONFIGS) - {"prequantized"}
        labels = {row.code for row in report.rows} | report.skipped.keys()
        assert {f"rabitq{bits}" for bits in range(1, 9)} | {"mixed", "mixed(bits=2.0)"} <= labels
        assert db.verify() == []
        static = qvec.Int8(scale="per_dim")
        (code, reason), *_ = db.evaluate(codes=[static]).skipped.items()
        assert code == "int8(scale='per_dim')"
        assert "at least 256 vectors, got 200" in reason


def test_a_sample_of_rows_is_scanned_only(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM) as db:
        db.add(x)
        report = db.evaluate(codes=["int8"], rows=400, n=50)
        assert (report.n, report.n_queries) == (400, 50)
        assert {(row.index_loss, row.p50_ms) for row in report.rows} == {(None, None)}


def test_bad_evaluations_are_refused(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, originals="none") as db:
        db.add(x)
        with pytest.raises(qvec.InputError, match="originals='none'"):
            db.evaluate()
    with qvec.create(tmp_path / "b", DIM) as db:
        db.add(x[:10])
        with pytest.raises(qvec.InputError, match="11 vectors or more, there are 10"):
            db.evaluate()
        db.add(x[10:])
        for options in ({"queries": x[:0]}, {"oversamples": ()}, {"oversamples": (0,)}, {"n": 0}, {"codes": ["no"]}):
            with pytest.raises(qvec.InputError):
                db.evaluate(**options)
        for target in (0.0, 1.0, 95):
            with pytest.raises(qvec.InputError, match="target_recall"):
                db.choose(target, indexes="current")


def test_equal_keys_go_to_the_first_row() -> None:
    assert nearest(np.array([3, 1, 2, 1, 0], np.float32), 3).tolist() == [4, 1, 3]


def test_the_interval_has_the_stated_coverage() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        hard = rng.beta(18, 2, size=300)  # each query has its own difficulty: hits of one query go together
        low, high = wilson(rng.binomial(10, hard) / 10, 10)[1:]
        covered += low <= 0.9 <= high
    assert 930 <= covered <= 970


def test_the_interval_of_a_perfect_score_is_that_of_as_many_trials_as_queries() -> None:
    for n in range(1, 200):
        for recall in (0.0, 0.5, 1.0):
            mean, low, high = wilson(np.full(n, recall), 10)
            assert 0 <= low <= mean <= high <= 1
    mean, low, high = wilson(np.ones(100), 10)
    assert (mean, high) == (1.0, 1.0)
    assert low == pytest.approx(1 - 3.8415 / (100 + 3.8415), abs=1e-4)  # Wilson's z^2 / (n + z^2)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, x: Float32Array) -> Report:
    with qvec.create(tmp_path_factory.mktemp("report") / "a", DIM) as db:
        db.add(x)
        return db.evaluate(codes=PLAIN, oversamples=(1, 10), n=100)


def test_a_report_prints_a_line_for_each_row(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    lines = str(report).splitlines()
    assert lines[0].startswith("recall@10 of 1,700 vectors, 100 held-out rows")
    below = lines[next(i for i, line in enumerate(lines) if set(line.strip()) <= {"-", " ", "\u2500"}) + 1 :]
    assert len(below) == len(report.rows) + len(report.skipped)
    assert max(map(len, lines[: -len(report.skipped) or None])) <= 80
    report.show()
    assert report.rows[0].code in capsys.readouterr().out
    assert report.to_dicts()[0].keys() >= {"code", "bytes", "recall", "low", "high", "p99_ms"}


@pytest.mark.parametrize(("call", "package"), [("to_pandas", "pandas"), ("plot", "matplotlib")])
def test_a_missing_package_is_named_with_its_command(
    report: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str, package: str
) -> None:
    def refuse(name: str, *_: Any) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ImportError, match=f"pip install '{package}'"):
        report.to_pandas() if call == "to_pandas" else report.plot(tmp_path / "a.png")


def test_a_report_becomes_a_plot_and_a_frame(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report.plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_becomes_a_data_frame(report: Report) -> None:
    pytest.importorskip("pandas")
    assert len(report.to_pandas()) == len(report.rows)


def test_the_smallest_code_that_meets_the_target_within_the_limits_is_chosen(report: Report) -> None:
    first = report.rows[0]
    make = [(100, 1, 0.90), (100, 10, 0.97), (100, 20, 0.99), (200, 1, 0.98), (50, 20, 0.94)]
    rows = [replace(first, bytes=b, oversample=o, low=low, p99_ms=float(o)) for b, o, low in make]
    small = replace(report, rows=rows)

    def choice(target: Target) -> Choice:
        return choose(lambda *_: small, target, 2000, 2000, lambda *_: pytest.fail("applied"))

    def chosen(target: Target) -> tuple[int, int] | None:
        row = choice(target).row
        return None if row is None else (row.bytes, row.oversample)

    assert chosen(Target(0.96)) == (100, 10)
    assert chosen(Target(0.93)) == (50, 20)
    assert chosen(Target(0.93, max_p99_ms=5.0)) == (200, 1)
    assert chosen(Target(0.98, max_bytes=100)) == (100, 20)
    nothing = choice(Target(0.995, max_bytes=60))
    assert not nothing.met
    assert "no code meets recall@10 of 0.995 within 60 bytes; the nearest is" in str(nothing)
    with pytest.raises(qvec.InputError, match="no code meets"):
        nothing.apply()


def test_codes_near_the_target_are_measured_with_more_queries(report: Report) -> None:
    first, small, large = report.rows[0], qvec.Int4(), qvec.Int8()
    true = {small: 0.955, large: 0.97, qvec.Float16(): 1.0}
    asked = []

    def measure(configs: Any, n: int, z: float) -> Report:
        asked.append((configs, n))
        rows = [
            replace(first, code=code.kind, config=code, bytes=i, recall=true[code], low=true[code] - z / n**0.5 / 10,
                    high=true[code] + z / n**0.5 / 10)
            for i, code in enumerate(true) if configs is None or code in configs
        ]  # fmt: skip
        return replace(report, rows=rows, n_queries=n)

    found = choose(measure, Target(0.95), 500, 16_000, lambda *_: pytest.fail("applied"))
    assert found.row is not None
    assert found.row.config == small
    assert asked == [(None, 500), ([small], 2000), ([small], 8000)]
    assert (found.report.n_queries, len(found.report.rows)) == (8000, 3)
    asked.clear()
    far = choose(measure, Target(0.96), 500, 16_000, lambda *_: pytest.fail("applied"))
    assert (far.row and far.row.config, len(asked)) == (large, 3)


def test_of_equally_small_codes_the_one_that_finds_more_is_chosen(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, code="f32") as db:
        db.add(x[:200])
        report = db.evaluate(codes=["rabitq1"], oversamples=(2,))
    first = replace(report.rows[0], bytes=112, oversample=2, low=0.96, recall=0.965, high=0.97)
    second = replace(
        first,
        code="mixed(bits=1.0)",
        config=Mixed(bits=1.0),
        bytes=112,
        oversample=2,
        low=0.98,
        recall=0.985,
        high=0.99,
    )
    for rows in ([first, second], [second, first]):
        measured = replace(report, rows=rows)
        found = choose(
            lambda *_, measured=measured: measured, Target(0.95), 500, 500, lambda *_: pytest.fail("applied")
        )
        assert found.row == second


def test_a_code_without_misses_is_chosen_over_an_equally_small_one_with_a_higher_bound(report: Report) -> None:
    some, none = np.full(4000, 1.0), np.full(4000, 1.0)
    some[::50] = 0.9
    recalls = {"rabitq1": some, "mixed(bits=1.0)": none}
    configs = {"rabitq1": RaBitQ(1), "mixed(bits=1.0)": Mixed(bits=1.0)}
    asked = []

    def measure(wanted: Any, n: int, z: float) -> Report:
        asked.append((wanted, n))
        rows = []
        for code, values in recalls.items():
            if wanted is None or configs[code] in wanted:
                interval = wilson(values[:n], 10, z)._asdict()
                mean = interval.pop("mean")
                rows.append(
                    replace(report.rows[0], code=code, config=configs[code], bytes=112, recall=mean, **interval)
                )
        return replace(report, rows=rows, n_queries=n)

    rows = {row.code: row for row in measure(None, 500, 2.5).rows}
    assert rows["mixed(bits=1.0)"].low < 0.99 < rows["rabitq1"].low
    for target, queries in [(0.95, [500]), (0.99, [500, 2000])]:
        asked.clear()
        found = choose(measure, Target(target), 500, 4000, lambda *_: pytest.fail("applied"))
        assert found.row is not None
        assert found.row.code == "mixed(bits=1.0)"
        assert [n for _, n in asked] == queries
        assert all(wanted in (None, [Mixed(bits=1.0)]) for wanted, _ in asked)


def test_rounds_grow_fourfold_to_the_last() -> None:
    assert round_sizes(2000, 16_000) == [2000, 8000, 16_000]
    assert round_sizes(2000, 2000) == [2000]
    assert round_sizes(2000, 300) == [300]


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.9, 0.99])
def test_realized_recall_meets_the_target_and_the_best_code_is_found(tmp_path: Path, target: float) -> None:
    x = clustered(np.random.default_rng(8), 6000, DIM)
    with qvec.create(tmp_path / "a", DIM, code="f32", index="flat") as db:
        db.add(x)
        codes = ["binary", "rabitq2", "int4", "int8"]
        whole = db.evaluate(codes=codes, n=6000)
        meeting = [row for row in whole.rows if row.recall >= target]
        best = min(meeting, key=lambda row: (row.bytes, row.oversample))
        choices = [
            db.choose(target, indexes="current", codes=codes, n=1000, max_n=4000, seed=seed).row for seed in range(3)
        ]
        true = {(row.code, row.oversample): row.recall for row in whole.rows}
        assert all(row is not None and true[row.code, row.oversample] >= target for row in choices)
        assert [row and row.code for row in choices] == [best.code] * 3


def test_an_applied_choice_reaches_its_recall_by_default(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, code="f32") as db:
        db.add(x[:N])
        choice = db.choose(0.9, queries=x[N:], indexes="current", codes=["f32", "binary", "int8"])
        assert choice.row is not None
        assert choice.row.bytes < 4 * DIM
        assert choice.apply().code == code_name(choice.row.config) == db.stats().code
        exact, found = db.search(x[N:], exact=True).ids, db.search(x[N:]).ids
        assert np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]) >= 0.9
        same = db.search(x[N:], oversample=choice.row.oversample).ids
        assert np.array_equal(found, same)
        assert db.verify() == []


@pytest.mark.parametrize(
    ("config", "label"),
    [
        (RaBitQ(4), "rabitq4"),
        (RaBitQ(), "rabitq1"),
        (RaBitQ(4, dims=8), "rabitq4(dims=8)"),
        (Int8(scale="per_dim"), "int8(scale='per_dim')"),
        (Mixed(bytes=16), "mixed(bytes=16)"),
        (Binary(), "binary"),
    ],
)
def test_reports_use_the_names_of_codes_that_create_accepts(config: Any, label: str) -> None:
    assert label_of(config) == label
