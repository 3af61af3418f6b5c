"""What processes do that are killed: changes of batches, and maintenance in between.

The vectors and payloads of a batch follow from its number and version.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

import qvec
from qvec.maintenance import requantize

DIM, OTHER_DIM = 16, 24  # of the first embedding model, and of the other one
SIZES = (1, 7, 20)
BATCH_IDS = 1000  # distance between the first ids of successive batches
PASSED = "2000-01-01"  # a time at which rows have expired
FEWEST = 100  # least number of vectors for the training of binary codes
CODES = ("int8", "binary", "f16", "f32")

Live = dict[int, int]  # batch -> version
Change = list[tuple[int, int]]  # (batch, version); a version of -1: deleted
Steps = Iterator[tuple[Change, Callable[[qvec.Collection], object]]]


def size_of(batch: int) -> int:
    return SIZES[batch % len(SIZES)]


def ids_of(batch: int) -> list[int]:
    return list(range(BATCH_IDS * batch, BATCH_IDS * batch + size_of(batch)))


@functools.lru_cache(maxsize=10_000)
def vectors_of(batch: int, version: int, dim: int = DIM) -> npt.NDArray[np.float32]:
    return np.random.default_rng([batch, version]).normal(size=(size_of(batch), dim)).astype(np.float32)


def payloads_of(batch: int, version: int) -> list[dict[str, Any]]:
    text = f"batch{batch} version{version} common word{batch % 7} word{batch % 7}"
    lexical = [[batch % 11, 1000 + version, 100_000 + batch], [1.5, 0.5, 2.0]]
    held = {"batch": batch, "version": version, "body": text, "lexical": lexical}
    return [{**held, "place": f"{batch} {version} {row}"} for row in range(size_of(batch))]


class Model:
    """Embeds the place of a row as one of two models."""

    def __init__(self, dim: int) -> None:
        self.dim, self.model = dim, None if dim == DIM else f"model-{dim}"

    def __call__(self, texts: list[str]) -> npt.NDArray[np.float32]:
        rows = [tuple(map(int, text.split())) for text in texts]
        return np.stack([vectors_of(batch, version, self.dim)[row] for batch, version, row in rows])


def put(batch: int, version: int) -> tuple[Change, Callable[[qvec.Collection], object]]:
    """Replace a batch by a version of it."""

    def change(db: qvec.Collection) -> object:
        vectors = vectors_of(batch, version, db.dim)
        return db.upsert(vectors, ids_of(batch), payloads_of(batch, version), threads=1)

    return [(batch, version)], change


def gone(batch: int) -> tuple[Change, Callable[[qvec.Collection], object]]:
    return [(batch, -1)], lambda db: db.delete(ids_of(batch))


def expire(batch: int) -> tuple[Change, Callable[[qvec.Collection], object]]:
    """Give a batch a time that has passed: readers no longer see it."""
    return [(batch, -1)], lambda db: db.update_payloads(ids_of(batch), {"until": PASSED})


def adding(live: Live, first: int, chance: random.Random) -> Steps:
    """Add new batches."""
    yield from (put(batch, 0) for batch in itertools.count(first))


def churning(live: Live, first: int, chance: random.Random) -> Steps:
    """Add, replace and delete batches, so that their number stays the same."""
    for batch in itertools.count(first):
        yield put(batch, 0)
        if live and chance.random() < 0.5:
            old = chance.choice(list(live))
            yield put(old, live[old] + 1)
        while len(live) > 30 or (live and chance.random() < 0.3):
            yield gone(chance.choice(list(live)))


def together(live: Live, first: int, chance: random.Random) -> Steps:
    """Change several batches in one transaction."""
    for batch in itertools.count(first, 2):
        parts = [put(batch, 0), put(batch + 1, 0)]
        parts += [gone(old) for old in chance.sample(sorted(live), min(len(live), chance.randrange(3)))]

        def change(db: qvec.Collection, parts: Any = parts) -> None:
            with db.transaction():
                for _, part in parts:
                    part(db)

        yield [item for items, _ in parts for item in items], change


def expiring(live: Live, first: int, chance: random.Random) -> Steps:
    """Add batches, let some expire, add them again, and reclaim or overwrite expired rows in between."""
    for batch in itertools.count(first):
        yield put(batch, 0)
        if live and chance.random() < 0.7:
            old, version = chance.choice(list(live.items()))
            yield expire(old)
            if chance.random() < 0.3:
                yield put(old, version + 1)
        if chance.random() < 0.3:
            yield [], chance.choice(RECLAIM)
        while len(live) > 20:
            yield gone(chance.choice(list(live)))


def recoding(live: Live, first: int, chance: random.Random) -> Steps:
    """Add batches, and requantize all rows in between."""
    requantize.CODED_ROWS = 40
    for batch in itertools.count(first):
        yield put(batch, 0)
        yield [], lambda db: recode(db, chance.choice(CODES))
        if len(live) > 20:
            yield gone(chance.choice(list(live)))


def recode(db: qvec.Collection, code: str) -> None:
    if len(db) < FEWEST:
        return
    for generation in db.generations():
        if not generation.active:
            db.drop_generation(generation.number)
    db.requantize(code, threads=1)


def reembedding(live: Live, first: int, chance: random.Random) -> Steps:
    """Add and delete batches, let some expire, and change the embedding model in between, back and forth."""
    for batch in itertools.count(first):
        yield put(batch, 0)
        yield [], chance.choice(MODELS)
        if live and chance.random() < 0.3:
            yield expire(chance.choice(list(live)))
        if len(live) > 10:
            yield gone(chance.choice(list(live)))


def change_model(db: qvec.Collection) -> None:
    """Re-embed with the other model; continue if a process has been killed half-way."""
    if is_replaced(db):
        db.discard_reembed()
    dim = OTHER_DIM if db.dim == DIM else DIM
    db.reembed(Model(dim), dim=dim, model=Model(dim).model, field="place", batch=50)


def change_back(db: qvec.Collection) -> None:
    if is_replaced(db):
        db.undo_reembed(Model(OTHER_DIM if db.dim == DIM else DIM))


def is_replaced(db: qvec.Collection) -> bool:
    """Whether the file has replaced another one, which is still there."""
    with db._store.read() as snap:
        return snap.state.reembedding is not None and snap.state.reembedding.stage == "replaced"


def keeping_up(live: Live, first: int, chance: random.Random) -> Steps:
    """Add and erase batches, and run maintenance that rewrites the file or its parts in between."""
    for batch in itertools.count(first):
        yield put(batch, 0)
        yield [], chance.choice(UPKEEP)
        if len(live) > 10:
            old = chance.choice(list(live))
            yield [(old, -1)], lambda db, old=old: db.erase(ids_of(old))  # type: ignore[misc]


UPKEEP: tuple[Callable[[qvec.Collection], object], ...] = (
    lambda db: db.compact(),
    lambda db: db.optimize(threads=1),
    lambda db: db.repair(threads=1),
)
RECLAIM: tuple[Callable[[qvec.Collection], object], ...] = (
    lambda db: db.optimize(threads=1),
    lambda db: db.erase(expired=True, threads=1),
)
MODELS: tuple[Callable[[qvec.Collection], object], ...] = (
    change_model,
    change_model,
    change_back,
    lambda db: db.discard_reembed(),
    lambda db: db.optimize(threads=1),
)
TEXT_FIELDS = {"batch": "int", "body": "text", "lexical": "sparse"}
WORKLOADS: dict[str, tuple[Callable[..., Steps], dict[str, Any]]] = {
    "add": (adding, {"index": qvec.HNSW(m=8, ef_construction=40)}),
    "churn": (
        churning,
        {"index": qvec.HNSW(m=16, ef_construction=40, layout="packed"), "fields": {"batch": "int"}},
    ),
    "transactions": (together, {"index": qvec.IVF()}),
    "requantize": (recoding, {"index": qvec.HNSW(m=8, ef_construction=40)}),
    "upkeep": (keeping_up, {"index": qvec.HNSW(m=8, ef_construction=40), "fields": TEXT_FIELDS}),
    "expiry": (
        expiring,
        {
            "index": qvec.HNSW(m=8, ef_construction=40),
            "fields": TEXT_FIELDS | {"until": "datetime"},
            "expires": "until",
        },
    ),
    "reembed": (
        reembedding,
        {
            "index": qvec.HNSW(m=8, ef_construction=40),
            "fields": TEXT_FIELDS | {"until": "datetime"},
            "expires": "until",
        },
    ),
    "text": (churning, {"index": "flat", "fields": TEXT_FIELDS}),
    "text transactions": (together, {"index": "flat", "fields": TEXT_FIELDS}),
}
