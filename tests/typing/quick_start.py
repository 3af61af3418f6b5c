"""A program that uses every public call as a user would. A test runs it; mypy and pyright check it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import qvec

DIM = 16


def fill(path: Path, vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    with qvec.create(path, DIM, metric="l2", fields={"page": "int", "lang": "keyword"}, model="demo") as db:
        result = db.add(vectors, payloads=[{"page": i, "lang": "en"} for i in range(len(vectors))])
        assert result.added == len(vectors), result
        assert db.upsert(vectors[:1], [0], [{"page": -1, "lang": "de"}]).replaced == 1
        assert db.update_payloads([1, 2], {"lang": "fr"}) == 2
        with db.transaction():
            db.add(vectors[:2], [1000, 1001])
            assert db.delete([1000, 1001], threads=1) == 2
        db.add_field("score", "float")
        db.drop_field("score")
        assert sorted(db.fields) == ["lang", "page"]


def read(path: Path) -> None:
    with qvec.open(path, "r", checksums=True, model="demo") as db:
        assert (db.dim, db.metric, db.code, db.index, db.mode, db.model) == (DIM, "l2", "int8", "flat", "r", "demo")
        assert len(db) == db.count() == db.stats().count
        assert 3 in db
        assert db.path == str(path)
        record = db.get(3)[0]
        payload = record.payload
        assert payload is not None
        assert payload["page"] == 3
        assert record.vector.shape == (DIM,)
        assert [found.id for found in db.get(where={"lang": "fr"}, limit=1, offset=1)] == [2]
        assert sum(len(records) for records in db.scan(100)) == len(db)
        with db.snapshot() as snapshot:
            assert snapshot.verify() == []


def search(path: Path, vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    with qvec.open(path, "r") as db:
        query: list[float] = vectors[3].tolist()
        hits = db.search(query, 5, where={"page": {"$gte": 0}}, include=("payloads", "vectors", "explanation"))
        best = hits[0]
        assert best.id == 3
        assert best.distance == -best.score
        assert best.vector.shape == (DIM,)
        assert best.payload == {"page": 3, "lang": "en"}
        assert hits.counts == len(hits) == 5
        assert len(hits[1:3]) == 2
        assert hits.explanation.strategy
        ids, distances = hits.arrays()
        assert ids.shape == distances.shape == hits.scores.shape
        assert [hit.id for hit in hits] == [found["id"] for found in hits.to_list()] == ids.tolist()
        batch = db.search([query, query], 3, ef=50, oversample=3.0)
        assert [hit.id for row in batch for hit in row][:3] == batch[0].ids.tolist()
        assert batch.counts.sum() == 6
        neighbors: qvec.Hits = db.search_by_id(3, 2, max_distance=100.0, offset=1, mmr=0.5)
        assert len(neighbors) == 2
        assert len(db.search_by_id([3, 4], 2)) == 2
        groups = db.search_groups(query, 2, group_by="lang", group_size=2)
        assert {hit.group for hit in groups} <= {"en", "fr", "de"}
        assert len(groups.groups) == 4
        unknown: qvec.BatchHits = db.search(np.asarray(vectors)[:3], 1, exact=True, threads=1)
        assert len(unknown) == 3


def change_codes(path: Path, vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    with qvec.open(path) as db:
        curves = db.tune(vectors[:50], ks=[10])
        assert curves.n_queries == 50
        assert len(db.search(vectors[0].tolist(), 10, recall=0.9)) == 10
        report = db.evaluate(k=5, n=20, codes=["int8", "binary"])
        assert report.rows
        assert db.drift().level == "none"
        choice = db.choose(0.5, indexes="current", codes=["int8"], n=20, max_n=20)
        assert choice.met, choice
        made = db.requantize("rabitq4")
        assert made.active
        assert db.rollback(0).number == 0
        trained = db.calibrate(vectors, code=qvec.Int8(scale="per_dim"), activate=False)
        exported = db.export_calibration(trained.number)
        assert db.import_calibration(exported, activate=True).active
        assert db.requantize(generation=0).number == 0
        db.drop_generation(made.number)
        assert [generation.number for generation in db.generations()] == [0, 2, 3]


def maintain(path: Path) -> None:
    with qvec.open(path) as db:
        assert db.erase([5], threads=1) == 1
        assert db.repair(threads=1) == []
        assert db.verify(deep=True) == []
        released = db.optimize(threads=1)
        assert released >= 0
        assert db.compact() >= 0
        db.backup(path.with_suffix(".copy"))
    with qvec.open(path.with_suffix(".copy"), "r", untrusted=True) as copy:
        assert 5 not in copy


def several(folder: Path, vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    with qvec.Database(folder) as database:
        for name in ("a", "b"):
            database.create(name, DIM, metric="l2").add(vectors)
        assert database.list() == ["a", "b"]
        assert "a" in database
        database.open("a", "r").close()
    with qvec.ShardedIndex([folder / "a.qvec", folder / "b.qvec"]) as shards:
        hits = shards.search(vectors[0].tolist(), 2)
        assert sorted(hit.shard for hit in hits) == [0, 1]
        assert len(shards.get([1])) == 1
    merged = qvec.merge_topk([hits, hits], 1, unique=True)
    assert merged[0].id == 0
    assert qvec.interchange.ExportFormat is not None


def main(folder: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((500, DIM)).astype(np.float32).reshape(500, DIM)
    path = folder / "quick.qvec"
    fill(path, vectors)
    read(path)
    search(path, vectors)
    change_codes(path, vectors)
    maintain(path)
    several(folder / "many", vectors)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
