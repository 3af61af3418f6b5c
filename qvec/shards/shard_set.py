"""The public object of a set of shards: one folder, searched and changed as one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np

from qvec.collection.collection import Collection
from qvec.common.errors import InputError, LockedError, MissingIdError, MissingShardError, ReadOnlyError
from qvec.common.types import (
    ArrayLike,
    Ids,
    Int64Array,
    Memory,
    Missing,
    Mode,
    Payload,
    Where,
    check_choice,
    check_timeout,
)
from qvec.rows.results import AddResult, Records
from qvec.schema.validation import MAX_ROWS, as_id_set, as_ids, as_payloads, as_stored, check_count, check_unique
from qvec.search.results import BatchHits, Hits
from qvec.shards import fanout
from qvec.shards.handles import Handles
from qvec.shards.log import Batch
from qvec.shards.manifest import Manifest, store_recalls
from qvec.shards.writing import Writer, place, steps, writer
from qvec.storage.store import TIMEOUT

if TYPE_CHECKING:
    from qvec.quality.drift import Drift
    from qvec.quality.report import Report
    from qvec.shards.quality import SetChoice

_PAUSE = 2e-3  # seconds between two attempts to take a snapshot while others write


class ShardSet:
    """The shards of one folder. Any number of threads and processes may search and change a set.

    Opened by :func:`qvec.shards.open`. A search runs in the shards in parallel, and reads the last commit of each shard
    (see :meth:`snapshot`). Changes are written to the shards of their ids; other writers of the set wait.
    """

    def __init__(self, handles: Handles, mode: Mode, timeout: float) -> None:
        """Called by :func:`qvec.shards.open`."""
        self.path, self.mode, self.timeout, self._handles = handles.folder, mode, timeout, handles
        if mode == "rw" and self.manifest.routes is not None:
            with self._writer():
                pass  # finishes what a dead writer has left

    @classmethod
    def opened(cls, folder: str | os.PathLike[str], mode: Mode, timeout: float, memory: Memory = "mmap") -> Self:
        """As :func:`open`."""
        check_choice("mode", mode, get_args(Mode))
        handles = Handles(Path(os.path.realpath(folder)), memory)
        if mode == "rw" and handles.manifest.is_copy:
            raise ReadOnlyError(f"{folder} is a fetched copy; write to the set that it was published from")
        return cls(handles, mode, check_timeout("timeout", timeout))

    # --- properties ---

    @property
    def manifest(self) -> Manifest:
        """The newest manifest of the folder."""
        return self._handles.manifest

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the shards; ``hits.shards`` counts them from 0."""
        return self.manifest.names

    @property
    def dim(self) -> int:
        """Values of a vector."""
        return self.manifest.dim

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._handles.is_closed

    # --- searching ---

    def search(
        self,
        query: Any = None,
        k: int = 10,
        *,
        ask: int | float | None = None,
        timeout: float | None = None,
        partial: bool = False,
        offset: int = 0,
        unique: bool = False,
        **options: Any,
    ) -> Hits | BatchHits:
        """Find the k nearest in all shards to one query (returns Hits) or a batch (returns BatchHits).

        ask: for a set with partition="cluster", search only this many nearest shards; a float: the fewest shards that
        have reached this recall in :meth:`measure`; None: all. timeout: seconds to wait for results.
        partial: return the hits of the other shards if some are missing, damaged or late; ``hits.missing`` names these.
        Otherwise MissingShardError names them. offset, unique: as in :func:`qvec.merge_topk`.
        options: of :meth:`Collection.search`, for each shard. Text and sparse vectors are searched for in all shards,
        with the document counts of all; the lists of the inputs are fused after those of the shards were merged.
        """
        while True:
            manifest, changed = self.manifest, False
            deadline = None if timeout is None else time.monotonic() + timeout

            def send(calls: Any, manifest: Manifest = manifest, deadline: float | None = deadline) -> Any:
                nonlocal changed
                found, failed = self._handles.ask(manifest.names, calls, timeout, deadline)
                changed = bool(failed) and self.manifest is not manifest  # other shards have replaced these
                return found, failed

            try:
                hits = fanout.search(manifest, send, query, k, offset, unique, ask, partial, timeout, options)
            except MissingShardError:
                if not changed:
                    raise
                continue
            if not changed:
                return hits

    def measure(self, queries: ArrayLike, k: int = 10) -> tuple[float, ...]:
        """Measure, and store in the manifest, the recall@k of searches that ask the nearest 1, 2, ... shards.

        queries: float32 [n, dim], like those of later searches. Neighbors are those that exact searches of all shards
        find. ``search(ask=0.95)`` uses the figures. Raises InputError for a set that is divided by block.
        """
        from qvec.shards.routing import measure

        self._check_writable()
        recalls = measure(self.manifest, self.search, queries, k)
        store_recalls(self.path, self.manifest, recalls, self.timeout)
        return recalls

    # --- reading ---

    def get(self, ids: Any, *, missing: Missing = "error") -> Records:
        """Stored records in the order of ``ids``. missing: "error" raises MissingIdError, "ignore" skips such ids."""
        check_choice("missing", missing, get_args(Missing))
        wanted = _as_array(as_ids(ids, self.manifest.ids))
        parts, places = [], []
        for number, rows in _by_shard(self._shards_of(wanted)):
            found = self._shard(number).get(wanted[rows], missing="ignore")
            parts.append(found)
            places += _positions(wanted, rows, found.ids)
        if missing == "error" and len(places) < len(wanted):
            first = min(set(range(len(wanted))) - set(places))
            raise MissingIdError(f"no shard has the id {wanted.item(first)!r}")
        parts = parts or [self._shard(0).get([])]
        ids_, vectors = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "vectors"))
        payloads = [payload for part in parts for payload in part.payloads]
        order = np.argsort(np.array(places, np.int64), kind="stable")
        return Records(ids_[order], vectors[order], [payloads[i] for i in order.tolist()])

    def scan(self, batch_size: int = 8192, *, where: Where | None = None) -> Iterator[Records]:
        """All vectors, or those that match a filter, shard after shard, in batches."""
        for number in range(len(self.names)):
            yield from self._shard(number).scan(batch_size, where=where)

    def count(self, where: Where | None = None) -> int:
        """The number of stored vectors, or of those that match a filter."""
        return sum(self._shard(number).count(where) for number in range(len(self.names)))

    def facets(self, field: str, *, where: Where | None = None, limit: int | None = None) -> dict[Any, int]:
        """The number of stored vectors by value of a declared field, as :meth:`Collection.facets`: the sum of all
        shards. Counts are exact, also with a limit."""
        from qvec.filters.facets import sum_facets

        most = None if limit is None else check_count("limit", limit, 1, MAX_ROWS)
        if not self.names:
            raise InputError("the set has no shards yet: write blocks and commit() them")
        parts = [self._shard(number).facets(field, where=where) for number in range(len(self.names))]
        return sum_facets(parts, most)

    def __len__(self) -> int:
        return self.count()

    def __contains__(self, id: object) -> bool:
        try:
            wanted = _as_array(as_ids([id], self.manifest.ids))
        except InputError:
            return False
        (number,) = self._shards_of(wanted)
        return number >= 0 and id in self._shard(int(number))

    def snapshot(self) -> ShardSet:
        """Open the present state of all shards, which does not change while others write and has no partial batch.

        Close it soon: pages of all shards cannot be reused until then. Raises LockedError if a batch is being written
        during the whole timeout of the handle, or if a writer has died: open the set for writing, which completes its
        batch.
        """
        from qvec.shards.snapshots import PinnedHandles

        deadline = time.monotonic() + self.timeout
        while True:
            if (taken := PinnedHandles.take(self._handles)) is not None:
                return type(self)(taken, "r", self.timeout)
            if time.monotonic() > deadline:
                waited = f"waited {self.timeout:g} s"
                raise LockedError(f"{self.path}: a batch is being written, or its writer has died; {waited}")
            time.sleep(_PAUSE)

    # --- writing ---

    def upsert(self, vectors: ArrayLike, ids: Any, payloads: Sequence[Payload | None] | None = None) -> AddResult:
        """Add vectors and replace those whose ids are stored, each in its shard: all of them, or none.

        A new id goes to the shard of the nearest centroid (by cluster), or to the smallest shard (by block). A vector
        whose cluster changes is moved to another shard. More than 4 MiB of vectors are several batches: after an error
        or a crash, the first batches may be stored. Raises the same errors as :meth:`Collection.upsert`.
        """
        config = self.manifest.config
        x = as_stored("vectors", vectors, config.dim, config.metric, config.form)
        wanted = as_ids(ids, config.ids)
        if len(wanted) != len(x):
            raise InputError(f"{len(wanted)} ids for {len(x)} vectors: give one a vector")
        check_unique(wanted)
        names, listed, replaced = _as_array(wanted), as_payloads(payloads, len(x)), 0
        with self._writer() as made:
            for step in steps(names, x.itemsize * x.shape[1]):
                old = made.routes.find(names[step])
                new = place(made.manifest, old, x[step], made.sizes)
                replaced += made.write(Batch("upsert", names[step], old, new, x[step], listed[step]))
        return AddResult(names, len(names) - replaced, replaced, 0)

    def delete(self, ids: Any, *, missing: Missing = "ignore") -> int:
        """Remove vectors by id, all or none of them. Returns how many were stored. MissingIdError only if requested."""
        check_choice("missing", missing, get_args(Missing))
        wanted = _as_array(as_id_set(ids, self.manifest.ids))
        with self._writer() as made:
            old = made.routes.find(wanted)
            if missing == "error":
                made.refuse_missing(wanted, old)
            known = old >= 0
            return made.write(Batch("delete", wanted[known], old[known], old[known]))

    def update_payloads(
        self,
        ids: Any,
        payloads: Sequence[Payload | None] | Payload | None,
        *,
        merge: bool = True,
        missing: Missing = "error",
    ) -> int:
        """Change payloads of stored vectors, all of them or none, as :meth:`Collection.update_payloads` does."""
        check_choice("missing", missing, get_args(Missing))
        wanted = as_ids(ids, self.manifest.ids)
        check_unique(wanted)
        names = _as_array(wanted)
        one_for_all = payloads is None or isinstance(payloads, dict)
        listed = as_payloads([payloads], 1) * len(names) if one_for_all else as_payloads(payloads, len(names))
        with self._writer() as made:
            old = made.routes.find(names)
            if missing == "error":
                made.refuse_missing(names, old)
            batch = Batch("payloads", names, old, old, None, listed, merge).part(np.flatnonzero(old >= 0))
            return made.write(batch)

    # --- measuring and maintenance ---

    def evaluate(
        self, queries: ArrayLike | None = None, *, sample: int = 50_000, seed: int = 0, **options: Any
    ) -> Report:
        """As :meth:`Collection.evaluate`, on ``sample`` vectors drawn from all shards in proportion to their sizes."""
        from qvec.shards.quality import evaluate

        return evaluate(self.manifest, [*self.shards()], queries, sample, seed, options)

    def choose(self, *, sample: int = 50_000, seed: int = 0, **options: Any) -> SetChoice:
        """As :meth:`Collection.choose` with ``indexes="current"``, on a sample of all shards.

        ``apply`` requantizes every shard.
        """
        from qvec.shards.quality import SetChoice

        return SetChoice.make(self.path, self.manifest, [*self.shards()], sample, seed, self.timeout, options)

    def drift(self, *, sample: int = 20_000, seed: int = 0) -> Drift:
        """Report whether recently added vectors resemble those of the first commit, with a sample of all shards."""
        from qvec.shards.quality import drift

        return drift(self.manifest, [*self.shards()], sample, seed)

    def verify(self, *, deep: bool = True) -> list[str]:
        """Check every byte of every shard, and that the map has the right shard of each id.

        Returns the problems found.
        """
        from qvec.shards.checking import verify

        return verify(self._handles, deep)

    def close(self) -> None:
        """Close all shards."""
        self._handles.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the folder. Unpickling opens it for reading."""
        return open, (str(self.path), "r", self._handles.memory, self.timeout)

    def __repr__(self) -> str:
        if self.closed:
            return f"<qvec.ShardSet {str(self.path)!r} closed>"
        manifest = self.manifest
        kind = f"generation {manifest.generation}, by {manifest.partition}, dim {manifest.dim}, {manifest.metric}"
        return f"<qvec.ShardSet {str(self.path)!r}: {len(manifest.shards)} shards, {kind}>"

    def copy_routes(self, path: str) -> None:
        """Copy the map from ids to shards to a new file."""
        with self._handles.routes() as routes:
            routes.copy(path)

    # --- parts ---

    def shards(self) -> Iterator[Collection]:
        """The shards, open for reading, in order."""
        return (self._shard(number) for number in range(len(self.names)))

    def _shard(self, number: int) -> Collection:
        return self._handles.shard(self.names[number])

    def _shards_of(self, ids: Ids) -> Int64Array:
        with self._handles.routes() as routes:
            return routes.find(ids)

    def _check_writable(self) -> None:
        if self.mode == "r":
            raise ReadOnlyError(f"{self.path} is open with mode='r'")

    def _writer(self) -> AbstractContextManager[Writer]:
        self._check_writable()
        return writer(self.path, self.timeout)


def open(
    folder: str | os.PathLike[str], mode: Mode = "rw", memory: Memory = "mmap", timeout: float = TIMEOUT
) -> ShardSet:
    """Open the set of shards in a folder. memory: as of :func:`qvec.open`, for every shard.

    timeout: seconds that a change waits for other writers of the set, and a snapshot for the end of a batch.
    Opening for writing finishes the batch of a writer that died. Raises NotFoundError, FormatError, CorruptError,
    LockedError, or ReadOnlyError for a fetched copy.
    """
    return ShardSet.opened(folder, mode, timeout, memory)


def _as_array(ids: Any) -> Ids:
    return ids if isinstance(ids, np.ndarray) else np.array(ids, object)


def _by_shard(shards: Int64Array) -> Iterator[tuple[int, Int64Array]]:
    for number in np.unique(shards[shards >= 0]).tolist():
        yield number, np.flatnonzero(shards == number)


def _positions(wanted: Ids, rows: Int64Array, found: Ids) -> list[int]:
    """The places in ``wanted`` of the ids that a shard returned, which are in the order of ``rows``."""
    left = iter(rows.tolist())
    return [next(row for row in left if wanted[row] == id) for id in found.tolist()]
