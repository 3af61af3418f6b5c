"""The log of routed writes. A batch is in the log until all of its shards have committed it.

A batch changes several files with a separate commit each. It is added to the log before the first commit. If the
process dies before the last commit, the next writer applies the batch again. Applying it twice to a shard has no
further effect.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qvec._kernels import crc32c
from qvec.common import system
from qvec.common.errors import CorruptError
from qvec.common.types import Ids, Int64Array, NDArray, Payload
from qvec.shards.folder import LOG
from qvec.storage import records
from qvec.storage.atomic_file import replace_bytes

SUFFIX = ".batch"
Kind = Literal["upsert", "delete", "payloads"]


@dataclass(frozen=True, eq=False)
class Batch:
    """One routed write. ``old``, ``new``: the shards of the ids before and after it, int64 [n]; -1: none.

    ``vectors``: [n, width] of an upsert. ``payloads``: of an upsert, or new ones (``merge``: changed keys only).
    """

    kind: Kind
    ids: Ids
    old: Int64Array
    new: Int64Array
    vectors: NDArray[Any] | None = None
    payloads: list[Payload | None] | None = None
    merge: bool = False

    def part(self, rows: Int64Array) -> Batch:
        """The batch of some of its rows."""
        vectors = None if self.vectors is None else self.vectors[rows]
        payloads = None if self.payloads is None else [self.payloads[i] for i in rows.tolist()]
        return Batch(self.kind, self.ids[rows], self.old[rows], self.new[rows], vectors, payloads, self.merge)


def pack(batch: Batch) -> bytes:
    """The bytes of a batch: CRC-32C, msgpack. Raises InputError for payloads that are not plain or too large."""
    vectors = batch.vectors
    plain = {
        "kind": batch.kind,
        "ids": batch.ids.tolist(),
        "old": batch.old.astype("<i8").tobytes(),
        "new": batch.new.astype("<i8").tobytes(),
        "vectors": None if vectors is None else [vectors.dtype.str, vectors.shape[1], vectors.tobytes()],
        "payloads": batch.payloads,
        "merge": batch.merge,
    }
    packed = records.pack(plain, "the batch")
    return crc32c(packed).to_bytes(4, "little") + packed


def unpack(data: bytes, where: str) -> Batch:
    """Read a batch. Raises CorruptError naming ``where``."""
    if len(data) < 5 or crc32c(data[4:]).to_bytes(4, "little") != data[:4]:
        raise CorruptError(f"{where} is damaged: it fails its checksum")
    plain = records.unpack(data[4:])
    ids = plain["ids"]
    names = np.array(ids, object if ids and isinstance(ids[0], str) else np.int64)
    vectors = None
    if plain["vectors"] is not None:
        kind, width, values = plain["vectors"]
        vectors = np.frombuffer(values, kind).reshape(-1, width)
    old, new = (np.frombuffer(plain[name], "<i8").astype(np.int64) for name in ("old", "new"))
    return Batch(plain["kind"], names, old, new, vectors, plain["payloads"], plain["merge"])


class Log:
    """The batches in a folder, by number. The caller has the lock of the set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / LOG

    def numbers(self) -> list[int]:
        """The numbers of the batches, ascending."""
        return sorted(int(file.stem) for file in self.folder.glob(f"*{SUFFIX}"))

    def clean(self) -> None:
        """Remove drafts of writers that died."""
        for file in self.folder.glob(f"*{SUFFIX}.*"):
            file.unlink(missing_ok=True)

    def write(self, number: int, data: bytes) -> None:
        """Store a packed batch durably."""
        replace_bytes(str(self._path(number)), data)

    def read(self, number: int) -> Batch:
        """The batch of a number. Raises CorruptError."""
        path = self._path(number)
        return unpack(path.read_bytes(), str(path))

    def remove(self, number: int) -> None:
        """Forget a batch that all shards contain."""
        os.unlink(self._path(number))
        system.flush_directory(str(self.folder))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012d}{SUFFIX}"
