"""Results and configurations that need no collection to be tested."""

from __future__ import annotations

import numpy as np
import pytest

from qvec.codes.configs import HNSW, Flat
from qvec.common.errors import InputError
from qvec.rows.results import AddResult, Records
from qvec.search.results import BatchHits, Extras, Hits


def hits_of_two() -> BatchHits:
    ids = np.array([[7, 3, -1], [5, 2, 1]])
    distances = np.array([[0.5, 1.0, np.inf], [0.0, 0.25, 2.0]], np.float32)
    payloads = [[{"a": 1}, None, None], [None, {"b": 2}, None]]
    return BatchHits(ids, distances, np.array([2, 3]), payloads)


def test_hits_of_one_query_are_a_sequence_of_hits_without_padding() -> None:
    hits = hits_of_two()[0]
    assert (len(hits), hits.counts, hits.ids.tolist()) == (2, 2, [7, 3, -1])
    assert [(hit.id, hit.distance, hit.score, hit.payload) for hit in hits] == [
        (7, 0.5, -0.5, {"a": 1}),
        (3, 1.0, -1.0, None),
    ]
    assert (hits[-1].id, [hit.id for hit in hits[:1]], type(hits[0].id)) == (3, [7], int)
    assert hits.payloads == [{"a": 1}, None, None]
    with pytest.raises(IndexError):
        _ = hits[2]
    assert repr(hits[0]) == "<qvec.Hit id=7 distance=0.5 score=-0.5, payload={'a': 1}>"


def test_hits_of_a_batch_are_a_sequence_of_the_hits_of_each_query() -> None:
    batch = hits_of_two()
    assert (len(batch), batch.counts.tolist()) == (2, [2, 3])
    assert [[hit.id for hit in hits] for hits in batch] == [[7, 3], [5, 2, 1]]
    assert [len(hits) for hits in batch[1:]] == [3]
    ids, distances = batch.arrays()
    assert ids is batch.ids
    assert distances is batch.distances


def test_parts_that_a_search_did_not_include_raise_an_error_with_the_option() -> None:
    batch = hits_of_two()
    hits = Hits(batch.ids[0], batch.distances[0], 2)
    assert (batch.included, hits.included) == (("payloads",), ())
    for name, how in (
        ("payloads", 'include=\\("payloads",\\)'),
        ("vectors", 'include=\\("vectors",\\)'),
        ("explanation", 'include=\\("explanation",\\)'),
        ("groups", "search_groups"),
        ("shards", "ShardedIndex"),
    ):
        with pytest.raises(InputError, match=f"the hits have no {name}: .*{how}"):
            getattr(hits, name)
    for name in ("payload", "vector", "group", "shard"):
        with pytest.raises(InputError, match=f"the hits have no {name}"):
            getattr(hits[0], name)


def test_hits_of_a_batch_list_only_found_vectors() -> None:
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


def test_hits_of_a_batch_as_a_table_have_a_row_each() -> None:
    table = pytest.importorskip("pyarrow") and hits_of_two().to_arrow()
    assert table.to_pydict() == {
        "query": [0, 0, 1, 1, 1],
        "rank": [0, 1, 0, 1, 2],
        "id": [7, 3, 5, 2, 1],
        "distance": [0.5, 1.0, 0.0, 0.25, 2.0],
        "score": [-0.5, -1.0, 0.0, -0.25, -2.0],
        "a": [1, None, None, None, None],
        "b": [None, None, None, 2, None],
    }


def test_a_table_of_hits_has_vectors_and_a_json_column_of_other_values() -> None:
    pa = pytest.importorskip("pyarrow")
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    payloads = [{"a": 1, "id": 5}, {"a": "x"}, None]
    table = Hits(
        np.array(["p", "q", ""], object), np.zeros(3, np.float32), 2, payloads, 1.0, Extras(vectors)
    ).to_arrow()
    assert table.schema.names == ["rank", "id", "distance", "score", "vector", "payload"]
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 2)
    assert table["vector"].to_pylist() == [[0, 1], [2, 3]]
    assert table["payload"].to_pylist() == ['{"a": 1, "id": 5}', '{"a": "x"}']


def test_hits_as_a_data_frame_have_a_column_for_each_payload_key() -> None:
    pytest.importorskip("pandas")
    hits = hits_of_two()
    hits.payloads[0][0] = {"a": 1, "id": "taken"}
    frame = hits.to_pandas()
    assert list(frame.columns) == ["query", "rank", "id", "distance", "score", "a", "payload.id", "b"]
    assert frame["id"].tolist() == [7, 3, 5, 2, 1]
    assert frame["a"].tolist()[0] == 1
    assert frame["payload.id"].tolist()[0] == "taken"
    nothing = BatchHits(np.full((2, 3), -1), np.full((2, 3), np.inf, np.float32), np.zeros(2, np.int64)).to_pandas()
    assert (len(nothing), list(nothing.columns)) == (0, ["query", "rank", "id", "distance", "score"])


def test_records_are_a_sequence_of_records() -> None:
    records = Records(np.array([4, 9]), np.eye(2, dtype=np.float32), [None, {"page": 3}])
    id, vector, payload = records[1]
    assert (id, type(id), vector.tolist(), payload) == (9, int, [0, 1], {"page": 3})
    assert [record.id for record in records[:1]] == [record.id for record in records][:1] == [4]


def test_the_result_of_an_add_shows_counts_and_the_first_ids() -> None:
    result = AddResult(np.arange(20), 18, 2, 0)
    assert repr(result) == "<qvec.AddResult: 18 added, 2 replaced, 0 skipped; ids 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...>"


def test_records_are_converted_to_lists_and_tables() -> None:
    records = Records(np.array([4, 9]), np.eye(2, dtype=np.float32), [None, {"page": 3}])
    assert [(row["id"], row["vector"].tolist(), row["payload"]) for row in records.to_list()] == [
        (4, [1, 0], None),
        (9, [0, 1], {"page": 3}),
    ]
    pytest.importorskip("pyarrow")
    assert records.to_arrow().to_pydict() == {"id": [4, 9], "vector": [[1, 0], [0, 1]], "page": [None, 3]}
    pytest.importorskip("pandas")
    frame = records.to_pandas()
    assert (list(frame.columns), frame["page"].tolist()[1]) == (["id", "vector", "page"], 3)


def test_results_show_themselves_on_a_few_lines() -> None:
    hits = hits_of_two()
    assert repr(hits) == "<qvec.BatchHits of 2 queries: 2 to 3 of k=3>\n  0: 7, 3\n  1: 5, 2, 1"
    one = Hits(hits.ids[0], hits.distances[0], np.array(2), hits.payloads[0])
    assert repr(one) == "<qvec.Hits: 2 of k=3>\n  7  0.5  {'a': 1}\n  3  1"
    many = Hits(np.arange(50), np.zeros(50, np.float32), np.array(50))
    assert repr(many).endswith("\n  9  0\n  ... 40 more")
    records = Records(np.array([4]), np.eye(2, dtype=np.float32)[:1], [{"text": "x" * 100}])
    assert repr(records).startswith("<qvec.Records: 1 of dim 2, float32>\n  4  {'text': 'xxx")
    assert len(repr(records).splitlines()[1]) < 70
    assert "0 of k=3" in repr(BatchHits(np.empty((0, 3)), np.empty((0, 3), np.float32), np.empty(0, np.int64)))
