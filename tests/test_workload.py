"""Workloads of benchmarks, from folders and files that the tests write; grown data sets."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.vectors import clustered
from qvec.common.errors import InputError, NotFoundError
from qvec.datasets import Workload, exact_knn, grow, load_workload
from qvec.datasets.grow import mixtures, write_rows
from qvec.datasets.workload import load_truth

RNG = np.random.default_rng(11)
ALL = clustered(RNG, 330, 12)
X, Q = ALL[:300], ALL[300:]
TRUTH = exact_knn(X, Q, 20, "l2")[0]


def texmex(rows: np.ndarray) -> bytes:
    return b"".join(struct.pack("<i", len(row)) + row.tobytes() for row in rows)


def bigann(rows: np.ndarray) -> bytes:
    return struct.pack("<II", *rows.shape) + rows.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "base.npy", X)
    np.save(tmp_path / "queries.npy", Q)
    np.save(tmp_path / "gt.npy", TRUTH.astype(np.int32))
    (tmp_path / "meta.json").write_text('{"metric": "l2"}')
    return tmp_path


def test_a_folder_contains_vectors_queries_neighbors_and_metric(folder: Path) -> None:
    found = load_workload(folder, 10)
    assert (found.name, found.metric) == (folder.name, "l2")
    np.testing.assert_array_equal(found.base, X)
    np.testing.assert_array_equal(found.queries, Q)
    np.testing.assert_array_equal(found.truth, TRUTH)
    assert (found.queries.dtype, found.truth.dtype) == (np.float32, np.int64)


def test_neighbors_that_are_not_there_are_computed(folder: Path) -> None:
    (folder / "gt.npy").unlink()
    calls: list[tuple[int, int]] = []
    found = load_workload(folder, 10, progress=lambda done, total: calls.append((done, total)))
    np.testing.assert_array_equal(found.truth[:, :20], TRUTH)
    assert found.truth.shape == (30, 100)
    assert calls[-1] == (300, 300)


def test_fewer_rows_have_neighbors_of_their_own(folder: Path) -> None:
    found = load_workload(folder, 10, rows=120, max_queries=7)
    assert (len(found.base), len(found.queries)) == (120, 7)
    np.testing.assert_array_equal(found.truth[:, :10], exact_knn(X[:120], Q[:7], 10, "l2")[0])


def test_texmex_and_bigann_names_are_found(tmp_path: Path) -> None:
    for name, suffixes, write in (
        ("texmex", (".fvecs", ".fvecs", ".ivecs"), texmex),
        ("bigann", (".fbin", ".fbin", ".ibin"), bigann),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for part, suffix, rows in zip(
            ("base", "query", "groundtruth"), suffixes, (X, Q, TRUTH.astype(np.int32)), strict=True
        ):
            (folder / f"sift_{part}{suffix}").write_bytes(write(rows))
        (folder / f"sift_learn{suffixes[0]}").write_bytes(write(X[:10]))
        found = load_workload(folder, 10, metric="l2")
        np.testing.assert_array_equal(found.base, X)
        np.testing.assert_array_equal(found.truth, TRUTH)


def test_an_hdf5_of_ann_benchmarks_is_a_workload(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    rows, distances = exact_knn(X, Q, 20, "cosine")
    with h5py.File(tmp_path / "x-12-angular.hdf5", "w") as h5:
        h5.attrs["distance"] = "angular"
        for name, values in (("train", X), ("test", Q), ("neighbors", rows.astype("i4")), ("distances", distances)):
            h5[name] = values
    found = load_workload(tmp_path / "x-12-angular.hdf5", 10)
    assert (found.name, found.metric) == ("x-12-angular", "cosine")
    np.testing.assert_array_equal(found.truth, rows)


def test_neighbors_of_bigann_may_be_followed_by_distances(tmp_path: Path) -> None:
    file = tmp_path / "truth.bin"
    rows = TRUTH.astype("<i4")
    file.write_bytes(bigann(rows) + np.zeros(rows.shape, "<f4").tobytes())
    np.testing.assert_array_equal(load_truth(file), TRUTH)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        InputError, match=r"4807 bytes; its header promises 30 rows of 20 neighbors, 2408 bytes, or 4808"
    ):
        load_truth(file)


def test_a_file_of_vectors_needs_queries_and_a_metric(folder: Path) -> None:
    found = load_workload(folder / "base.npy", 10, queries=folder / "queries.npy", truth=folder / "gt.npy", metric="l2")
    assert found.name == "base"
    with pytest.raises(InputError, match="name a file of queries too"):
        load_workload(folder / "base.npy", 10, metric="l2")
    with pytest.raises(InputError, match="does not have a metric: name one of cosine, ip, l2"):
        load_workload(folder / "base.npy", 10, queries=folder / "queries.npy")


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (TRUTH[:29], "29 rows for 30 queries"),
        (TRUTH[:, :9], "9 neighbors a query; k is 10"),
        (TRUTH + 295, "has a neighbor outside the 300 rows"),
        (np.where(np.arange(20) == 3, -1, TRUTH), "query 0 has a neighbor outside"),
        (TRUTH.astype(np.float64), "dtype float64, not integers"),
        (TRUTH[::-1].copy(), "ground truth is of other vectors or another metric: of query 0, "),
    ],
)
def test_neighbors_that_cannot_be_right_are_refused(folder: Path, truth: np.ndarray, message: str) -> None:
    np.save(folder / "gt.npy", truth)
    with pytest.raises(InputError, match=message):
        load_workload(folder, 10)


def test_neighbors_by_another_metric_are_refused(folder: Path) -> None:
    np.save(folder / "gt.npy", exact_knn(X * np.linspace(0.1, 9, 300)[:, None], Q, 20, "ip")[0])
    with pytest.raises(InputError, match="other vectors or another metric"):
        load_workload(folder, 10)


def test_equal_vectors_may_stand_in_any_order(folder: Path) -> None:
    np.save(folder / "base.npy", np.repeat(X[:30], 10, axis=0))
    truth = exact_knn(np.repeat(X[:30], 10, axis=0), Q, 10, "l2")[0]
    np.save(folder / "gt.npy", truth[:, ::-1].copy())
    assert load_workload(folder, 10).truth.shape == (30, 10)


def test_missing_and_mismatched_files_are_named(folder: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere: no such file or folder"):
        load_workload("nowhere")
    with pytest.raises(InputError, match="k is 301; the limit is 1 to the 300 rows"):
        load_workload(folder, 301)
    with pytest.raises(InputError, match="rows is 0"):
        load_workload(folder, 10, rows=0)
    (folder / "meta.json").write_text("{}")
    with pytest.raises(InputError, match=r"meta.json is not a JSON object with a metric"):
        load_workload(folder)
    (folder / "meta.json").write_text('{"metric": "hamming"}')
    with pytest.raises(InputError, match="metric is 'hamming'"):
        load_workload(folder)
    np.save(folder / "query.npy", Q)
    with pytest.raises(InputError, match=r"2 files that may be the queries: queries\.npy, \.\.\.|queries: query\.npy"):
        load_workload(folder, metric="l2")
    (folder / "query.npy").unlink()
    np.save(folder / "queries.npy", Q[:, :5])
    with pytest.raises(InputError, match="queries have dimension 5, the base has 12"):
        load_workload(folder, metric="l2")
    (folder / "base.npy").unlink()
    with pytest.raises(InputError, match=r"holds no base\.\*"):
        load_workload(folder, metric="l2")


# --- sets that are grown ---

SOURCE = Workload("small", "cosine", X, Q, exact_knn(X, Q, 20, "cosine")[0])


def test_rows_are_mixtures_with_noise_of_a_quarter() -> None:
    (rows,) = mixtures(np.eye(40, dtype=np.float32), 4000, "l2", 3)
    values = np.sort(rows, axis=1)[:, ::-1]
    apart = values[:, 0] < 0.95  # most rows mix two different ones
    assert np.median(values[apart, 0]) == pytest.approx(0.7, abs=0.02)
    mixture = 0.7**2 + 0.3**2 + 2 * 0.7 * 0.3 / 40  # mean squared length: the two rows are the same in one of 40
    assert (rows**2).sum(axis=1).mean() == pytest.approx((1 + 0.25**2) * mixture, rel=0.015)
    (unit,) = mixtures(X, 500, "cosine", 3)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)


def test_the_first_rows_do_not_depend_on_the_size() -> None:
    small = np.concatenate(list(mixtures(X, 9000, "l2", 1)))
    large = np.concatenate(list(mixtures(X, 17_000, "l2", 1)))
    assert (small.shape, large.shape) == ((9000, 12), (17_000, 12))
    np.testing.assert_array_equal(small, large[:9000])
    assert not np.array_equal(small[:10], small[8192:8202])
    assert len(np.unique(large, axis=0)) == 17_000


def test_a_grown_set_is_kept_and_loaded(tmp_path: Path) -> None:
    made = grow(SOURCE, 9000, tmp_path / "grown", queries=25)
    assert (made.base.shape, made.queries.shape, made.truth.shape) == ((9000, 12), (25, 12), (25, 100))
    np.testing.assert_array_equal(made.truth[:, :10], exact_knn(made.base, made.queries, 10, "cosine")[0])
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "grown").iterdir()}
    again = grow(SOURCE, 9000, tmp_path / "grown", queries=25)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "grown").iterdir()} == before
    np.testing.assert_array_equal(again.base, made.base)
    np.testing.assert_array_equal(again.truth, made.truth)
    np.testing.assert_array_equal(load_workload(tmp_path / "grown").base, made.base)
    with pytest.raises(InputError, match="holds another set"):
        grow(SOURCE, 9001, tmp_path / "grown", queries=25)


def test_a_grown_set_that_was_not_finished_is_made_again(tmp_path: Path) -> None:
    grow(SOURCE, 100, tmp_path, queries=5)
    (tmp_path / "meta.json").unlink()
    (tmp_path / "base.npy").write_bytes(b"half of it")
    assert grow(SOURCE, 100, tmp_path, queries=5).base.shape == (100, 12)
    assert json.loads((tmp_path / "meta.json").read_text())["mixed_from"] == "small"


def test_a_set_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1 row and 1 query"):
        grow(SOURCE, 0, tmp_path)


def test_a_set_is_written_with_the_memory_of_a_few_blocks(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        write_rows(tmp_path / "base.npy", mixtures(X, 200_000, "cosine", 0), 200_000, 12)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.load(tmp_path / "base.npy", mmap_mode="r").shape == (200_000, 12)
    assert most < 0.5 * 200_000 * 12 * 4


def test_a_set_that_cannot_be_written_leaves_no_half_of_it(tmp_path: Path) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield X
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_rows(tmp_path / "base.npy", failing(), 600, 12)
    assert not (tmp_path / "base.npy").exists()
