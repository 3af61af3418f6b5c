"""Sets of shards: built from blocks, committed by one rename, searched as one, published and fetched."""

from __future__ import annotations

import pickle  # noqa: TID251
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec import shards
from qvec.collection.collection import Collection
from qvec.common.errors import MissingExtraError

N, DIM, K, CLUSTERS = 1200, 12, 8, 4
RNG = np.random.default_rng(5)
X = clustered(RNG, N, DIM)
Q = clustered(RNG, 20, DIM)
PARTITIONS = ("block", "cluster")


def id_of(kind: str, rows: Any) -> Any:
    return [f"n{i}" for i in rows] if kind == "str" else np.asarray(rows)


def built(folder: Path, partition: str = "block", kind: str = "int64", **options: Any) -> Path:
    """A set of all rows of X in four shards."""
    if partition == "cluster":
        options |= {"shards": CLUSTERS, "sample": X}
    shards.create(folder, DIM, metric="l2", ids=kind, partition=partition, **options)  # type: ignore[arg-type]
    blocks = [
        shards.write_block(
            folder, f"b{start}", X[start : start + 300], id_of(kind, rows), [{"i": int(i)} for i in rows]
        )
        for start in range(0, N, 300)
        for rows in [np.arange(start, start + 300)]
    ]
    if partition == "cluster":
        blocks = [shards.merge(folder, number, blocks) for number in range(CLUSTERS)]
    shards.commit(folder, blocks)
    return folder


def nearest(queries: Any, rows: Any, vectors: Any, k: int = K) -> list[list[int]]:
    """Ids of the nearest by float64 brute force."""
    far = ((queries[:, None].astype(np.float64) - vectors[None].astype(np.float64)) ** 2).sum(axis=2)
    return np.asarray(rows)[np.argsort(far, axis=1, kind="stable")[:, :k]].tolist()


@pytest.mark.parametrize("kind", ["int64", "str"])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_set_finds_what_brute_force_finds(tmp_path: Path, partition: str, kind: str) -> None:
    with shards.open(built(tmp_path / "s", partition, kind), "r") as index:
        found = index.search(Q, K, exact=True)
        assert found.ids.tolist() == [id_of(kind, row) if kind == "str" else row for row in nearest(Q, np.arange(N), X)]
        assert found.payloads[0][0] == {"i": nearest(Q, np.arange(N), X)[0][0]}
        assert found.missing == ()
        assert (len(index), index.count(), len(index.manifest.shards)) == (N, N, 4)
        wanted = id_of(kind, [700, 3, 1100])
        got = index.get(wanted)
        assert got.ids.tolist() == list(wanted)
        np.testing.assert_array_equal(got.vectors, X[[700, 3, 1100]])
        assert got.payloads == [{"i": 700}, {"i": 3}, {"i": 1100}]
        for hit in index.search(Q[0], 3):
            assert hit.id in next(shard for n, shard in enumerate(index.shards()) if n == hit.shard)
        assert id_of(kind, [5])[0] in index
        assert id_of(kind, [N])[0] not in index
        with pytest.raises(qvec.MissingIdError, match="no shard has the id"):
            index.get(id_of(kind, [N]))
        assert len(index.get(id_of(kind, [N, 2]), missing="ignore")) == 1
        assert sum(map(len, index.scan(100))) == N
        assert index.verify() == []
        with pickle.loads(pickle.dumps(index)) as again:
            assert again.search(Q[0], 3).ids.tolist() == index.search(Q[0], 3).ids.tolist()


def test_a_block_that_is_written_again_replaces_itself_and_unnamed_blocks_stay_out(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    shards.create(folder, DIM, metric="l2", sample=X, code="int8")
    for _ in range(3):
        first = shards.write_block(folder, "a", X[:100], np.arange(100))
    shards.write_block(folder, "lost", X[100:200], np.arange(100, 200))
    manifest = shards.commit(folder, [first, first])
    assert [(shard.name, shard.rows, shard.first, shard.last) for shard in manifest.shards] == [
        ("a-1.qvec", 100, 0, 99)
    ]
    second = shards.write_block(folder, "b", X[200:300], np.arange(200, 300))
    assert [shard.generation for shard in shards.commit(folder, [second]).shards] == [1, 2]
    with shards.open(folder) as index:
        assert (len(index), index.verify()) == (200, [])
        assert len({shard.stats().calibration for shard in index.shards()}) == 1
    assert shards.discard_staged(folder) == 1
    assert sorted(path.name for path in folder.glob("*.qvec")) == ["a-1.qvec", "b-2.qvec", "routes-2.qvec"]


def test_wrong_blocks_are_refused_and_the_set_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    shards.create(folder, DIM, metric="l2")
    with pytest.raises(qvec.ExistsError, match="has a set of shards already"):
        shards.create(folder, DIM)
    a = shards.write_block(folder, "a", X[:50], np.arange(50))
    for key in ("", "a/b", "a.b", "x" * 65):
        with pytest.raises(qvec.InputError, match="the key of a block"):
            shards.write_block(folder, key, X[:1], [0])
    with pytest.raises(qvec.NotFoundError, match="block 'b' is not there"):
        shards.commit(folder, [a, ("b", 3)])
    with pytest.raises(qvec.InputError, match="was reported with 50 and with 49 rows"):
        shards.commit(folder, [a, ("a", 49)])
    with pytest.raises(qvec.InputError, match="50 rows, 51 were reported"):
        shards.commit(folder, [("a", 51)])
    with pytest.raises(qvec.InputError, match="no blocks"):
        shards.commit(folder, [])
    second = shards.write_block(folder, "second", X[49:60], np.arange(49, 60))
    with pytest.raises(qvec.DuplicateIdError, match=r"id 49 is in a-1\.qvec and in second-1\.qvec"):
        shards.commit(folder, [a, second])
    with shards.open(folder) as index:
        assert index.names == ()
        with pytest.raises(qvec.InputError, match="no shards yet"):
            index.search(Q[0])
    assert shards.commit(folder, [a]).names == ("a-1.qvec",)
    with pytest.raises(qvec.NotFoundError, match=r"no manifest\.qvm"):
        shards.open(tmp_path)
    with pytest.raises(qvec.InputError, match="needs the number of shards and a sample"):
        shards.create(tmp_path / "t", DIM, partition="cluster")
    with pytest.raises(qvec.InputError, match="need a sample of 16 vectors, got 10"):
        shards.create(tmp_path / "t", DIM, partition="cluster", shards=4, sample=X[:10])


def test_every_cluster_is_committed_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    shards.create(folder, DIM, metric="l2", partition="cluster", shards=CLUSTERS, sample=X)
    block = shards.write_block(folder, "b", X, np.arange(N))
    made = [shards.merge(folder, number, [block]) for number in range(CLUSTERS)]
    assert sum(part.rows for part in made) == N
    with pytest.raises(qvec.InputError, match="cluster 'cluster-00003' is missing"):
        shards.commit(folder, made[:-1])
    with pytest.raises(qvec.NotFoundError, match=r"no block .*c\.block"):
        shards.merge(folder, 0, ["c"])
    with pytest.raises(qvec.InputError, match="cluster 4 is not one of 0 to 3"):
        shards.merge(folder, 4, [block])
    shards.commit(folder, made)
    assert list((folder / "staged").iterdir()) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "foreign"])
def test_a_damaged_manifest_is_an_error(tmp_path: Path, damage: str) -> None:
    path = built(tmp_path / "s") / "manifest.qvm"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[40] ^= 1
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-3]), "foreign": b"{}"}[damage])
    with pytest.raises(qvec.FormatError if damage == "foreign" else qvec.CorruptError, match=r"manifest\.qvm is"):
        shards.open(tmp_path / "s")


# --- which shards a search asks ---


def test_a_search_asks_some_shards_at_the_measured_recall(tmp_path: Path) -> None:
    with shards.open(built(tmp_path / "s", "cluster")) as index:
        with pytest.raises(qvec.InputError, match="measure"):
            index.search(Q, K, ask=0.9)
        recalls = index.measure(Q, K)
        true = nearest(Q, np.arange(N), X)
        for count in range(1, CLUSTERS + 1):
            found = index.search(Q, K, ask=count, exact=True)
            assert all(len({*row}) <= count for row in np.where(found.shards < 0, found.shards[:, :1], found.shards))
            hits = [len({*row} & {*truth}) for row, truth in zip(found.ids.tolist(), true, strict=True)]
            assert np.mean(hits) / K == pytest.approx(recalls[count - 1])
        assert recalls[-1] == 1.0
        few = next(count for count, recall in enumerate(recalls, 1) if recall >= 0.9)
        assert index.search(Q, K, ask=0.9).ids.tolist() == index.search(Q, K, ask=few).ids.tolist()
        single = index.search(Q[3], K, ask=2)
        assert single.ids.tolist() == index.search(Q, K, ask=2).ids[3].tolist()
        filters = [{"i": {"$gte": 600}} if i % 2 else None for i in range(len(Q))]
        with pytest.raises(qvec.InputError, match="20 queries"):
            index.search(Q, K, ask=2, where=filters[:3])
    with shards.open(built(tmp_path / "b"), "r") as index:
        with pytest.raises(qvec.InputError, match="by block, any shard"):
            index.search(Q, K, ask=2)
        with pytest.raises(qvec.ReadOnlyError):
            index.measure(Q)


def test_filters_of_a_batch_go_with_their_queries(tmp_path: Path) -> None:
    with shards.open(built(tmp_path / "s", "cluster", fields={"i": "int"})) as index:
        filters = [{"i": {"$gte": 600}} if i % 2 else None for i in range(len(Q))]
        together = index.search(Q, K, ask=2, where=filters)
        for i, where in enumerate(filters):
            assert together.ids[i].tolist() == index.search(Q[i], K, ask=2, where=where).ids.tolist()


# --- missing shards ---


def test_missing_and_damaged_shards_are_named(tmp_path: Path) -> None:
    folder = built(tmp_path / "s")
    (folder / "b300-1.qvec").unlink()
    (folder / "b600-1.qvec").write_bytes(b"none")
    with shards.open(folder, "r") as index:
        with pytest.raises(qvec.MissingShardError, match=r"2 of 4 shards did not answer: b300-1\.qvec") as caught:
            index.search(Q, K)
        assert caught.value.shards == ("b300-1.qvec", "b600-1.qvec")
        found = index.search(Q, K, partial=True, exact=True)
        assert found.missing == ("b300-1.qvec", "b600-1.qvec")
        rows = [*range(300), *range(900, N)]
        assert found.ids.tolist() == nearest(Q, rows, X[rows])
        assert index.search(Q[0], K, partial=True).missing == found.missing
        assert len(index.verify()) == 2
    for name in ("b0-1.qvec", "b900-1.qvec"):
        (folder / name).unlink()
    with shards.open(folder, "r") as index, pytest.raises(qvec.MissingShardError):
        index.search(Q, K, partial=True)


def test_a_late_shard_does_not_hold_up_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, go = built(tmp_path / "s"), threading.Event()
    search = Collection.search

    def slow(self: Any, *args: Any, **options: Any) -> Any:
        if self.path.endswith("b300-1.qvec"):
            go.wait(20)
        return search(self, *args, **options)

    monkeypatch.setattr(Collection, "search", slow)
    with shards.open(folder, "r") as index:
        start = time.monotonic()
        with pytest.raises(qvec.MissingShardError, match=r"b300-1\.qvec: no answer within 0\.2 s"):
            index.search(Q, K, timeout=0.2)
        found = index.search(Q, K, timeout=0.2, partial=True)  # the first call still runs: nobody waits for it again
        assert found.missing == ("b300-1.qvec",)
        assert time.monotonic() - start < 5
        go.set()
        while index.search(Q, K, timeout=5, partial=True).missing:
            assert time.monotonic() - start < 20
        with pytest.raises(qvec.InputError, match="ef"):
            index.search(Q, K, ef=-1, partial=True)  # a wrong option is no missing shard


# --- object storage ---


def harmed(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 16
    path.write_bytes(data[:-100] if how == "cut" else data)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_published_set_is_fetched_and_follows(tmp_path: Path, partition: str) -> None:
    pytest.importorskip("fsspec")
    with shards.open(built(tmp_path / "s", partition)) as index:
        first = shards.publish(index, str(tmp_path / "bucket"))
        shards.fetch(str(tmp_path / "bucket"), tmp_path / "cache")
        with shards.open(tmp_path / "cache", "r") as copy:
            assert copy.search(Q, K).ids.tolist() == index.search(Q, K).ids.tolist()
            assert copy.verify() == []
            index.delete([7])
            second = shards.publish(index, str(tmp_path / "bucket"))
            assert len({*second.names} - {*first.names}) == 1  # what has not changed is not copied again
            kept = {name: (tmp_path / "cache" / name).stat().st_ino for name in first.names if name in second.names}
            shards.fetch(str(tmp_path / "bucket"), tmp_path / "cache")
            assert 7 not in copy
            assert len(copy) == N - 1
        assert kept == {name: (tmp_path / "cache" / name).stat().st_ino for name in kept}
        assert {path.name for path in (tmp_path / "cache").glob("*.qvec")} == {*second.names, second.routes}
    with pytest.raises(qvec.ReadOnlyError, match="fetched copy"):
        shards.open(tmp_path / "cache")
    with pytest.raises(qvec.InputError, match="fetched copy"):
        shards.write_block(tmp_path / "cache", "x", X[:1], [0])
    with pytest.raises(qvec.InputError, match="has a set of shards that is no copy"):
        shards.fetch(str(tmp_path / "bucket"), tmp_path / "s")
    with pytest.raises(qvec.InputError, match="was not published"):
        shards.fetch(str(tmp_path / "s"), tmp_path / "other")


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
@pytest.mark.parametrize("which", ["shard", "routes", "manifest"])
def test_a_damaged_object_is_named_and_never_searched(tmp_path: Path, which: str, how: str) -> None:
    pytest.importorskip("fsspec")
    with shards.open(built(tmp_path / "s")) as index:
        made = shards.publish(index, str(tmp_path / "bucket"))
        name = {"shard": made.names[2], "routes": str(made.routes), "manifest": "manifest.qvm"}[which]
        if how == "gone":
            (tmp_path / "bucket" / name).unlink()
        else:
            harmed(tmp_path / "bucket" / name, how)
        expected = qvec.NotFoundError if how == "gone" else qvec.CorruptError
        with pytest.raises(expected, match=name.replace(".", r"\.")):
            shards.fetch(str(tmp_path / "bucket"), tmp_path / "cache")
        assert not (tmp_path / "cache" / "manifest.qvm").exists()
        with pytest.raises(qvec.NotFoundError):
            shards.open(tmp_path / "cache", "r")
        if how == "cut" and which == "shard":  # publishing again replaces what an upload has left half-way
            shards.publish(index, str(tmp_path / "bucket"))
            shards.fetch(str(tmp_path / "bucket"), tmp_path / "cache")


def test_a_damaged_file_of_the_cache_is_fetched_again(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    with shards.open(built(tmp_path / "s")) as index:
        made = shards.publish(index, str(tmp_path / "bucket"))
    shards.fetch(str(tmp_path / "bucket"), tmp_path / "cache", shards=[1, 2])
    with shards.open(tmp_path / "cache", "r") as copy:
        found = copy.search(Q, K, partial=True)
        assert found.missing == (made.names[0], made.names[3])
    for name, how in ((made.names[1], "flip"), (made.names[2], "cut")):
        harmed(tmp_path / "cache" / name, how)
    shards.fetch(str(tmp_path / "bucket"), tmp_path / "cache")
    with shards.open(tmp_path / "cache", "r") as copy:
        assert copy.verify() == []
        assert copy.search(Q, K, exact=True).ids.tolist() == nearest(Q, np.arange(N), X)


def test_an_error_says_how_to_install_fsspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError, match="pip install 'fsspec'"):
        shards.fetch(str(tmp_path), tmp_path / "cache")


# --- quality ---


def test_codes_are_evaluated_and_chosen_on_a_sample_of_the_shards(tmp_path: Path) -> None:
    with shards.open(built(tmp_path / "s", sample=X, code="int8")) as index:
        report = index.evaluate(Q, codes=["int8", "f32"], sample=600, oversamples=(1,))
        assert 590 <= report.n <= 610
        assert {row.code for row in report.rows} == {"int8", "f32"}
        choice = index.choose(target_recall=0.6, codes=["int4", "f32"], sample=800, oversamples=(1, 4))
        assert choice.met
        assert choice.choice.row is not None
        before = index.manifest.generation
        calibration = choice.apply()
        kind = choice.choice.row.code
        assert {shard.code for shard in index.shards()} == {kind}
        assert {shard.export_calibration() for shard in index.shards()} == {calibration}
        assert index.manifest.generation == before + 1
        assert index.manifest.oversample == choice.choice.row.oversample
        assert index.verify() == []
        block = shards.write_block(tmp_path / "s", "later", X[:50] + 9, np.arange(5000, 5050))
        shards.commit(tmp_path / "s", [block])
        assert {shard.code for shard in index.shards()} == {kind}
        impossible = index.choose(target_recall=0.999, codes=["binary"], sample=800, oversamples=(1,))
        with pytest.raises(qvec.InputError, match="no code meets"):
            impossible.apply()


def test_vectors_that_were_added_last_are_compared_with_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    shards.create(folder, DIM, metric="l2", code="int8")
    old = [shards.write_block(folder, f"a{i}", X[i::2], np.arange(i, N, 2)) for i in range(2)]
    shards.commit(folder, old)
    more = clustered(RNG, 1200, DIM)
    with shards.open(folder) as index:
        assert index.drift().n_checks == 0 or index.drift().level == "none"
        shards.commit(folder, [shards.write_block(folder, "same", X[::-1] * 1.001, np.arange(N, 2 * N))])
        assert index.drift().level == "none"
        index.upsert(more + 40, np.arange(3 * N, 3 * N + len(more)))
        assert index.drift().level != "none"


@pytest.mark.parametrize("kind", ["int64", "str"])
def test_a_collection_lists_its_ids_oldest_first(tmp_path: Path, kind: str) -> None:
    names = id_of(kind, [9, 4, 7])
    with qvec.create(tmp_path / "a.qvec", DIM, ids=kind) as db:  # type: ignore[arg-type]
        assert db.ids().shape == (0,)
        db.add(X[:3], names)
        assert db.ids().tolist() == list(names)
        db.delete([names[1]])
        assert db.ids().tolist() == [names[0], names[2]]
        with db.snapshot() as snapshot:
            db.add(X[3:4], id_of(kind, [1]))
            assert snapshot.ids().tolist() == [names[0], names[2]]
