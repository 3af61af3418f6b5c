"""Drift: shifts that cost recall raise an alarm, exchangeable vectors do not, and handles report alarms."""

from __future__ import annotations

import contextlib
import threading
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec.codes.registry import make_config, train
from qvec.common.plain_state import decode, encode
from qvec.common.types import Float32Array
from qvec.demo.corpus import data_folder
from qvec.quality import drift_stats
from qvec.quality.drift import ALPHA, DriftMonitor
from qvec.quality.drift_stats import ROWS_PER_CHECK, Reference, pooled, recalls_among
from qvec.schema.state import State

DIM = 48
STATIC = qvec.Int8(scale="per_dim")


@pytest.fixture
def x() -> Float32Array:
    return clustered(np.random.default_rng(11), 8000, DIM)


def ruined(x: Float32Array) -> Float32Array:
    """Vectors of twice the width at another place: ranges of the old vectors clip most values."""
    return (2 * x + 4).astype(np.float32)


def make(path: Path, x: Float32Array, **options: Any) -> qvec.Collection:
    db = qvec.create(path, DIM, metric="l2", code=STATIC, durability="relaxed", **options)
    db.add(x[:3000])
    return db


def test_a_shift_that_ruins_the_code_raises_the_alarm_and_requantize_restores_recall_under_a_reader(
    tmp_path: Path,
) -> None:
    x = np.load(data_folder() / "passages.npy").astype(np.float32) * 20  # deviations of about 1
    new = ruined(x[2000:4000])
    with qvec.create(tmp_path / "a", x.shape[1], metric="l2", code=STATIC, durability="relaxed") as db:
        db.add(x[:2000])
        assert db.drift().level == "none"
        db.add(new[:1000])
        drift = db.drift()
        assert drift.level == "alarm"
        assert "requantize()" in drift.advice
        assert drift.evidence["recall_loss"] > 0.1
        assert drift.evidence["outside"] > 0.2
        db.add(new[1000:])
        exact = db.search(new[:200], exact=True).ids
        stop, failures, searches = threading.Event(), [], [0]

        def read() -> None:
            with qvec.open(tmp_path / "a", mode="r") as reader:
                while not stop.is_set():
                    try:
                        failures.extend(["missing"] * (int(reader.search(new[searches[0] % 200]).counts) != 10))
                    except Exception as error:
                        failures.append(repr(error))
                    searches[0] += 1

        thread = threading.Thread(target=read)
        thread.start()
        db.requantize(relink=True)
        stop.set()
        thread.join()
        assert (failures, searches[0] > 0) == ([], True)
        found = db.search(new[:200], oversample=0).ids
        assert np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]) >= 0.97
        assert (db.drift().level, db.drift().generation) == ("none", 1)
        db.add(ruined(x[4000:]))
        assert db.drift().level != "alarm"


def test_the_history_has_the_figures_of_the_newest_checks(tmp_path: Path, x: Float32Array) -> None:
    with make(tmp_path / "a", x) as db:
        assert db.drift().history == ()  # the code was trained on these
        db.add(x[3000:5100])
        assert [check.number for check in db.drift().history] == [1, 2, 3, 4]
        db.add(ruined(x[5100:6200]))
        drift = db.drift()
        assert drift.n_checks == 6
        assert [check.number for check in drift.history] == [3, 4, 5, 6]
        assert all(check.vectors == ROWS_PER_CHECK for check in drift.history)
        assert all(check.shift < 1 and check.outside < 0.01 for check in drift.history[:2])
        assert all(check.shift > 1 and check.outside > 0.2 for check in drift.history[2:])
        recalls = [check.recall for check in drift.history[2:]]
        assert all(recall is not None and 0 <= recall <= 1 for recall in recalls)
        assert "The newest checks" in drift._repr_html_()
        db.requantize(STATIC)
        assert db.drift().history == ()


def test_an_alarm_stays_until_there_are_new_codes(tmp_path: Path, x: Float32Array) -> None:
    with make(tmp_path / "a", x) as db:
        db.add(ruined(x[3000:5000]))
        db.add(x[3000:5100])
        before = db.drift()
        db.add(x[5100:8000])
        after = db.drift()
        assert (before.level, after.level) == ("alarm", "alarm")
        assert (before.n_checks, after.n_checks) == (7, 11)
    with qvec.open(tmp_path / "a", mode="r") as db:
        assert db.drift() == after


def test_a_shift_that_costs_no_recall_is_a_warning(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, metric="l2", code="f32") as db:
        db.add(x[:3000])
        db.add(ruined(x[3000:5000]))
        assert db.drift().level == "warning"


def test_recall_of_vectors_far_from_the_old_is_measured_among_as_many_as_the_code_was_trained_for(
    tmp_path: Path, x: Float32Array
) -> None:
    far = x[4000:6000] + np.where(np.arange(DIM) % 2, 3 * x.std(axis=0), 0).astype(np.float32)
    with qvec.create(tmp_path / "a", DIM, metric="l2", code="binary", index="flat") as db:
        db.add(x[:4000])
        for i in range(0, len(far), 500):
            db.add(far[i : i + 500])
        assert db.drift().level == "alarm"
        found = db.drift().evidence
    old, new = (train(sample, "l2", make_config("binary")) for sample in (x[:4000], far))
    held, lost = (recalls_among(code, far[:500], far, code.encode(far)).mean() for code in (new, old))
    assert found["recall_loss"] == pytest.approx(held - lost, abs=0.04)
    assert found["recall_loss"] > 0.05
    assert found["recall_stored"] > found["recall_trained"]  # the old are found as before


def test_single_vectors_are_checked_once_there_are_enough(tmp_path: Path, x: Float32Array) -> None:
    with make(tmp_path / "a", x, index="flat") as db:
        for row in ruined(x[3000 : 3000 + ROWS_PER_CHECK - 1]):
            db.add(row)
        assert db.drift().n_checks == 0
        db.add(ruined(x[7000]))
        assert (db.drift().level, db.drift().n_checks) == ("alarm", 1)


def test_on_drift_warns_once_raises_or_calls(tmp_path: Path, x: Float32Array) -> None:
    new, heard = ruined(x[3000:5000]), []
    with make(tmp_path / "warn", x, on_drift="warn") as db:
        with pytest.warns(qvec.DriftWarning, match="requantize"):
            db.add(new)
        db.add(new)
        assert len(db) == 7000
    with make(tmp_path / "raise", x, on_drift="raise") as db:
        with pytest.raises(qvec.DriftError, match="recall by code"):
            db.add(new)
        assert (len(db), db.drift().level, db.verify()) == (3000, "none", [])
        db.add(x[3000:6000])
    with make(tmp_path / "call", x, on_drift=heard.append) as db:
        db.add(new)
        db.add(new)
    assert [drift.level for drift in heard] == ["alarm"]
    with pytest.raises(qvec.InputError, match="on_drift"):
        qvec.open(tmp_path / "call", on_drift="shout")  # type: ignore[arg-type]


def test_drift_of_an_empty_or_freshly_calibrated_collection_is_none(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM) as db:
        assert (db.drift().level, db.drift().generation, db.drift().evidence) == ("none", None, {})
    with qvec.create(tmp_path / "b", DIM, metric="l2", code=STATIC, sample=x[:2000]) as db:
        assert (db.drift().level, db.drift().generation) == ("none", 0)
        db.add(ruined(x[:2000]))
        assert db.drift().level == "alarm"


@pytest.mark.slow
@pytest.mark.parametrize("code", ["int8", "binary", STATIC])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_exchangeable_vectors_raise_neither_alarm_nor_warning(tmp_path: Path, metric: Any, code: Any) -> None:
    for trial in range(5):
        x = clustered(np.random.default_rng(100 + trial), 4000, DIM)
        x = x[np.random.default_rng(trial).permutation(len(x))]
        x[:, 0] = x[:, 1] > np.sort(x[:, 1])[-7]  # nearly constant: seen in few vectors, or in none of a check
        options = {"metric": metric, "code": code, "index": "flat", "durability": "relaxed"}
        with qvec.create(tmp_path / str(trial), DIM, **options) as db:
            db.add(x[:1500])
            for i in range(1500, 4000, 500):
                db.add(x[i : i + 500])
            assert (db.drift().level, db.drift().n_checks) == ("none", 4)


@pytest.mark.parametrize("step", [7, 256])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_recall_among_vectors_is_that_of_brute_force(monkeypatch: pytest.MonkeyPatch, metric: Any, step: int) -> None:
    monkeypatch.setattr(drift_stats, "QUERIES_PER_STEP", step)
    x = clustered(np.random.default_rng(3), 700, DIM)
    quantizer, queries, base = train(x, metric, make_config("int8")), x[:50].copy(), x[40:]  # ten are stored themselves
    found = recalls_among(quantizer, queries, base, quantizer.encode(base))
    keys = quantizer.codec.score(quantizer.prepare(queries), quantizer.encode(base))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True) if metric == "cosine" else x
    wide, long = unit[:50].astype(np.float64), unit[40:].astype(np.float64)
    exact = ((wide[:, None] - long[None]) ** 2).sum(axis=2) if metric != "ip" else -wide @ long.T
    expected = []
    for i, (near, coded) in enumerate(zip(exact, keys, strict=True)):
        others = np.flatnonzero(np.arange(len(base)) + 40 != i)
        expected.append(np.isin(others[np.argsort(near[others])[:10]], others[np.argsort(coded[others])[:10]]).mean())
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.unsanitized
def test_recalls_of_many_queries_take_little_memory() -> None:
    x = clustered(np.random.default_rng(3), 2048, DIM)
    quantizer = train(x, "l2", make_config("int8"))
    codes = quantizer.encode(x)
    tracemalloc.start()
    assert recalls_among(quantizer, x[:1024], x, codes).mean() > 0.9
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * 1024 * len(x) * 4  # four keys for each pair; one step takes a quarter of its pairs


@pytest.mark.slow
def test_of_codes_at_one_distance_each_is_as_likely_found() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 8)).astype(np.float32)
    quantizer = train(x, "l2", make_config(qvec.Binary(rotate=False)))
    base, codes = x[100:], quantizer.encode(x[100:])
    found = recalls_among(quantizer, x[:100], base, codes)
    keys = quantizer.codec.score(quantizer.prepare(x[:100]), codes)
    exact = np.argsort(((x[:100, None] - base[None]) ** 2).sum(axis=2), axis=1)[:, :10]
    drawn = [np.mean([np.isin(exact[i], np.lexsort((rng.random(300), keys[i]))[:10]).mean() for _ in range(300)])
             for i in range(100)]  # fmt: skip
    assert found == pytest.approx(drawn, abs=0.05)
    assert found.mean() == pytest.approx(np.mean(drawn), abs=0.005)


def test_the_chances_of_a_false_alarm_add_up_to_alpha() -> None:
    spent = sum(ALPHA * 6 / (np.pi * n) ** 2 for n in range(1, 100_000))
    assert spent == pytest.approx(ALPHA, rel=1e-4)


def test_pooled_statistics_are_those_of_all_rows(x: Float32Array) -> None:
    quantizer = train(x, "l2", make_config("int8"))
    reference = Reference.build(quantizer, x)
    one, two = (reference.stats_of(quantizer, x[i : i + 512]) for i in (0, 512))
    both = pooled([one, two])
    assert both.rows == 1024
    assert both.means == pytest.approx(x[:1024].mean(axis=0), abs=1e-4)
    assert sum(both.counts) == 16 * 1024
    plain = encode(reference)
    assert encode(decode(Reference, plain, "reference", dim=DIM, n_counts=160, n_edges=144)) == plain


def test_a_batch_is_sampled_evenly_and_a_small_one_waits() -> None:
    monitor, rows, txn = DriftMonitor(), np.arange(4096, dtype=np.float32)[:, None], SimpleNamespace(state=State())
    samples = monitor._samples(txn, rows)
    assert [(len(sample), sample[-1, 0] > 4000, sample[0, 0] < 10) for sample in samples] == [(512, True, True)] * 4
    assert monitor._samples(txn, rows[:500]) == []
    (waited,) = monitor._samples(txn, rows[500:600])
    assert waited[:, 0].tolist() == list(range(512))
    (rest,) = monitor._samples(txn, rows[600:1030])
    assert rest[:, 0].tolist() == list(range(512, 1024))


def test_rows_of_a_batch_that_is_rolled_back_do_not_wait(tmp_path: Path, x: Float32Array) -> None:
    with make(tmp_path / "a", x, index="flat") as db:
        db.add(x[3000:3200])
        for _ in range(3):  # each fails after its rows began to wait, the first two of each block after others
            with contextlib.suppress(ZeroDivisionError), db.transaction():
                db.add(ruined(x[:100]))
                db.add(ruined(x[100:450]))  # a check, inside
                raise ZeroDivisionError
        assert db.drift().n_checks == 0
        db.add(x[3200:3500])
        assert db.drift().n_checks == 0
        db.add(x[3500:3512])
        assert (db.drift().level, db.drift().n_checks) == ("none", 1)
        assert db.drift().evidence["shift"] < 0.5


def test_sampled_queries_are_evidence_and_do_not_affect_the_level(tmp_path: Path, x: Float32Array) -> None:
    with make(tmp_path / "a", x, index="flat") as db:
        for query in x[3000:3200]:
            db.search(query)
        assert "queries" not in db.drift().evidence  # three of them, one in 64
        db.search(ruined(x[3000:3020]))
        for i in range(3020, 3200, 20):
            db.search(x[i : i + 20])
        found = db.drift()
        assert (found.level, found.evidence["queries"]) == ("none", 3 + 10 * 7)
        assert 0.9 < found.evidence["recall_queries"] <= 1
        for i in range(0, 2000, 20):
            db.search(x[i : i + 20])
        assert db.drift().evidence["queries"] == 256
        assert db.drift().evidence["recall_queries"] > 0.95
    with qvec.open(tmp_path / "a", mode="r") as db:
        assert "queries" not in db.drift().evidence
        db.search(x[:4000:2])
        assert "queries" not in db.drift().evidence


@pytest.mark.parametrize("n", [300, 600, 3000])
def test_equal_vectors_raise_no_alarm_and_no_error(path: Path, n: int) -> None:
    x = np.repeat(np.random.default_rng(0).standard_normal((1, 16)).astype(np.float32), n, axis=0)
    with qvec.create(path, 16, index="flat", on_drift="raise") as db:
        for _ in range(4):
            db.add(x)
        db.add(-x)
        assert len(db) == 5 * n
        assert db.drift().level != "alarm"
