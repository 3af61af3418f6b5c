"""The recall of searches that ask a few shards of a set that is divided by cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import ArrayLike
from qvec.schema.validation import as_vectors
from qvec.shards.manifest import Manifest
from qvec.shards.partition import ranked


def measure(manifest: Manifest, search: Callable[..., Any], queries: ArrayLike, k: int) -> tuple[float, ...]:
    """Return recall@k of searches in the nearest 1, 2, ... shards: the share of the true neighbors in these shards.

    search: a search of all shards. One exact search of all shards gives the recall for every number of shards.
    """
    if manifest.clusters is None:
        raise InputError("measure() is for partition='cluster': by block, every search asks all shards")
    q = as_vectors("queries", queries, manifest.dim, manifest.metric).astype(np.float32)
    if not len(q):
        raise InputError("queries must hold one query or more")
    hits = search(q, k, exact=manifest.config.keeps_originals, include=())
    n = len(manifest.shards)
    order = ranked(q, manifest.clusters, manifest.metric, n)
    turn = np.empty_like(order)  # when each query asks each shard
    np.put_along_axis(turn, order, np.arange(n)[None], axis=1)
    found = hits.shards >= 0
    turns = np.take_along_axis(turn, np.where(found, hits.shards, 0), axis=1)[found]
    shares = np.bincount(turns, minlength=n).cumsum() / max(1, len(turns))
    return tuple(float(share) for share in shares)
