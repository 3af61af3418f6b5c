"""Shards on the workers of a Ray cluster, written and searched by functions of batches (extra ``ray``).

`Search` and `WriteShards` are callables of dicts of arrays, as ``ray.data.Dataset.map_batches`` takes; they also work
without Ray. A worker opens its files once. `ShardActors` has one actor for each shard, for single searches.

Each shard has one writer and is on a local disk; throughput grows with the number of shards. Calibrate once, on a
sample of all vectors, and give ``Collection.export_calibration()`` to all writers: then distances are comparable
between shards.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from qvec.collection.open import create
from qvec.collection.open import open as open_collection
from qvec.collection.sharding import ShardedIndex, merge_topk
from qvec.common.errors import InputError
from qvec.common.extras import require
from qvec.search.results import BatchHits, Hits

Batch = dict[str, Any]


class Search:
    """Adds to a batch the k nearest of each row's vector: columns ``ids``, ``distances`` and ``shards``, [n, k] each.

        dataset.map_batches(Search, fn_constructor_args=(paths,), fn_constructor_kwargs={"k": 10}, concurrency=4)

    column: the name of the vectors' column. options: of :meth:`Collection.search`.
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], k: int = 10, *, column: str = "vector", **options: Any
    ) -> None:
        self.index = ShardedIndex(paths)
        self.k, self.column = k, column
        self.options: dict[str, Any] = {"include": (), "threads": 1} | options

    def __call__(self, batch: Batch) -> Batch:
        hits = self.index.search(_matrix(batch, self.column), self.k, **self.options)
        return {**batch, "ids": hits.ids, "distances": hits.distances, "shards": hits.shards}


class WriteShards:
    """Stores batches in a new file in ``folder``; returns the path of the file and the number of rows that were added.

    calibration: from :meth:`Collection.export_calibration`; without it, each shard is calibrated on its first
    batch. vector, id: names of columns; ``id`` None: rows are numbered. All other columns are the payload.
    options: of :func:`qvec.create`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        dim: int,
        *,
        calibration: str | bytes | None = None,
        vector: str = "vector",
        id: str | None = "id",
        **options: Any,
    ) -> None:
        self.path = Path(folder) / f"{uuid.uuid4().hex}.qvec"
        self.vector, self.id = vector, id
        self.db = create(self.path, dim, **options)
        if calibration is not None:
            self.db.import_calibration(calibration)

    def __call__(self, batch: Batch) -> Batch:
        x = _matrix(batch, self.vector)
        ids = None if self.id is None else np.asarray(_column(batch, self.id))
        keys = [key for key in batch if key not in (self.vector, self.id)]
        columns = [_values(batch[key], key) for key in keys]
        payloads = [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)] if keys else None
        added = self.db.add(x, ids, payloads)
        return {"shard": np.array([str(self.path)]), "rows": np.array([added.added])}


class ShardActors:
    """One Ray actor for each shard. A search asks all actors and merges their hits."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]], **actor_options: Any) -> None:
        """``actor_options``: as of ``ray.remote``, for example ``num_cpus=1``."""
        self._ray = ray = require("ray")
        if not paths:
            raise InputError("an index of shards needs at least one")
        actor = ray.remote(_Shard).options(**{"num_cpus": 1} | actor_options)
        self.actors = [actor.remote(os.fspath(path)) for path in paths]

    def search(self, queries: Any, k: int = 10, *, unique: bool = False, **options: Any) -> Hits | BatchHits:
        """As :meth:`ShardedIndex.search`, without ``offset``. An error in one shard is an error of the search."""
        shared = self._ray.put(np.asarray(queries))
        found = self._ray.get([actor.search.remote(shared, k, options) for actor in self.actors])
        merged: Hits | BatchHits = merge_topk(found, k, unique=unique)
        return merged

    def close(self) -> None:
        """Stop the actors."""
        for actor in self.actors:
            self._ray.kill(actor)


class _Shard:
    def __init__(self, path: str) -> None:
        self.db = open_collection(path, mode="r")

    def search(self, queries: Any, k: int, options: dict[str, Any]) -> Hits | BatchHits:
        hits: Hits | BatchHits = self.db.search(queries, k, **options)
        return hits


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
