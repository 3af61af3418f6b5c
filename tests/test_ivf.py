"""Inverted lists: search results, and the content of lists as rows are added and deleted."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import qvec
from helpers.collection_model import Model, assert_hits_are_sound
from helpers.ivf_collections import DIM, Float32, N, build, lists_of, vectors_and_queries
from helpers.recall import recall
from helpers.vectors import clustered
from qvec._kernels import Codec, Lists, SearchParams, fastscan_sums, fastscan_table
from qvec.codes.transforms import rotation_signs
from qvec.datasets import exact_knn
from qvec.demo.corpus import data_folder
from qvec.index.ivf import dims_for, layout_of, lists_for
from qvec.schema.layout import CENTROIDS, LIST_BLOCKS, LISTS, SLOTS
from qvec.schema.state import ListLayout, ListsState


@pytest.fixture(scope="module")
def data() -> tuple[Float32, Float32]:
    return vectors_and_queries()


@pytest.fixture(scope="module")
def demo() -> tuple[Float32, Float32]:
    """Real passages and questions."""
    folder = data_folder()
    passages, questions = (
        np.load(str(folder / f"{name}.npy")).astype(np.float32) for name in ("passages", "questions")
    )
    return passages, questions[:200]


def truth(base: Float32, queries: Float32, metric: Any, k: int = 10) -> npt.NDArray[np.int64]:
    return np.asarray(exact_knn(base, queries, k, metric)[0], np.int64)


def state_of(db: qvec.Collection) -> ListLayout:
    with db._store.read() as snap:
        assert isinstance(snap.state.index, ListsState)
        assert snap.state.index.lists is not None
        return snap.state.index.lists


def centroids_of(snap: Any, n_lists: int) -> Float32:
    rows = snap.columns[CENTROIDS].read_range(0, n_lists)
    return Codec("f32", "l2", dims_for(DIM)).decode(rows)


def opened(db: qvec.Collection, snap: Any) -> Lists:
    layout = layout_of(snap.state.index)
    assert layout is not None
    columns = snap.columns
    return Lists(
        columns[LIST_BLOCKS], columns[LISTS], columns[CENTROIDS], columns[SLOTS], layout.dim, layout.metric,
        rotation_signs(layout.seed, dims_for(layout.dim)), layout.n_lists, snap.state.n, layout.n_blocks,
        layout.n_free, layout.free_block,
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("code", ["f32", "f16", "int8", "int4", "ternary", "rabitq1", "rabitq4", "binary", "mixed"])
@pytest.mark.parametrize("copies", [1, 2])
def test_all_lists_together_give_the_true_neighbors(
    path: Path, data: tuple[Float32, Float32], metric: Any, code: str, copies: int
) -> None:
    base, queries = data
    options = {"oversample": 30} if code in ("ternary", "mixed") else {}
    with build(path, base, metric=metric, code=code, index=qvec.IVF(copies=copies)) as db:
        hits = db.search(queries, 10, nprobe=lists_of(db), **options)
        assert recall(hits.ids, truth(base, queries, metric)) >= 0.99
        assert db.verify() == []


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("code", ["int8", "int4", "binary"])
def test_without_originals_a_search_of_all_lists_equals_a_scan_of_the_codes(
    path: Path, tmp_path: Path, data: tuple[Float32, Float32], metric: Any, code: str
) -> None:
    base, queries = data
    with (
        build(path, base, metric=metric, code=code, originals="none") as db,
        build(tmp_path / "flat.qvec", base, metric=metric, code=code, originals="none", index="flat") as scan,
    ):
        hits, expected = db.search(queries, 10, nprobe=lists_of(db)), scan.search(queries, 10)
        by_ties = code == "binary"  # many vectors at one distance: any of them will do
        if by_ties:
            assert (hits.distances <= expected.distances + 1e-4 * np.abs(expected.distances)).mean() >= 0.9
        else:
            assert recall(hits.ids, expected.ids) >= 0.97


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_recall_grows_with_the_lists_that_are_probed_and_the_default_is_usable(
    path: Path, data: tuple[Float32, Float32], metric: Any
) -> None:
    base, queries = data
    true = truth(base, queries, metric)
    with build(path, base, metric=metric) as db:
        n = lists_of(db)
        assert n == lists_for(N)
        found = [recall(db.search(queries, 10, nprobe=p).ids, true) for p in (1, n // 16, n // 4, n)]
        assert found == sorted(found)
        assert found[0] < found[-1]
        assert found[-1] >= 0.995
        assert recall(db.search(queries, 10).ids, true) >= 0.9


@pytest.mark.slow
def test_two_copies_find_more_in_as_many_lists_than_one(path: Path, tmp_path: Path, demo: Any) -> None:
    base, queries = demo
    true = truth(base, queries, "cosine")
    found = []
    for copies in (1, 2):
        with build(tmp_path / f"{copies}.qvec", base, index=qvec.IVF(copies=copies)) as db:
            found.append(recall(db.search(queries, 10, nprobe=4).ids, true))
    assert found[1] > found[0] + 0.02


def test_hits_are_sound_and_the_same_one_by_one_in_a_batch_and_on_threads(
    path: Path, data: tuple[Float32, Float32]
) -> None:
    base, queries = data
    model = Model(DIM, "l2")
    model.add(base)
    with build(path, base, metric="l2") as db:
        hits = db.search(queries, 7, nprobe=9)
        assert_hits_are_sound(model, queries, 7, hits)
        assert [db.search(q, 7, nprobe=9).ids.tolist() for q in queries] == hits.ids.tolist()
        assert db.search(queries, 7, nprobe=9, threads=2).ids.tolist() == hits.ids.tolist()


def test_k_hits_are_returned_although_the_probed_lists_have_fewer_rows(
    path: Path, data: tuple[Float32, Float32]
) -> None:
    base, queries = data
    with build(path, base, metric="l2") as db:
        assert (db.search(queries[:5], 500, nprobe=1).counts == 500).all()
        db.delete(np.arange(N - 12))
        hits = db.search(queries, 20, nprobe=1)
        assert (hits.counts == 12).all()
        assert set(hits.ids[0, :12].tolist()) == set(range(N - 12, N))


# --- the content of lists ---


@pytest.mark.slow
def test_vectors_added_one_by_one_are_found_as_well_as_those_added_at_once(
    path: Path, tmp_path: Path, data: tuple[Float32, Float32]
) -> None:
    base, queries = data[0][:800], data[1]
    true = truth(base, queries, "l2")
    index = qvec.IVF(nlist=32)
    with build(path, base, metric="l2", index=index) as whole:
        expected = recall(whole.search(queries, 10, nprobe=6).ids, true)
    with qvec.create(tmp_path / "b.qvec", DIM, metric="l2", index=index, durability="relaxed") as db:
        db.add(base[:200])
        for x in base[200:400]:
            db.add(x)
        for start in range(400, 800, 50):
            db.add(base[start : start + 50])
        assert recall(db.search(queries, 10, nprobe=6).ids, true) >= expected - 0.03
        assert recall(db.search(queries, 10, nprobe=32).ids, true) >= 0.995
        assert db.verify() == []


def test_lists_grow_in_number_as_vectors_do_from_the_first_one_on(path: Path, data: tuple[Float32, Float32]) -> None:
    base, queries = data
    with qvec.create(path, DIM, metric="l2", index="ivf") as db:
        seen = []
        for start, stop in ((0, 1), (1, 5), (5, 100), (100, 1000), (1000, 3000)):
            db.add(base[start:stop])
            seen.append(lists_of(db))
            hits = db.search(queries, 10, nprobe=seen[-1])
            assert recall(hits.ids[:, : min(10, stop)], truth(base[:stop], queries, "l2", min(10, stop))) >= 0.99
            assert db.verify() == []
        assert seen == [1, 1, 6, 62, 62]


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.slow
def test_deleted_vectors_leave_their_lists_and_their_places_are_used_again(
    path: Path, data: tuple[Float32, Float32], copies: int
) -> None:
    base, queries = data
    rng = np.random.default_rng(1)
    with build(path, base, metric="l2", index=qvec.IVF(copies=copies)) as db:
        blocks = state_of(db).n_blocks
        for _ in range(6):
            gone = rng.choice(N, 700, replace=False)
            assert db.delete(gone) == 700
            assert db.verify() == []
            hits = db.search(queries, 10, nprobe=lists_of(db))
            assert not np.isin(hits.ids, gone).any()
            left = np.setdiff1d(np.arange(N), gone)
            assert recall(hits.ids, left[truth(base[left], queries, "l2")]) >= 0.99
            db.add(base[gone], gone)
            assert db.verify() == []
        assert state_of(db).n_blocks <= 1.2 * blocks
        assert recall(db.search(queries, 10, nprobe=lists_of(db)).ids, truth(base, queries, "l2")) >= 0.99


def test_an_upsert_moves_a_vector_to_other_lists(path: Path, data: tuple[Float32, Float32]) -> None:
    base, _ = data
    with build(path, base, metric="l2") as db:
        db.upsert(base[2000:2500] + 9, np.arange(500))
        hits = db.search(base[2000:2500] + 9, 1, nprobe=4)
        assert (hits.ids[:, 0] == np.arange(500)).mean() >= 0.99
        assert db.verify() == []


def test_a_collection_that_was_emptied_can_be_filled_again(path: Path, data: tuple[Float32, Float32]) -> None:
    base, queries = data
    with build(path, base, metric="l2") as db:
        db.delete(np.arange(N))
        assert (db.search(queries, 3).counts == 0).all()
        assert db.verify() == []
        db.add(base[:50])
        assert lists_of(db) == lists_for(50)
        assert (db.search(base[:50], 1, nprobe=3).distances[:, 0] < 1e-6).all()


def test_the_lists_do_not_depend_on_the_number_of_threads(tmp_path: Path, data: tuple[Float32, Float32]) -> None:
    base, _ = data
    held = []
    for threads in (1, 2):
        with qvec.create(tmp_path / f"{threads}.qvec", DIM, metric="cosine", index="ivf") as db:
            db.add(base, threads=threads)
            with db._store.read() as snap:
                held.append({name: snap.columns[name].read_range(0, 60).tobytes() for name in (LISTS, CENTROIDS)})
    assert held[0] == held[1]


def test_another_handle_gives_the_same_answers_and_a_reader_keeps_its_snapshot(
    path: Path, data: tuple[Float32, Float32]
) -> None:
    base, queries = data
    with build(path, base[:2000], metric="l2") as db:
        expected = db.search(queries, 10, nprobe=20)
    with qvec.open(path) as db, qvec.open(path, "r", memory="ram") as reader:
        assert reader.search(queries, 10, nprobe=20).ids.tolist() == expected.ids.tolist()
        snap = reader._store.begin()
        try:
            engine = snap.derived["engine"]
            db.delete(np.arange(0, 2000, 2))
            db.add(base[2000:])
            old = engine.search(queries, SearchParams(10, ef=64, nprobe=20, candidates=20))[0]
            assert old.tolist() == expected.ids.tolist()
        finally:
            reader._store.end(snap)
        assert not np.isin(reader.search(queries, 10, nprobe=20).ids, np.arange(0, 2000, 2)).any()


def test_searches_run_while_lists_change(path: Path, data: tuple[Float32, Float32]) -> None:
    base, queries = data
    with build(path, base[:1500], metric="l2") as db:
        stop, failures = threading.Event(), []

        def search() -> None:
            while not stop.is_set():
                hits = db.search(queries[:20], 5, nprobe=8)
                if (hits.counts != 5).any() or (np.diff(hits.distances, axis=1) < 0).any():
                    failures.append(hits)

        threads = [threading.Thread(target=search) for _ in range(2)]
        for thread in threads:
            thread.start()
        for start in range(0, 1500, 100):
            db.delete(np.arange(start, start + 100))
            db.add(base[1500 + start : 1600 + start])
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert db.verify() == []


@pytest.mark.slow
def test_other_codes_need_no_other_lists(path: Path, data: tuple[Float32, Float32]) -> None:
    base, queries = data
    true = truth(base, queries, "l2")
    with build(path, base, metric="l2", code="int8") as db:
        with db._store.read() as snap:
            before = snap.columns[LIST_BLOCKS].read_range(0, 50).tobytes()
        for code in ("rabitq1", "int4", "f32"):
            db.requantize(code)
            with db._store.read() as snap:
                assert snap.columns[LIST_BLOCKS].read_range(0, 50).tobytes() == before
            assert recall(db.search(queries, 10, nprobe=lists_of(db)).ids, true) >= 0.99
            assert db.verify() == []
        rows = db.evaluate(queries, codes=["int8", "f16"]).rows
        assert {row.code for row in rows} == {"int8", "f16"}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "ubinary"])
def test_prequantized_codes_are_found_through_lists(path: Path, dtype: Any) -> None:
    rng = np.random.default_rng(2)
    if dtype == "ubinary":
        x = np.packbits(clustered(rng, 1000, 64) > 0, axis=1)
    else:
        x = np.clip(np.rint(20 * clustered(rng, 1000, 64)), -128, 127).astype(np.int8)
        x = x if dtype == "int8" else (x.view(np.uint8) ^ 128)
    with qvec.create(path, 64, metric="l2", code=qvec.Prequantized(dtype), index="ivf") as db:
        db.add(x)
        hits = db.search(x[:200], 1, nprobe=lists_of(db))
        assert (hits.distances[:, 0] == 0).mean() >= 0.99
        assert db.verify() == []


def test_duplicates_by_the_thousand_are_kept_and_found(path: Path) -> None:
    x = np.repeat(clustered(np.random.default_rng(4), 3, 16), 700, axis=0)
    with build(path, x, metric="l2") as db:
        hits = db.search(x[[0, 700, 1400]], 20, nprobe=1)
        assert (hits.distances == 0).all()
        assert db.verify() == []


# --- clustering ---


def test_lists_are_balanced_even_where_vectors_are_not(path: Path) -> None:
    rng = np.random.default_rng(8)
    x = np.concatenate([clustered(rng, 5000, 32, centroids=2, spread=0.2), clustered(rng, 1000, 32, centroids=100)])
    with build(path, x, metric="l2", index=qvec.IVF(nlist=100, copies=1)) as db, db._store.read() as snap:
        sizes = snap.columns[LISTS].read_range(0, 100).view("<u4")[:, 1]
        assert sizes.sum() == len(x)
        assert sizes.max() <= 6 * sizes.mean()


def test_estimates_are_within_their_bound_at_the_stated_rate(path: Path, data: tuple[Float32, Float32]) -> None:
    """RaBitQ's bound is 1.9 standard deviations: 97 % of lower bounds are below the true distance."""
    base, queries = data
    with build(path, base, metric="l2") as db, db._store.read() as snap:
        lists = snap.state.index.lists
        centroids = centroids_of(snap, lists.n_lists)
        blocks = snap.columns[LIST_BLOCKS].read_range(0, lists.n_blocks)
        owners, rows = blocks[:, 4:8].view("<u4")[:, 0], blocks[:, 64:192].view("<u4")
        add, rescale, error = blocks[:, 192:576].view("<f4").reshape(-1, 3, 32).transpose(1, 0, 2)
        below, total = 0, 0
        for q in queries[:20]:
            y = opened(db, snap).vectors(q[None])[0]
            table, unit = fastscan_table(y)
            sums = fastscan_sums(np.ascontiguousarray(blocks[:, 576:]), table)
            for i in np.flatnonzero(owners < lists.n_lists):
                far = float(((y - centroids[owners[i]]) ** 2).sum())
                filled = rows[i] < N
                lower = far + add[i] + unit * sums[i] * rescale[i] - error[i] * np.sqrt(far)
                below += int((lower[filled] <= ((base[rows[i][filled]] - q) ** 2).sum(axis=1)).sum())
                total += int(filled.sum())
        assert total == 2 * N * 20
        assert 0.96 <= below / total <= 0.995


# --- errors and damage ---
