"""Small files to be changed under valid checksums, and a check of all calls on a changed file.

A call may raise an error of qvec's or return any answer. A signal, another exception or an endless loop is a failure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from figures import Figures, Job
from forked_workers import each

import qvec
from helpers.vectors import clustered
from qvec.quality import drift as watch
from qvec.schema.layout import DRIFT, QUANTIZER, ROW, TUNING
from qvec.storage.snapshot import Snapshot
from qvec.storage.store import Store, Transaction

DIM = 16
N = 160
ROWS_PER_CHECK = 64  # of drift: a low number, so that each file has some checks, and the calls make another
SAMPLE = clustered(np.random.default_rng(3), 300, DIM)  # as many as codes are trained on
X = SAMPLE[: N + ROWS_PER_CHECK]
HANG = 10.0  # seconds
COLLECTIONS: dict[str, dict[str, Any]] = {
    "graph": {"code": "int8", "index": qvec.HNSW(m=4, ef_construction=30), "metric": "l2"},
    "packed": {"code": "int8", "index": qvec.HNSW(m=16, ef_construction=40, layout="packed"), "metric": "cosine"},
    "lists": {"code": "binary", "index": qvec.IVF(nlist=8), "ids": "str", "metric": "ip"},
    "plain": {"code": qvec.Int8(scale="per_dim"), "index": "flat", "originals": "none", "metric": "l2"},
}
FIELDS = {"row": "int", "tag": "keyword", "tags": "keyword[]", "at": "float", "body": "text", "lexical": "sparse"}
TEXTS = [f"common word{i % 7} word{i * i % 50} row{i}" for i in range(N)]
SPARSE = {3: 1.5, 20: 0.5, 1001: 2.0}


class Case(NamedTuple):
    """A wrong value at a place of a file."""

    collection: str
    what: str
    place: Any
    value: Any = None


Change = Callable[[Transaction, Case], object]


def name(ids: str, i: int) -> int | str:
    return f"x{i}" if ids == "str" else i


def payload(i: int) -> dict[str, Any]:
    weights = [[i % 11, 20 + i % 7, 1000 + i], [1.5, 0.5 + i % 4, 1.0]]
    return {"row": i, "tag": f"t{i % 5}", "tags": ["a", "b"], "at": i / 2, "body": TEXTS[i], "lexical": weights}


def create(path: str, options: dict[str, Any]) -> None:
    ids, watch.ROWS_PER_CHECK = options.get("ids", "int64"), ROWS_PER_CHECK
    with qvec.create(path, DIM, fields=FIELDS, durability="relaxed", sample=SAMPLE, **options) as db:  # type: ignore[arg-type]
        names = [name(ids, i) for i in range(N)]
        payloads = [payload(i) for i in range(N)]
        db.add(X[:N], names, payloads)
        db.delete(names[30:45])
        if options.get("originals") != "none":
            db.tune(X[:50], ks=(5,))
            db.requantize("f16")
            db.requantize(options["code"])
            db.tune_fusion(X[:20], texts=TEXTS[:20], relevant=names[:20])
        for _ in range(2):
            db.upsert(X[:ROWS_PER_CHECK], names[:ROWS_PER_CHECK], payloads[:ROWS_PER_CHECK])


def prepare(job: Job) -> list[str]:
    """Create the files to change, and choose among them."""
    chosen = job.chosen(COLLECTIONS)
    for collection in COLLECTIONS:
        create(str(base(job.folder, collection)), COLLECTIONS[collection])
    return chosen


def base(folder: Path, collection: str) -> Path:
    return folder / f"{collection}.base"


def records_of(reading: Snapshot) -> dict[str, tuple[int, int]]:
    """Kinds and numbers of records of each kind: of the active generation and of one that is not active."""
    state = reading.state
    active = (state["active"] if isinstance(state, dict) else state.active) or 0
    keys = {
        "quantizer": (QUANTIZER, active), "older quantizer": (QUANTIZER, 0), "drift": (DRIFT, active),
        "curves": (TUNING, 0), "queries": (TUNING, 1), "row": (ROW, 3),
    }  # fmt: skip
    return {what: key for what, key in keys.items() if reading.record(*key) is not None}


def calls(ids: str, keeps: bool) -> dict[str, Callable[[qvec.Collection], object]]:
    """Every call that reads or changes a collection."""
    one, more = name(ids, 3), [name(ids, i) for i in (0, 1, 3, 34, N - 1)]
    new, later = [name(ids, i) for i in range(1000, 1004)], [name(ids, i) for i in range(2000, 2000 + ROWS_PER_CHECK)]
    names_erased = [name(ids, i) for i in range(101, 120, 3)]
    where = {"row": {"$gte": 60}, "tag": "t1", "tags": "a", "at": {"$lt": 70.0}}

    def lists(db: qvec.Collection) -> dict[str, Any]:
        return {"nprobe": 3} if db.stats().lists else {"ef": 50}

    return {
        "search": lambda db: db.search(X[:20], 5, include=("payloads", "vectors")),
        "search exactly": lambda db: db.search(X[0], 400, exact=True),
        "search with effort": lambda db: db.search(X[5], 10, **lists(db)),
        "search with a filter": lambda db: db.search(X[5], 10, where=where),
        "search with a wide filter": lambda db: db.search(X[5], 10, where={"tag": {"$in": ["t1", "t2", "t3"]}}),
        "search by id": lambda db: db.search_by_id(one, k=3),
        "search by recall": lambda db: db.search(X[3], 5, recall=0.5),
        "search by groups": lambda db: db.search_groups(X[3], 5, group_by="tag"),
        "search by text": lambda db: db.search(text="common word3 word9 row7", k=20, highlight=True),
        "search by sparse vector": lambda db: db.search(sparse=SPARSE, k=20),
        "search by all": lambda db: db.search(X[:3], 10, text=TEXTS[:3], sparse=[SPARSE] * 3, where=where),
        "match": lambda db: db.count({"body": {"$match": "common word4"}}),
        "get": lambda db: db.get(more),
        "get by a filter": lambda db: db.get(where=where),
        "scan": lambda db: list(db.scan(batch_size=90)),
        "stats": lambda db: db.stats(graph=True),
        "generations": lambda db: db.generations(),
        "export": lambda db: db.export_calibration(),
        "drift": lambda db: db.drift(),
        "fields": lambda db: db.fields,
        "verify": lambda db: db.verify(),
        "upsert": lambda db: db.upsert(X[:4] + 1, new, [payload(i) for i in range(4)], threads=1),
        "update": lambda db: db.update_payloads(new[:1], {"tag": "other", "body": "another text"}),
        "delete": lambda db: db.delete([name(ids, i) for i in range(0, 100, 2)]),
        "add": lambda db: db.add(X[-ROWS_PER_CHECK:], later, threads=1),
        "requantize": lambda db: db.requantize("int8" if keeps else None, threads=1),
        "calibrate": lambda db: db.calibrate(SAMPLE, code=qvec.Int8(scale="per_dim"), threads=1),
        "roll back": lambda db: db.rollback(0, threads=1),
        "optimize": lambda db: db.optimize(threads=1),
        "search again": lambda db: db.search(X[:3], 5),
        "search by text again": lambda db: db.search(text="common another", k=5),
        "verify again": lambda db: db.verify(),
        "repair": lambda db: db.repair(threads=1),
        "erase": lambda db: db.erase(names_erased, threads=1),
        "compact": lambda db: db.compact(),
    }


def check(folder: Path, case: Case, change: Change) -> str:
    """Change a file and make all calls. Returns "" or a description of the failure."""
    options, watch.ROWS_PER_CHECK = COLLECTIONS[case.collection], ROWS_PER_CHECK
    path = folder / "crafted.qvec"
    path.write_bytes(base(folder, case.collection).read_bytes())
    Path(f"{path}-lock").unlink(missing_ok=True)
    what: object = case.place
    with contextlib.suppress(qvec.InputError), Store.open(path) as store, store.write() as txn:
        what = change(txn, case) or what
    try:
        db = qvec.open(path)
    except qvec.QvecError:
        return ""
    except Exception as error:
        return f"open after {what}: {error!r}"
    with db:
        for call, make in calls(options.get("ids", "int64"), options.get("originals") != "none").items():
            try:
                make(db)
            except qvec.QvecError:
                pass
            except Exception as error:
                return f"{call} after {what}: {type(error).__name__}: {error}"
    return ""


def check_all(figures: Figures, folder: Path, cases: list[Case], change: Change) -> Iterable[Case]:
    """Check every case in child processes. Yields those that failed."""
    for case, verdict in zip(cases, each(cases, lambda case: check(folder, case, change), HANG), strict=True):
        figures.count("files")
        figures.count(f"files: {case.collection}")
        if verdict:
            figures.fail(f"{case}: {verdict}")
            yield case
