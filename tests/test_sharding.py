"""Shards: merged hits equal those of one collection of all vectors; handles can be pickled to other processes."""

from __future__ import annotations

import pickle  # noqa: TID251
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qvec
from qvec import shards
from qvec.ray import Search, WriteShards

N, DIM, K, SHARDS = 300, 12, 8, 3
RNG = np.random.default_rng(4)
X = RNG.normal(size=(N, DIM)).astype(np.float32)
Q = RNG.normal(size=(6, DIM)).astype(np.float32)


def made(path: Path, rows: Any, **options: Any) -> Path:
    with qvec.create(path, DIM, metric="l2", **options) as db:
        if len(rows):
            ids = [f"n{i}" for i in rows] if options.get("ids") == "str" else rows
            db.add(X[rows], ids, [{"i": int(i)} for i in rows])
    return path


@pytest.fixture(params=["int64", "str"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A collection of all vectors, and an index of shards with the same rows; one shard is empty."""
    ids = request.param
    paths = [made(tmp_path / f"{s}.qvec", np.arange(s, N, SHARDS), ids=ids) for s in range(SHARDS)]
    paths.append(made(tmp_path / "empty.qvec", [], ids=ids))
    whole = made(tmp_path / "whole.qvec", np.arange(N), ids=ids)
    with qvec.open(whole, "r") as one, qvec.ShardedIndex(paths) as index:
        yield one, index


@pytest.mark.parametrize("options", [{}, {"offset": 5}, {"max_distance": 20.0}, {"include": ["vectors", "payloads"]}])
def test_shards_find_what_one_collection_finds(both: Any, options: dict[str, Any]) -> None:
    one, index = both
    expected, found = one.search(Q, K, exact=True, **options), index.search(Q, K, exact=True, **options)
    assert found.ids.tolist() == expected.ids.tolist()
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert found.counts.tolist() == expected.counts.tolist()
    assert found.payloads == expected.payloads
    numbers = [[-1 if i in (-1, "") else int(str(i).removeprefix("n")) % SHARDS for i in row] for row in found.ids]
    assert found.shards.tolist() == numbers
    if "vectors" in expected.included:
        np.testing.assert_array_equal(found.vectors, expected.vectors)
    single = index.search(Q[0], K, exact=True, **options)
    assert single.ids.tolist() == found.ids[0].tolist()
    assert [hit["payload"] for hit in single.to_list()] == [hit["payload"] for hit in found.to_list()[0]]
    assert single.counts == found.counts[0]


def test_arrays_are_padded_if_there_are_fewer_than_k(both: Any) -> None:
    one, index = both
    expected, found = one.search(Q, N + 10), index.search(Q, N + 10)
    assert found.ids.shape == (len(Q), N + 10)
    assert found.counts.tolist() == [N] * len(Q)
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.payloads == expected.payloads


def test_shards_read_as_one(both: Any) -> None:
    one, index = both
    ids = [one.search(Q[0], 1).ids[0], *one.search(Q[1], 3).ids.tolist()]
    assert index.get(ids).ids.tolist() == ids
    np.testing.assert_array_equal(index.get(ids).vectors, one.get(ids).vectors)
    assert index.get(ids).payloads == one.get(ids).payloads
    pa, pl = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    assert all(index.get(form).ids.tolist() == ids for form in (pa.array(ids), pl.Series(ids), tuple(ids)))
    assert index.get(pa.scalar(ids[0])).ids.tolist() == ids[:1]
    assert len(index) == N
    assert ids[0] in index
    with pytest.raises(qvec.MissingIdError, match="no shard has the id"):
        index.get([one.search(Q[0], 1).ids[0], 10**6 if isinstance(ids[1], int) else "none"])


def hits(*lines: list[tuple[int, float]], k: int = 4) -> qvec.BatchHits:
    ids, distances = np.full((len(lines), k), -1), np.full((len(lines), k), np.inf, np.float32)
    for row, line in enumerate(lines):
        for place, (id, distance) in enumerate(line):
            ids[row, place], distances[row, place] = id, distance
    return qvec.BatchHits(ids, distances, np.array([len(line) for line in lines]))


def test_equal_distances_are_ordered_by_shard_and_unique_keeps_each_id_once() -> None:
    parts = [hits([(5, 1.0), (6, 2.0)]), hits([(7, 1.0), (6, 1.0), (8, 3.0)])]
    merged = qvec.merge_topk(parts, 5)
    assert merged.ids.tolist() == [[5, 7, 6, 6, 8]]
    assert merged.shards.tolist() == [[0, 1, 1, 0, 1]]
    unique = qvec.merge_topk(parts, 5, unique=True)
    assert unique.ids.tolist() == [[5, 7, 6, 8, -1]]
    assert (unique.counts.tolist(), unique.distances.tolist()) == ([4], [[1, 1, 1, 3, np.inf]])


lines = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5).map(float)), max_size=4, unique_by=lambda hit: hit[0])


@settings(deadline=None)
@given(st.lists(st.tuples(lines, lines), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 3), st.booleans())
def test_a_merge_is_a_stable_sort(parts: Any, k: int, offset: int, unique: bool) -> None:
    sorted_parts = [[sorted(line, key=lambda hit: hit[1]) for line in part] for part in parts]
    merged = qvec.merge_topk([hits(*part) for part in sorted_parts], k, offset=offset, unique=unique)
    for query in range(2):
        together = sorted((hit for part in sorted_parts for hit in part[query]), key=lambda hit: hit[1])
        if unique:
            together = list({hit[0]: hit for hit in reversed(together)}.values())[::-1]
            together.sort(key=lambda hit: hit[1])
        expected = together[offset : offset + k]
        count = int(merged.counts[query])
        assert count == len(expected)
        assert merged.distances[query, :count].tolist() == [hit[1] for hit in expected]
        assert merged.ids[query, count:].tolist() == [-1] * (k - count)
        if not unique:
            assert merged.ids[query, :count].tolist() == [hit[0] for hit in expected]
        else:
            assert len(set(merged.ids[query, :count].tolist())) == count


def test_incompatible_parts_are_not_merged(tmp_path: Path) -> None:
    with pytest.raises(qvec.InputError, match="no hits to merge"):
        qvec.merge_topk([])
    with pytest.raises(qvec.InputError, match=r"parts\[1\] is of \(2,\) queries"):
        qvec.merge_topk([hits([]), hits([], [])])
    other = hits([])
    other.zero_score = 1.0
    with pytest.raises(qvec.InputError, match="another metric"):
        qvec.merge_topk([hits([]), other])
    plain = hits([])
    other = qvec.BatchHits(plain.ids, plain.distances, plain.counts, [[None] * 4])
    with pytest.raises(qvec.InputError, match="do not include the same"):
        qvec.merge_topk([hits([]), other])
    with pytest.raises(qvec.InputError, match="at least one"):
        qvec.ShardedIndex([])
    a = made(tmp_path / "a.qvec", np.arange(3))
    qvec.create(tmp_path / "b.qvec", DIM, metric="cosine").close()
    with pytest.raises(qvec.InputError, match=r"b\.qvec has metric cosine"):
        qvec.ShardedIndex([a, tmp_path / "b.qvec"])
    with qvec.ShardedIndex([a]) as index:
        for name, options in (("mmr", {"mmr": 0.5}), ("explanation", {"include": ("explanation",)})):
            with pytest.raises(qvec.InputError, match=f"{name} is for a search of one collection"):
                index.search(Q, **options)
    with pytest.raises(qvec.ClosedError):
        index.search(Q)


# --- other processes ---


def test_a_pickled_collection_is_open_for_reading_where_it_is_unpickled(tmp_path: Path) -> None:
    path = made(tmp_path / "a.qvec", np.arange(N))
    code = """
import pickle, sys
db = pickle.loads(sys.stdin.buffer.read())
print(db.search_by_id(7, k=1).ids[0], len(db))
try: db.delete([1])
except Exception as error: print(type(error).__name__)
"""
    with qvec.open(path) as db:
        done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(db), capture_output=True, check=True)
        assert done.stdout.decode().split() == [str(db.search_by_id(7, k=1).ids[0]), str(N), "ReadOnlyError"]
    with qvec.ShardedIndex([path]) as index, pickle.loads(pickle.dumps(index)) as again:
        assert again.search(Q[0], 3).ids.tolist() == index.search(Q[0], 3).ids.tolist()
    with qvec.open(path, "r", memory="ram") as db, pickle.loads(pickle.dumps(db)) as again:
        assert again._store.memory == "ram"


# --- batches in Ray's format ---


def written(folder: Path) -> Path:
    """A set of shards, written as by two workers; one of them repeats a batch."""
    shards.create(folder, DIM, metric="l2", code="int8", sample=X)
    workers, reported = [WriteShards(folder) for _ in range(2)], []
    for start in [*range(0, N, 50), 100]:
        rows = np.arange(start, start + 50)
        out = workers[start // 50 % 2]({"id": rows, "vector": X[rows], "page": rows * 2})
        assert out["rows"].tolist() == [50]
        reported.append((out["key"][0], int(out["rows"][0])))
    shards.commit(folder, reported)
    return folder


def test_batches_are_written_to_shards_and_searched(tmp_path: Path) -> None:
    folder = written(tmp_path / "s")
    with shards.open(folder, "r") as index:
        assert (len(index), len(index.names), index.verify()) == (N, N // 50, [])
        assert len({shard.stats().calibration for shard in index.shards()}) == 1
        assert index.get([7]).payloads == [{"page": 14}]
        expected = index.search(Q, K)
    with qvec.open(made(tmp_path / "whole.qvec", np.arange(N)), "r") as one:
        assert expected.ids.tolist() == one.search(Q, K, exact=True).ids.tolist()
    search = Search(folder, K)
    out = search({"vector": Q, "name": np.arange(len(Q))})
    assert set(out) == {"vector", "name", "ids", "distances", "shards"}
    assert out["ids"].tolist() == expected.ids.tolist()
    ragged = np.empty(len(Q), object)
    ragged[:] = list(Q)  # as Arrow lists arrive
    assert search({"vector": ragged})["ids"].tolist() == expected.ids.tolist()
    with pytest.raises(qvec.InputError, match="no column 'vector'; it has name"):
        search({"name": Q})


def test_a_worker_keeps_a_copy_of_a_published_set(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    with shards.open(written(tmp_path / "s"), "r") as index:
        shards.publish(index, str(tmp_path / "bucket"))
        search = Search(tmp_path / "cache", K, url=str(tmp_path / "bucket"))
        assert search({"vector": Q})["ids"].tolist() == index.search(Q, K).ids.tolist()


def test_a_writer_stores_times_and_masked_values_as_they_are(tmp_path: Path) -> None:
    shards.create(tmp_path / "s", 2)
    writer = WriteShards(tmp_path / "s")
    batch = {
        "id": np.arange(2),
        "vector": np.eye(2, dtype=np.float32),
        "at": np.array(["2024-05-01T12:00:00.000001", "NaT"], "datetime64[ns]"),
        "day": np.array(["2024-05-01", "NaT"], "datetime64[D]"),
        "n": np.ma.masked_array([1, 2], [False, True]),
    }
    out = writer(batch)
    shards.commit(tmp_path / "s", [(out["key"][0], int(out["rows"][0]))])
    at = datetime(2024, 5, 1, 12, 0, 0, 1, UTC)
    with shards.open(tmp_path / "s", "r") as index:
        assert index.get([0, 1]).payloads == [
            {"at": at, "day": "2024-05-01", "n": 1},
            dict.fromkeys(["at", "day", "n"]),
        ]
    with pytest.raises(qvec.InputError, match="column 'took' has timedelta64"):
        writer({"id": [0, 1], "vector": np.eye(2), "took": np.array([1, 2], "timedelta64[s]")})
    with pytest.raises(qvec.InputError, match="row 1, column 'at'"):
        writer({"id": [0, 1], "vector": np.eye(2), "at": np.array([0, 2**60], "datetime64[us]")})
    with pytest.raises(qvec.InputError, match="no column 'id'"):
        writer({"vector": np.eye(2)})
