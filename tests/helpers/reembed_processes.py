"""Processes that re-embed, write and read one collection at the same time, to be killed: ``PATH ROLE [LOG]``.

The vectors of both models follow from the texts. ``reembed`` changes to the other model. ``write`` stores and deletes
texts for ever, and logs each change before it begins and after it was acknowledged. ``read`` searches for ever, and
prints an error and ends if a search fails or finds too little.
"""

from __future__ import annotations

import itertools
import sys
import time
import zlib
from typing import Any

import numpy as np

import qvec

DIMS = 8, 12
ROWS, WRITTEN = 400, 1_000_000  # ids below ROWS never change; written ids begin at WRITTEN


class Model:
    """Embeds texts with one of two models."""

    def __init__(self, dim: int, pause: float = 0.0) -> None:
        self.dim, self.pause, self.model = dim, pause, f"model-{dim}"

    def __call__(self, texts: list[str]) -> np.ndarray:
        time.sleep(self.pause)
        return np.stack([vector_of(text, self.dim) for text in texts])


def vector_of(text: str, dim: int) -> np.ndarray:
    return np.random.default_rng([zlib.crc32(text.encode()), dim]).normal(size=dim).astype(np.float32)


def text_of(id: int, version: int) -> str:
    return f"text {id} version {version}"


def reembed(path: str) -> None:
    with qvec.open(path, timeout=60) as db:
        if has_replaced(db):
            db.discard_reembed()
        other = DIMS[1 - DIMS.index(db.dim)]
        print("begins", flush=True)
        db.reembed(Model(other, 0.002), dim=other, batch=40)
        print("done", flush=True)


def has_replaced(db: qvec.Collection) -> bool:
    """Whether the collection has replaced another one."""
    with db._store.read() as snap:
        return bool(snap.state.reembedding is not None and snap.state.reembedding.stage == "replaced")


def write(path: str, log_path: str) -> None:
    with qvec.open(path, timeout=60) as db, open(log_path, "a") as log:
        for version in itertools.count():
            id, dead = WRITTEN + version % 50, WRITTEN + (version * 7) % 50
            for change in (f"put {id} {version}", f"delete {dead} {version}"):
                log.write(f"begin {change}\n")
                log.flush()
                while not applied(db, change):
                    db.reopen()
                log.write(f"ok {change}\n")
                log.flush()


def applied(db: qvec.Collection, change: str) -> bool:
    """Make a change. Returns False if the file was replaced."""
    kind, id, version = change.split()
    try:
        if kind == "put":
            text = text_of(int(id), int(version))
            db.upsert(vector_of(text, db.dim), [int(id)], [{"text": text}])
        else:
            db.delete([int(id)])
    except qvec.ReplacedError:
        return False
    return True


def read(path: str) -> None:
    for turn in itertools.count():
        with qvec.open(path, "r", timeout=60) as db:
            for i in range(20):
                id = (turn * 20 + i) % ROWS
                hits = db.search(vector_of(text_of(id, 0), db.dim), 3)
                if hits.ids[0] != id or len(hits.ids) != 3:
                    print(f"search for {id} found {hits.ids}", flush=True)
                    return
                time.sleep(0.005)


if __name__ == "__main__":
    roles: dict[str, Any] = {"reembed": reembed, "write": write, "read": read}
    roles[sys.argv[2]](sys.argv[1], *sys.argv[3:])
