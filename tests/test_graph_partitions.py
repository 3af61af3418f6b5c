"""Graphs of many rows, which are built by partitions: as good as graphs that grow, and part of the same life."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import qvec
from helpers.recall import recall
from helpers.vectors import clustered
from qvec.codes.configs import CodeConfig
from qvec.common import workspace
from qvec.common.types import Metric
from qvec.datasets import exact_knn
from qvec.index import graph_build, graph_partition

pytestmark = pytest.mark.simd

DIM, N = 64, 5000
CODES: list[CodeConfig] = [qvec.Int8(), qvec.Int4(), qvec.Float32(), qvec.RaBitQ(4), qvec.Binary()]


def vectors(n: int = N, seed: int = 5) -> npt.NDArray[np.float32]:
    return clustered(np.random.default_rng(seed), n, DIM, centroids=60, spread=0.6)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each build by partitions linked."""
    counts: list[int] = []
    run = graph_partition.PartitionBuild.run

    def counted(self: graph_partition.PartitionBuild, rows: Any) -> Any:
        counts.append(len(rows))
        return run(self, rows)

    monkeypatch.setattr(graph_partition.PartitionBuild, "run", counted)
    return counts


def created(path: Path, code: CodeConfig | None = None, metric: Metric = "l2", layout: Any = "compact") -> Any:
    return qvec.create(path, DIM, metric=metric, code=code or qvec.Int8(), index=qvec.HNSW(layout=layout))


def lists_of(db: Any) -> npt.NDArray[np.uint8]:
    with db._store.read() as snap:
        found: npt.NDArray[np.uint8] = snap.columns["adjacency"].read_range(0, N)
        return found


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.kind)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.slow
def test_graphs_are_as_good_as_those_that_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: list[int], code: CodeConfig, metric: Metric
) -> None:
    x, queries = np.split(vectors(N + 100), [N])
    truth, _ = exact_knn(x, queries, 10, metric)
    found = []
    for rows in (graph_build.MIN_PARTITION_ROWS, N + 1):
        monkeypatch.setattr(graph_build, "MIN_PARTITION_ROWS", rows)
        with created(tmp_path / f"{rows}.qvec", code, metric) as db:
            db.add(x, threads=2)
            assert not db.verify(deep=True)
            found.append(recall(db.search(queries, 10, ef=60, oversample=6).ids, truth))
    assert builds == [N]
    assert found[0] >= found[1] - 0.01


@pytest.mark.parametrize("dim", [16, 32])
@pytest.mark.slow
def test_queries_away_from_the_data_find_as_much_as_in_graphs_that_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dim: int
) -> None:
    x, queries = (clustered(np.random.default_rng(seed), n, dim, n // 83, 0.6) for seed, n in ((5, 10_000), (6, 500)))
    truth, _ = exact_knn(x, queries, 10, "l2")
    found = []
    for rows in (graph_build.MIN_PARTITION_ROWS, len(x) + 1):
        monkeypatch.setattr(graph_build, "MIN_PARTITION_ROWS", rows)
        with qvec.create(tmp_path / f"{rows}.qvec", dim, metric="l2", code=qvec.Int8(), index=qvec.HNSW()) as db:
            db.add(x)
            found.append(recall(db.search(queries, 10, oversample=6).ids, truth))
    assert found[0] >= found[1] - 0.005


@pytest.mark.parametrize("layout", ["compact", "packed"])
@pytest.mark.slow
def test_graphs_do_not_depend_on_the_threads(tmp_path: Path, builds: list[int], layout: Any) -> None:
    lists = []
    for threads in (1, 3):
        with created(tmp_path / f"{threads}.qvec", layout=layout) as db:
            db.add(vectors(), threads=threads)
            assert not db.verify(deep=True)
            lists.append(lists_of(db))
    np.testing.assert_array_equal(lists[0], lists[1])
    assert builds == [N, N]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["compact", "packed"])
def test_a_build_that_exceeds_its_memory_gives_the_same_graph(tmp_path: Path, builds: list[int], layout: Any) -> None:
    lists = []
    for memory in (None, 1_000_000, 0):
        index = qvec.HNSW(layout=layout)
        with qvec.create(tmp_path / f"{memory}.qvec", DIM, code=qvec.Int8(), index=index, build_memory=memory) as db:
            db.add(vectors(), threads=2)
            lists.append(lists_of(db))
    np.testing.assert_array_equal(lists[0], lists[1])
    np.testing.assert_array_equal(lists[0], lists[2])
    assert builds == [N, N, N]
    assert not list(tmp_path.glob(".qvec-build-*"))


def test_a_limit_of_memory_must_be_a_number_of_bytes(tmp_path: Path) -> None:
    with pytest.raises(qvec.InputError, match="build_memory must be an integer from 0 to"):
        qvec.create(tmp_path / "a.qvec", DIM, build_memory=-1)


def test_a_full_disk_refuses_the_file_of_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workspace.system, "reserve_space", full)
    with qvec.create(tmp_path / "a.qvec", DIM, code=qvec.Int8(), index=qvec.HNSW(), build_memory=0) as db:
        with pytest.raises(qvec.DiskFullError, match=rf"a build needs \d+ bytes of temporary space in {tmp_path}"):
            db.add(vectors())
        assert len(db) == 0
        assert not db.verify(deep=True)


@pytest.mark.slow
def test_dot_products_and_small_additions_are_linked_in_batches(tmp_path: Path, builds: list[int]) -> None:
    x = vectors()
    with created(tmp_path / "a.qvec", metric="ip") as db:
        db.add(x)
    with created(tmp_path / "b.qvec") as db:
        db.add(x[:4000])
        db.add(x[4000:])
    assert builds == []


@pytest.mark.parametrize("layout", ["compact", "packed"])
@pytest.mark.slow
def test_rows_of_all_additions_are_found(tmp_path: Path, builds: list[int], layout: Any) -> None:
    x, queries = np.split(vectors(14_203), [14_003])
    with created(tmp_path / "a.qvec", layout=layout) as db:
        for start, stop in ((0, 3000), (3000, 8000), (8000, 8001), (8001, 9000), (9000, 14_000), (14_000, 14_003)):
            db.add(x[start:stop], threads=2)
            assert not db.verify(deep=True)
        assert builds == [8000, 14_000]
        truth, _ = exact_knn(x, queries, 10, "l2")
        assert recall(db.search(queries, 10, ef=80, oversample=8).ids, truth) > 0.97


@pytest.mark.slow
def test_deleted_rows_leave_a_graph_that_is_built_again(tmp_path: Path, builds: list[int]) -> None:
    x = vectors(10_000)
    with created(tmp_path / "a.qvec") as db:
        db.add(x[:5000])
        db.delete(np.arange(0, 300))
        db.add(x[5000:])
        assert not db.verify(deep=True)
        assert builds == [5000, 9700]
        with db._store.read() as snap:
            assert snap.state.index.indexed == 9700
            assert snap.state.index.tombstones == 0
        np.testing.assert_array_equal(db.search(x[300:], 1, ef=60).ids[:, 0], np.arange(300, 10_000))
        db.delete(np.arange(300, 4000))
        db.optimize()
        assert not db.verify(deep=True)


def test_progress_grows_to_the_number_of_rows_and_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    with created(tmp_path / "a.qvec") as db:
        db.add(vectors(), threads=2, progress=lambda done, total: calls.append((done, total)))
        assert calls == sorted(calls)
        assert calls[-1] == (N, N)

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with created(tmp_path / "b.qvec") as db:
        with pytest.raises(KeyboardInterrupt):
            db.add(vectors(), threads=2, progress=stop)
        assert len(db) == 0
        assert not db.verify(deep=True)
        db.add(vectors(), threads=2)
        assert not db.verify(deep=True)
