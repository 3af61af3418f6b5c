"""Changes of codes: calibrations are stored and imported; generations are built, activated, rolled back and
dropped."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.recall import search_recall
from helpers.vectors import clustered
from qvec.common.types import Float32Array
from qvec.maintenance import requantize
from qvec.storage.stats import collect

DIM = 32
N = 3000
STATIC = qvec.Int8(scale="per_dim")


@pytest.fixture
def x() -> Float32Array:
    return clustered(np.random.default_rng(1), N, DIM)


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requantize, "CODED_ROWS", 700)


class Dying(Exception):
    pass


def die_at(rows: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= rows:
            raise Dying

    return progress


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("index", ["flat", qvec.HNSW(m=8, ef_construction=64)])
@pytest.mark.parametrize("relink", [True, False, "auto"])
@pytest.mark.parametrize(
    ("before", "after"), [("int8", "binary"), ("binary", STATIC), ("f32", "int8"), ("int8", "f32")]
)
def test_a_requantized_collection_answers_as_one_created_so(
    tmp_path: Path, x: Float32Array, metric: Any, index: Any, relink: Any, before: Any, after: Any
) -> None:
    with qvec.create(tmp_path / "a", DIM, metric=metric, code=before, index=index) as db:
        db.add(x)
        db.delete(range(300))
        made = db.requantize(after, relink=relink)
        assert (made.number, made.active, made.rows) == (1, True, N)
        assert db.verify() == []
        stats = db.stats()
        assert (stats.code, stats.generation, stats.calibration) == (made.code, 1, made.id)
        assert search_recall(db, x[1000:1100]) > 0.97
    with qvec.open(tmp_path / "a") as db:
        assert db.verify() == []
        db.add(x[:300])
        db.upsert(x[300:310], range(1000, 1010))
        assert db.verify() == []
        assert np.array_equal(db.get([2999]).vectors, x[2999:])


def test_codes_after_a_flat_requantize_rank_as_those_of_a_fresh_collection(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, code="int8") as a, qvec.create(tmp_path / "b", DIM, code="binary") as b:
        a.add(x)
        b.add(x)
        a.requantize("binary")
        ours, theirs = (db.search(x[:50], 20, oversample=0) for db in (a, b))
        assert np.array_equal(ours.distances, theirs.distances)


@pytest.mark.slow
@pytest.mark.parametrize("index", ["flat", qvec.HNSW(m=8, ef_construction=64)])
@pytest.mark.parametrize("relink", [True, False])
def test_a_rollback_activates_the_old_codes_and_codes_the_rows_added_since(
    tmp_path: Path, x: Float32Array, index: Any, relink: bool
) -> None:
    with qvec.create(tmp_path / "a", DIM, code="int8", index=index) as db:
        db.add(x[:2000])
        db.requantize("binary", relink=relink)
        db.add(x[2000:])
        db.delete(range(50))
        assert db.rollback(0).active
        assert db.stats().code == "int8"
        assert db.verify() == []
        assert search_recall(db, x[2500:2600]) > 0.97
        assert [made.rows for made in db.generations()] == [N, N]
        db.rollback(0)  # twice is once
        db.rollback(1)
        assert (db.stats().code, db.verify()) == ("binary", [])


@pytest.mark.slow
def test_a_dropped_generation_frees_its_columns_and_never_its_number(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, index=qvec.HNSW(m=8, ef_construction=64)) as db:
        db.add(x)
        db.requantize("binary", relink=True)
        before = collect(db._store).column_bytes
        assert {"codes", "adjacency", "codes.1", "adjacency.1"} <= before.keys()
        db.drop_generation(0)
        assert before.keys() - collect(db._store).column_bytes.keys() == {
            *("codes", "adjacency", "linked", "removing"),
        }
        assert db.verify() == []
        with pytest.raises(qvec.InputError, match="no generation 0"):
            db.rollback(0)
        with pytest.raises(qvec.InputError, match="generation 1 is active"):
            db.drop_generation(1)
        assert db.requantize("int8").number == 2
        db.drop_generation(1)
        assert db.requantize("f16").number == 3
        assert db.verify() == []


def test_float_codes_stay_as_originals_when_their_generation_is_dropped(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, code="f32", originals="none") as db:
        db.add(x)
        db.requantize("binary")
        db.drop_generation(0)
        db.add(x[:10])
        assert search_recall(db, x[:100]) > 0.97
        assert np.array_equal(db.get([5, N + 1]).vectors, x[[5, 1]])
        assert db.requantize("int8").number == 2
        assert db.verify() == []


@pytest.mark.parametrize("code", ["int8", "f16", "binary"])
def test_codes_without_originals_are_not_requantized(tmp_path: Path, x: Float32Array, code: str) -> None:
    with qvec.create(tmp_path / "a", DIM, code=code, originals="none") as db:
        db.add(x)
        with pytest.raises(qvec.InputError, match="originals='none'"):
            db.requantize("f16" if code != "f16" else "int8")
        assert [made.number for made in db.generations()] == [0]


def test_requantizing_to_the_active_code_changes_nothing(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, code=STATIC) as db:
        db.add(x)
        before = db.stats().txn_id
        assert db.requantize().number == 0
        assert db.stats().txn_id == before
        assert len(db.generations()) == 1


@pytest.mark.parametrize(("relink", "rows"), [(False, 1400), (True, N + 700)])
def test_an_interrupted_requantize_continues(tmp_path: Path, x: Float32Array, relink: bool, rows: int) -> None:
    index = qvec.HNSW(m=8, ef_construction=64)
    with qvec.create(tmp_path / "a", DIM, index=index) as db:
        db.add(x)
        with pytest.raises(Dying):
            db.requantize("binary", relink=relink, progress=die_at(rows))
        assert db.stats().code == "int8"
        assert db.verify() == []
    with qvec.open(tmp_path / "a") as db:
        seen: list[int] = []
        assert db.requantize(progress=lambda done, total: seen.append(done)).number == 1
        assert min(seen) > min(rows, N - 1)  # codes are kept; the graph is begun again
        assert (db.stats().code, db.verify()) == ("binary", [])


def test_another_code_discards_an_unfinished_one(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM) as db:
        db.add(x)
        with pytest.raises(Dying):
            db.requantize("binary", progress=die_at(700))
        assert [made.rows for made in db.generations()] == [N, 700]
        db.requantize("f16")
        assert "codes.1" not in collect(db._store).column_bytes
        assert [made.rows for made in db.generations()] == [N, 0, N]
        db.requantize(generation=1)
        assert (db.stats().code, db.verify()) == ("binary", [])


def test_an_unfinished_generation_can_be_dropped(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM) as db:
        db.add(x)
        with pytest.raises(Dying):
            db.requantize("binary", progress=die_at(700))
        db.drop_generation(1)
        assert [made.number for made in db.generations()] == [0]
        assert "codes.1" not in collect(db._store).column_bytes
        assert db.verify() == []


def test_searches_and_writes_continue_during_a_requantize(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, durability="relaxed") as db:
        db.add(x[:2000])
        stop, errors, added = threading.Event(), [], [2000]

        def search() -> None:
            while not stop.is_set():
                if (db.search(x[7]).ids[0] != 7) or len(db) < 2000:
                    errors.append("a search went wrong")

        def write() -> None:
            while not stop.is_set() and added[0] < N:
                db.add(x[added[0]])
                added[0] += 1

        threads = [threading.Thread(target=search), threading.Thread(target=write)]
        for thread in threads:
            thread.start()
        for code in ("binary", "f16", "binary", "int8"):
            db.requantize(code)
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        assert (len(db), db.verify()) == (added[0], [])
        assert added[0] > 2000


def test_calibrations_are_listed_and_used_by_number(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, code=STATIC, model="m-1") as db:
        db.add(x)
        made = db.calibrate(x[:500], method="percentile", activate=False)
        assert (made.number, made.method, made.n_samples, made.model) == (1, "percentile", 500, "m-1")
        assert (made.active, made.rows) == (False, 0)
        assert db.calibrate(x[:600]).active
        assert [(c.number, c.rows, c.active) for c in db.generations()] == [(0, N, False), (1, 0, False), (2, N, True)]
        assert db.requantize(generation=1).active
        assert db.verify() == []
        with pytest.raises(qvec.InputError, match="generation 9"):
            db.requantize(generation=9)
        with pytest.raises(qvec.InputError, match="never active"):
            db.rollback(db.calibrate(x[:700], activate=False).number)


def test_calibrating_an_empty_collection_decides_how_its_vectors_are_coded(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, code=STATIC) as db:
        made = db.calibrate(x[:500])
        assert made.active
        db.add(x)
        assert db.stats().calibration == made.id
        assert db.verify() == []


@pytest.mark.parametrize("form", ["json", "msgpack"])
@pytest.mark.parametrize("code", [STATIC, "binary", "int8", qvec.Int8(scale="per_dim", rotate=True)])
def test_an_imported_calibration_gives_the_same_codes(tmp_path: Path, x: Float32Array, code: Any, form: Any) -> None:
    with qvec.create(tmp_path / "a", DIM, code=code) as a, qvec.create(tmp_path / "b", DIM, code="f16") as b:
        a.add(x)
        b.add(x)
        made = b.import_calibration(a.export_calibration(format=form), activate=True)
        assert made.id == a.generations()[0].id
        assert made.created == a.generations()[0].created
        ours, theirs = (db.search(x[:50], oversample=0).distances for db in (a, b))
        assert np.array_equal(ours, theirs)


def test_a_calibration_of_another_dimension_metric_or_model_is_refused(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, code=STATIC, model="m-1", sample=x) as db:
        data = db.export_calibration()
    others = {
        "dim": {"dim": 16, "model": "m-1"},
        "metric": {"dim": DIM, "metric": "l2", "model": "m-1"},
        "model": {"dim": DIM, "model": "m-2"},
    }
    for name, options in others.items():
        with qvec.create(tmp_path / name, **options) as db:
            with pytest.raises(qvec.InputError, match=f"is of {name}"):
                db.import_calibration(data)
            assert db.generations() == []


def test_a_damaged_calibration_is_refused(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, code="binary", sample=x) as db:
        plain = json.loads(db.export_calibration())
        plain["quantizer"]["transform"]["seed"] += 1
        with pytest.raises(qvec.FormatError, match="'id'"):
            db.import_calibration(json.dumps(plain))
        for data in ("{", b"\xc1", "[]", "{}", json.dumps(plain | {"format": "other"})):
            with pytest.raises(qvec.FormatError):
                db.import_calibration(data)
        assert len(db.generations()) == 1


def test_calibration_refuses_bad_samples(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM) as db:
        db.add(x)
        with pytest.raises(qvec.InputError, match="at least 256 vectors, got 10"):
            db.calibrate(x[:10], method="minmax")
        with pytest.raises(qvec.InputError, match="learns nothing"):
            db.calibrate(x)
        with pytest.raises(qvec.InputError, match="no calibration method"):
            db.calibrate(x, code="binary", method="minmax")
        with pytest.raises(qvec.InputError, match="exclude each other"):
            db.requantize("int8", generation=0)
        with pytest.raises(qvec.InputError, match="relink"):
            db.requantize("binary", relink="maybe")  # type: ignore[arg-type]
    with qvec.create(tmp_path / "b", DIM) as db, pytest.raises(qvec.InputError, match="no codes yet"):
        db.requantize("binary")


def test_vectors_and_queries_of_another_model_are_refused(tmp_path: Path, x: Float32Array) -> None:
    with qvec.create(tmp_path / "a", DIM, model="m-1") as db:
        db.add(x, model="m-1")
        with pytest.raises(qvec.InputError, match=r"'m-2'.*'m-1'"):
            db.add(x, model="m-2")
        assert len(db) == N
    qvec.open(tmp_path / "a", model="m-1").close()
    with pytest.raises(qvec.InputError, match=r"is of model 'm-1', not 'm-2'"):
        qvec.open(tmp_path / "a", model="m-2")


def test_a_graph_that_no_longer_fits_the_codes_is_rebuilt(tmp_path: Path) -> None:
    """A graph that was linked by codes which clip every vector to the same corner is useless for better codes."""
    rng = np.random.default_rng(3)
    old, new = clustered(rng, 400, DIM), clustered(rng, N, DIM) + 6
    index = qvec.HNSW(m=8, ef_construction=64)
    with qvec.create(tmp_path / "a", DIM, metric="l2", code=STATIC, index=index, sample=old) as db:
        db.add(new.astype(np.float32))
        assert search_recall(db, new[:100], oversample=0) < 0.5
        db.requantize(STATIC)
        assert search_recall(db, new[:100], oversample=0) > 0.9
        assert "adjacency.1" in collect(db._store).column_bytes
        assert db.verify() == []


@pytest.mark.parametrize("code", ["int8", "binary", "f32"])
def test_a_collection_that_was_requantized_while_empty_returns_to_its_first_codes(path: Path, code: str) -> None:
    sample = clustered(np.random.default_rng(5), 300, DIM)
    with qvec.create(path, DIM, metric="l2", code=code, sample=sample) as db:
        db.requantize("f16")
        db.rollback(0)
        db.requantize("int8")
        db.add(sample)
        db.rollback(0)
        assert [generation.number for generation in db.generations() if generation.active] == [0]
        assert db.verify() == []
        assert db.get(range(300)).vectors.tolist() == sample.tolist()


def test_a_collection_whose_vectors_are_all_deleted_is_requantized(path: Path, x: Float32Array) -> None:
    with qvec.create(path, DIM, metric="l2", code="int8", index=qvec.HNSW(m=4, ef_construction=30)) as db:
        db.add(x[:40])
        db.delete(range(40))
        assert db.requantize("f16").active
        db.add(x[:40], list(range(40)))
        assert db.search(x[7], 1, ef=40).ids.tolist() == [7]


def test_a_tuned_collection_that_was_emptied_is_requantized_and_rolled_back(path: Path, x: Float32Array) -> None:
    with qvec.create(path, DIM, metric="l2", code="int8", index=qvec.HNSW(m=4, ef_construction=30)) as db:
        db.add(x[:200])
        db.tune(n=20, ks=(5,))
        db.delete(range(200))
        assert db.requantize("f16").active
        assert db.rollback(0).active
        db.add(x[:400], list(range(400)))
        assert db.search(x[7], 5, recall=0.5).counts == 5


@pytest.mark.parametrize("left", [0, 3])
@pytest.mark.parametrize("code", ["int8", "f32"])
def test_rows_are_released_under_codes_that_are_active_again(path: Path, x: Float32Array, code: str, left: int) -> None:
    with qvec.create(path, DIM, code=code) as db:
        db.add(x[:1500])
        db.requantize("f16")
        db.rollback(0)
        db.delete(list(range(left, 1500)))
        db.optimize()
        assert db.verify() == []
        db.add(x[:1500])
        assert db.requantize(generation=1).active
        assert db.verify() == []
