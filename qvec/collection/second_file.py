"""A second collection next to one, with vectors of another model: it is filled, kept up to date, and switched in.

It is filled in the order of the ids, a commit at a time; the first collection records how far. Ids that change
meanwhile are recorded, too (:mod:`qvec.rows.change_log`), and copied again until few are left. The last ones are copied
while writers wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np

from qvec.collection.embedding import Embedding
from qvec.common.errors import InputError
from qvec.common.types import IdKind, Missing, NDArray, Payload
from qvec.index import Progress
from qvec.rows.change_log import changed_keys, forget_changes
from qvec.rows.lookup import find_rows, ids_of_rows, payloads_of, read_records
from qvec.rows.results import Records
from qvec.schema.state import Reembedding
from qvec.storage.store import Snapshot, Store

ROWS = 2048  # ids copied by one commit
LAST = 64  # changed ids that are copied while writers wait
WithoutText = Literal["error", "skip"]


class Rows(Protocol):
    """The calls of a collection that copying needs; see :class:`qvec.Collection`."""

    @property
    def declarations(self) -> dict[str, Any]: ...
    def __len__(self) -> int: ...
    def get(self, ids: Any = None, *, missing: Missing = "error") -> Records: ...
    def upsert(self, vectors: Any, ids: Any, payloads: Any) -> object: ...
    def update_payloads(self, ids: Any, payloads: Any, *, merge: bool = True) -> int: ...
    def delete(self, ids: Any) -> int: ...
    def add_field(self, name: str, type: Any) -> None: ...
    def drop_field(self, name: str) -> None: ...
    def optimize(self) -> int: ...


@dataclass(frozen=True)
class Texts:
    """The texts of payloads, under the key ``field``, and the function that embeds them. ``missing``: what to do with a
    payload without a text."""

    embedding: Embedding | None
    field: str
    missing: WithoutText

    def read(self, snap: Snapshot, rows: NDArray[np.int64]) -> tuple[list[Any], list[Payload | None], list[str]]:
        """Return ids, payloads and texts of live rows. Raises InputError naming an id without a text."""
        records = read_records(snap, rows.tolist(), complete=True)
        ids, payloads = ids_of_rows(snap, rows, records).tolist(), payloads_of(records)
        texts = [self.of(payload) for payload in payloads]
        kept = [i for i, text in enumerate(texts) if text is not None]
        if len(kept) < len(ids) and self.missing == "error":
            first = next(ids[i] for i, text in enumerate(texts) if text is None)
            raise InputError(
                f"the payload of id {first!r} has no text under {self.field!r} to embed; missing='skip' leaves such "
                "vectors out"
            )
        return [ids[i] for i in kept], [payloads[i] for i in kept], [text for text in texts if text is not None]

    def of(self, payload: Payload | None) -> str | None:
        """The text of a payload; None if there is none."""
        text = (payload or {}).get(self.field)
        return text if isinstance(text, str) else None

    def vectors(self, texts: list[str]) -> NDArray[Any]:
        """Embed texts. Raises InputError without a function."""
        if not texts:
            return np.zeros(0, np.float32)
        if self.embedding is None:
            raise InputError(f"{len(texts)} texts were added or changed since the replacement: give function= for them")
        return self.embedding.documents(texts)


@dataclass(frozen=True)
class Copying:
    """Copies rows of ``source`` to another collection. ``progress``: called with (done, total) rows."""

    source: Store
    texts: Texts
    target: Rows
    ids: IdKind
    progress: Progress | None = None

    def copy_all(self) -> None:
        """Copy all ids that were not copied yet, in their order."""
        done = len(self.target)
        while True:
            with self.source.read() as snap:
                after = bytes.fromhex(snap.state.reembedding.copied) or None
                keys, total = [key for key, _ in islice(snap.iter_ids(after), ROWS)], snap.state.live
            if not keys:
                break
            self._copy(keys)
            with self.source.write() as txn:
                pending = replace(txn.state.reembedding, copied=keys[-1].hex())
                txn.state = replace(txn.state, reembedding=pending)
            done += len(keys)
            if self.progress is not None:
                self.progress(min(done, total), total)
        if done > ROWS:
            self.target.optimize()

    def catch_up(self) -> None:
        """Copy changed fields, and changed ids until few are left."""
        while True:
            self._copy_fields()
            with self.source.read() as snap:
                pending: Reembedding = snap.state.reembedding
                keys = changed_keys(snap, pending)
            for start in range(0, len(keys), ROWS):
                self._copy(keys[start : start + ROWS])
            if keys:
                with self.source.write() as txn:
                    forget_changes(txn, pending.next_change)
            if len(keys) <= LAST:
                return

    def end(self, switch: Callable[[], None]) -> None:
        """Copy what has changed, the last of it while writers wait, and then call ``switch``."""
        while True:
            self.catch_up()
            with self.source.exclusive("re-embeds"):
                if self._copy_last():
                    switch()
                    return

    def _copy_last(self) -> bool:
        """Copy the last changed ids. Returns False if there are too many, or fields have changed."""
        with self.source.read() as snap:
            keys, fields = changed_keys(snap, snap.state.reembedding), declared(snap)
        if len(keys) > LAST or fields != self.target.declarations:
            return False
        if keys:
            self._copy(keys)
        return True

    def _copy(self, keys: Sequence[bytes]) -> None:
        """Bring some ids up to date in the target: embed new texts, change payloads, delete."""
        with self.source.read() as snap:
            rows = find_rows(snap, keys)
            ids, payloads, texts = self.texts.read(snap, rows[rows >= 0])
        gone = {self._id_of(key) for key in keys} - set(ids)
        known: dict[Any, Payload | None] = {}
        if ids and len(self.target):
            stored = self.target.get(ids, missing="ignore")
            known = dict(zip(stored.ids.tolist(), stored.payloads, strict=True))
        same = [i for i, name in enumerate(ids) if name in known and self.texts.of(known[name]) == texts[i]]
        changed = [i for i in same if known[ids[i]] != payloads[i]]
        fresh = sorted(set(range(len(ids))) - set(same))
        vectors = self.texts.vectors([texts[i] for i in fresh])
        if gone:
            self.target.delete(sorted(gone))
        if changed:
            self.target.update_payloads([ids[i] for i in changed], [payloads[i] for i in changed], merge=False)
        if fresh:
            self.target.upsert(vectors, [ids[i] for i in fresh], [payloads[i] for i in fresh])

    def _id_of(self, key: bytes) -> Any:
        return int.from_bytes(key, "big") if self.ids == "int64" else key.decode()

    def _copy_fields(self) -> None:
        """Declare the fields that were declared meanwhile, and drop those that were dropped or declared again."""
        with self.source.read() as snap:
            wanted = declared(snap)
        there = self.target.declarations
        for name in [name for name in there if there[name] != wanted.get(name)]:
            self.target.drop_field(name)
        for name in [name for name in wanted if there.get(name) != wanted[name]]:
            self.target.add_field(name, wanted[name])


def declared(snap: Snapshot) -> dict[str, Any]:
    """Return the fields of a collection as :func:`qvec.create` takes them."""
    from qvec.filters.schema import as_declared

    return {name: as_declared(one) for name, one in snap.state.complete_fields.items()}


def record_changes(store: Store, pending: Reembedding | None) -> None:
    """Begin to record the changed ids of a collection, or end it; forget those that were recorded."""
    with store.write() as txn:
        if txn.state.reembedding is not None:
            forget_changes(txn, txn.state.reembedding.next_change)
        txn.state = replace(txn.state, reembedding=pending)
