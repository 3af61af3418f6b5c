"""Sets of shards on the workers of a Ray cluster (extra ``ray``): written and searched by functions of batches.

`WriteShards` and `Search` are callables of dicts of arrays, as ``ray.data.Dataset.map_batches`` takes; they also work
without Ray. `ShardActors` has actors that keep the shards open, for single searches. All of them use a folder that
every worker can access under the same path, or on a published set (:func:`qvec.shards.publish`): each worker then keeps
a copy on its own disk.
"""

from __future__ import annotations

import hashlib
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from qvec.collection.collection import Collection
from qvec.common.errors import InputError, QvecError
from qvec.common.extras import require
from qvec.schema.validation import check_count
from qvec.search.results import BatchHits, Hits
from qvec.shards.blocks import Block, write_block
from qvec.shards.committing import opened
from qvec.shards.fanout import Call, CountCall, search
from qvec.shards.manifest import Manifest, Shard, read
from qvec.shards.remote import Remote, fetch
from qvec.shards.shard_set import ShardSet

Batch = dict[str, Any]
RESTARTS, RETRIES = -1, 0  # Ray restarts actors without limit; a search repeats its own calls
PAUSE = 0.05  # seconds before a search repeats a call to an actor that has died
RESTART_SECONDS = 60.0  # a search waits this long for actors that have died
KEY_BYTES = 16
TIMEOUT = 5.0


class Search:
    """Adds to a batch the k nearest of each row's vector: columns ``ids``, ``distances`` and ``shards``, [n, k] each.

        dataset.map_batches(Search, fn_constructor_args=(folder,), fn_constructor_kwargs={"k": 10}, concurrency=4)

    folder: of a set of shards. url: of a published set; ``folder`` is this worker's copy.
    column: the name of the vectors' column. options: of :meth:`qvec.shards.ShardSet.search`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        k: int = 10,
        *,
        url: str | None = None,
        storage_options: dict[str, Any] | None = None,
        column: str = "vector",
        **options: Any,
    ) -> None:
        if url is not None:
            fetch(url, folder, storage_options=storage_options)
        self.index = ShardSet.opened(folder, "r", TIMEOUT)
        self.k, self.column = k, column
        self.options: dict[str, Any] = {"include": ()} | options

    def __call__(self, batch: Batch) -> Batch:
        hits = self.index.search(_matrix(batch, self.column), self.k, **self.options)
        return {**batch, "ids": hits.ids, "distances": hits.distances, "shards": hits.shards}


class WriteShards:
    """Writes each batch as a block of a set of shards; returns the columns ``key`` and ``rows`` of the block.

        written = dataset.map_batches(WriteShards, fn_constructor_args=(folder,), batch_size=100_000, concurrency=8)
        qvec.shards.commit(folder, qvec.ray.blocks_of(written))

    The key of a block is a digest of its ids, so a batch that Ray tries again replaces the block that it wrote before.
    vector, id: names of columns; ids are required and unique in the whole dataset. All other columns are the payload.
    """

    def __init__(self, folder: str | os.PathLike[str], *, vector: str = "vector", id: str = "id") -> None:
        self.folder, self.vector, self.id = Path(folder), vector, id
        read(folder)  # raises NotFoundError where the worker is started

    def __call__(self, batch: Batch) -> Batch:
        x, ids = _matrix(batch, self.vector), np.asarray(_column(batch, self.id))
        keys = [key for key in batch if key not in (self.vector, self.id)]
        columns = [_values(batch[key], key) for key in keys]
        payloads = [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)] if keys else None
        block = write_block(self.folder, key_of(ids), x, ids, payloads)
        return {"key": np.array([block.key]), "rows": np.array([block.rows])}


def key_of(ids: Any) -> str:
    """The key of the block that has these ids, in this order."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for id in np.asarray(ids).tolist():
        digest.update(f"{id!r},".encode())
    return digest.hexdigest()


def blocks_of(written: Any) -> list[Block]:
    """The blocks that the tasks of a dataset of :class:`WriteShards` have reported."""
    return [Block(str(row["key"]), int(row["rows"])) for row in written.take_all()]


class ShardActors:
    """Ray actors that have the shards of a set open, ``replicas`` of them for each shard.

    A search uses the replicas of each shard in rotation. If an actor dies, Ray starts it again, and the search uses the
    next replica. The shards are those in the manifest at the start: create new actors to use a newer manifest.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        url: str | None = None,
        storage_options: dict[str, Any] | None = None,
        replicas: int = 1,
        **actor_options: Any,
    ) -> None:
        """folder: of a set of shards. url: of a published set; each actor then copies its shard to ``folder``, on the
        disk of its own node. ``actor_options``: as of ``ray.remote``, for example ``num_cpus=1``."""
        self._ray = ray = require("ray")
        self.manifest: Manifest = read(folder) if url is None else Remote(url, storage_options).manifest()
        if not self.manifest.shards:
            raise InputError("an index of shards needs at least one")
        count = check_count("replicas", replicas, 1, 1000)
        options = {"num_cpus": 1, "max_restarts": RESTARTS, "max_task_retries": RETRIES} | actor_options
        actor = ray.remote(_Shard).options(**options)
        places = [(os.fspath(folder), shard, url, storage_options) for shard in self.manifest.shards]
        self.actors = [[actor.remote(*place) for _ in range(count)] for place in places]
        self._turn = 0

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
        """As :meth:`qvec.shards.ShardSet.search`.

        Calls to actors that die are repeated until ``timeout`` seconds pass.
        """
        deadline = float("inf") if timeout is None else time.monotonic() + timeout

        def send(calls: Any) -> Any:
            return self._answers(calls, deadline, timeout)

        return search(self.manifest, send, query, k, offset, unique, ask, partial, timeout, options)

    def _answers(self, calls: Any, deadline: float, timeout: float | None) -> tuple[dict[int, Any], dict[int, str]]:
        """The answers of actors, by shard, and the errors of those that failed."""
        self._turn += 1
        asked = {self._ask(number, call, self._turn): number for number, call in calls.items()}
        found: dict[int, Any] = {}
        failed: dict[int, str] = {}
        turns, died = dict.fromkeys(calls, self._turn), dict[int, float]()
        while asked:
            left = deadline - time.monotonic()
            wait = None if left == float("inf") else max(0.0, left)
            done, _ = self._ray.wait(list(asked), num_returns=1, timeout=wait)
            if not done:
                failed |= dict.fromkeys(asked.values(), f"no answer within {timeout:g} s")
                break
            number = asked.pop(done[0])
            try:
                found[number] = self._ray.get(done[0])
            except self._ray.exceptions.RayTaskError as error:
                failed[number] = _refused(error)
            except self._ray.exceptions.RayError:  # it has died
                if time.monotonic() - died.setdefault(number, time.monotonic()) > RESTART_SECONDS:
                    failed[number] = f"its actors were not started again within {RESTART_SECONDS:g} s"
                    continue
                time.sleep(min(PAUSE, max(0.0, left)))
                turns[number] += 1
                asked[self._ask(number, calls[number], turns[number])] = number
        return found, failed

    def close(self) -> None:
        """Stop the actors."""
        for replicas in self.actors:
            for actor in replicas:
                self._ray.kill(actor)

    def _ask(self, number: int, call: Any, turn: int) -> Any:
        replicas = self.actors[number]
        return replicas[turn % len(replicas)].answer.remote(call)


def _refused(error: Any) -> str:
    """The message of a shard's error. Errors of the input itself are raised."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, InputError) or not isinstance(cause, QvecError | OSError):
        raise error if cause is None else cause
    return str(cause)


class _Shard:
    """A shard on a worker. It is fetched and opened by the first search, so that an error is one of the search."""

    def __init__(self, folder: str, entry: Shard, url: str | None, storage_options: dict[str, Any] | None) -> None:
        self.folder, self.entry, self.url, self.storage_options = Path(folder), entry, url, storage_options
        self.db: Collection | None = None

    def pid(self) -> int:
        """The process of this actor."""
        return os.getpid()

    def answer(self, call: Call | CountCall) -> Any:
        if self.db is None:
            path, entry = self.folder / self.entry.name, self.entry
            if self.url is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
                path = Remote(self.url, self.storage_options).fetch(entry.name, entry.bytes, entry.crc, self.folder)
            self.db = opened(path)
        return call.run(self.db)


def _matrix(batch: Batch, column: str) -> Any:
    """A column of vectors as [n, dim]. Arrow lists are arrays of arrays."""
    x = np.asarray(_column(batch, column))
    return np.stack(list(x)) if x.dtype == object and len(x) else x


def _values(column: Any, name: str) -> list[Any]:
    """A column of payload values. Masked values and times that are not a time become None."""
    values = column if isinstance(column, np.ma.MaskedArray) else np.asarray(column)
    if values.dtype.kind == "m":
        raise InputError(f"column {name!r} has {values.dtype}; payloads cannot hold durations")
    if values.dtype.kind != "M":
        return cast(list[Any], values.tolist())
    if np.datetime_data(values.dtype)[0] in ("Y", "M", "W", "D"):
        return [None if np.isnat(value) else str(value) for value in values.astype("datetime64[D]")]
    found = values.astype("datetime64[us]").tolist()
    for row, value in enumerate(found):
        if not isinstance(value, datetime | None):
            raise InputError(f"row {row}, column {name!r}: {values[row]} is outside the years 1 to 9999")
    return cast(list[Any], found)


def _column(batch: Batch, column: str) -> Any:
    if column not in batch:
        raise InputError(f"the batch has no column {column!r}; it has {', '.join(batch)}")
    return batch[column]
