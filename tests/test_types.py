"""Results and configurations that need no collection to be tested."""

from __future__ import annotations

import numpy as np
import pytest

from qvec.configs import HNSW, Flat
from qvec.errors import InputError
from qvec.types import Hits


def hits_of_two() -> Hits:
    ids = np.array([[7, 3, -1], [5, 2, 1]])
    distances = np.array([[0.5, 1.0, np.inf], [0.0, 0.25, 2.0]], np.float32)
    payloads = [[{"a": 1}, None], [None, {"b": 2}, None]]
    return Hits(ids, distances, np.array([2, 3]), payloads)


def test_hits_unpack_as_ids_and_distances() -> None:
    hits = hits_of_two()
    ids, distances = hits
    assert ids is hits.ids
    assert distances is hits.distances


def test_hits_of_a_batch_list_only_what_was_found() -> None:
    first, second = hits_of_two().to_list()
    assert first == [
        {"id": 7, "distance": 0.5, "score": -0.5, "payload": {"a": 1}},
        {"id": 3, "distance": 1.0, "score": -1.0, "payload": None},
    ]
    assert [hit["id"] for hit in second] == [5, 2, 1]


def test_hits_of_one_query_are_one_list_without_payloads_unless_asked_for() -> None:
    batch = hits_of_two()
    one = Hits(batch.ids[0], batch.distances[0], np.array(2))
    assert one.to_list() == [
        {"id": 7, "distance": 0.5, "score": -0.5},
        {"id": 3, "distance": 1.0, "score": -1.0},
    ]
    assert type(one.to_list()[0]["id"]) is int


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("HNSW.m", {"m": 1}),
        ("HNSW.m", {"m": 65}),
        ("HNSW.m", {"m": 16.0}),
        ("HNSW.ef_construction", {"ef_construction": 15}),
        ("HNSW.ef_construction", {"ef_construction": 4097}),
    ],
)
def test_a_graph_out_of_its_limits_is_refused_by_name(field: str, arguments: dict[str, int]) -> None:
    with pytest.raises(InputError, match=field):
        HNSW(**arguments)


def test_index_configurations_name_their_kind() -> None:
    assert (Flat.kind, HNSW.kind) == ("flat", "hnsw")
