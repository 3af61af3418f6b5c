"""Facets of a set of shards are those of one collection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec import shards

N, DIM = 1200, 12
X = clustered(np.random.default_rng(5), N, DIM)


def test_facets_of_a_set_are_those_of_one_collection(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"tag": "keyword", "year": "int", "sizes": "int[]"}
    long = ["x" * 300 + str(i) for i in range(3)]
    held = [
        {"tag": [f"t{i % 7}", "", long[i % 3]][i % 3], "year": i % 5 - 2, "sizes": [i % 4, 9]} if i % 11 else None
        for i in range(N)
    ]
    folder = tmp_path / "s"
    shards.create(folder, DIM, metric="l2", fields=fields)
    with pytest.raises(qvec.InputError, match="the set has no shards yet"), shards.open(folder) as empty:
        empty.facets("tag")
    blocks = [
        shards.write_block(folder, f"b{start}", X[start : start + 300], range(start, start + 300), held[start:][:300])
        for start in range(0, N, 300)
    ]
    shards.commit(folder, blocks)
    with shards.open(folder) as index, qvec.create(tmp_path / "one.qvec", DIM, fields=fields) as one:
        one.add(X, payloads=held)
        for db in (index, one):
            db.delete(range(0, N, 9))
            db.update_payloads([5], {"tag": "new"})
        for name in fields:
            for where in (None, {"year": {"$gte": 0}}):
                expected = list(one.facets(name, where=where).items())
                assert list(index.facets(name, where=where).items()) == expected
                assert list(index.facets(name, where=where, limit=2).items()) == expected[:2]
        with index.snapshot() as before:
            index.update_payloads([5], {"tag": "newer"})
            assert (before.facets("tag")["new"], index.facets("tag")["newer"]) == (1, 1)
        with pytest.raises(qvec.InputError, match="facets names a declared field, got 'nope'"):
            index.facets("nope")
        with pytest.raises(qvec.InputError, match="limit must be"):
            index.facets("tag", limit=0)
