"""Filters match what their plain-Python model matches after any writes; bad filters raise errors that explain them."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qvec
from helpers.collection_model import merged
from helpers.filter_model import FIELDS, filters, matches, payloads
from helpers.vectors import clustered
from qvec.cli import main

DIM = 4
X = clustered(np.random.default_rng(3), 40, DIM)


def ids_where(db: qvec.Collection, where: dict[str, Any]) -> list[int]:
    found: list[int] = db.get(where=where).ids.tolist()
    return found


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    held=st.lists(payloads, min_size=1, max_size=30),
    changes=st.lists(st.tuples(st.integers(0, 29), payloads, st.booleans()), max_size=6),
    gone=st.sets(st.integers(0, 29), max_size=6),
    wheres=st.lists(filters, min_size=1, max_size=5),
    late=st.booleans(),
)
def test_filters_match_as_the_model_after_any_changes(
    held: list[Any], changes: list[Any], gone: set[int], wheres: list[Any], late: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.qvec"
        with qvec.create(path, DIM, metric="l2", fields={} if late else FIELDS) as db:
            db.add(X[: len(held)], payloads=held)
            model = dict(enumerate(held))
            for i, payload, merge in changes:
                if i in model:
                    db.update_payloads([i], payload, merge=merge)
                    model[i] = merged(model[i], payload) if merge else payload
            db.delete(sorted(gone))
            model = {i: payload for i, payload in model.items() if i not in gone}
            for name, kind in FIELDS.items() if late else ():
                db.add_field(name, kind)
            assert db.verify() == []
            for where in wheres:
                expected = [i for i, payload in model.items() if matches(payload, where)]
                assert ids_where(db, where) == expected
                assert db.count(where) == len(expected)
                hits = db.search(X[0], 50, where=where)
                assert sorted(hits.ids[: hits.counts].tolist()) == expected


@pytest.fixture
def db(path: Path) -> Any:
    with qvec.create(path, DIM, metric="l2", fields=FIELDS) as collection:
        yield collection


def nested(depth: int, name: str) -> dict[str, Any]:
    where: dict[str, Any] = {"year": 1}
    for _ in range(depth):
        where = {name: where if name == "$not" else [where]}
    return where


BAD: list[tuple[Any, str]] = [
    ({"yaer": 1}, r"where\['yaer'\]: 'yaer' is not a declared field.*did you mean 'year'"),
    ({"color": 1}, r"declare it with add_field\('color', type\)"),
    ({"$nor": []}, r"where\['\$nor'\]: unknown operator"),
    ({"word": {"$regex": "a"}}, r"where\['word'\]\['\$regex'\]: unknown operator.* \$exists, \$empty and \$not$"),
    ({"year": {"gte": 1}}, r"\$gt, \$gte.* and \$not; did you mean \$gte\?"),
    ({"word": {"$EQ": "a"}}, r"'word' has \$eq, \$ne, \$in, \$nin, \$exists, \$empty and \$not; did you mean \$eq\?"),
    ({"$an": [{"year": 1}]}, r"did you mean \$and\?"),
    ({"id": {"$in": [1]}}, r"where\['id'\]: ids are not a payload field.*ids_in="),
    ({"$or": [{"year": 1}, {"year": {"$gte": "x"}}]}, r"where\['\$or'\]\[1\]\['year'\]\['\$gte'\] is 'x' \(str\)"),
    ({"year": True}, "is True .bool.: it must be an integer"),
    ({"year": 1.0}, "is 1.0 .float.: it must be an integer"),
    ({"year": 2**63}, "an integer must be from"),
    ({"year": 10**6000}, "an integer of 19932 bits"),
    ({"score": float("nan")}, "NaN"),
    ({"score": 10**400}, "outside of the range of a float64"),
    ({"score": "1"}, "it must be a number"),
    ({"ok": 1}, "it must be True or False"),
    ({"word": 1}, "it must be a string"),
    ({"word": b"a"}, "it must be a string"),
    ({"word": "a" * 10_000_000}, r"the limit of a keyword is 65536|where takes 10000011 bytes; the limit is 4194304"),
    ({"word": "\ud800"}, "lone surrogate"),
    ({"word": None}, r"\$exists"),
    ({"word": ["a"]}, r"use \$in"),
    ({"word": {"$gt": "a"}}, "no order"),
    ({"oks": {"$lt": True}}, "no order"),
    ({"word": {"$contains": "a"}}, "not a list"),
    ({"at": "yesterday"}, "ISO 8601"),
    ({"at": 5}, "ISO 8601"),
    ({"year": {}}, "empty condition"),
    ({"year": {"$in": 5}}, "must be a list"),
    ({"year": {"$in": [1, "2"]}}, r"\['\$in'\]\[1\] is '2'"),
    ({"year": {"$not": 5}}, "mapping of operators"),
    ({"year": {"$exists": 1}}, "True or False"),
    ({"year": {1: 2}}, "unknown operator"),
    ({"$and": []}, "one or more filters"),
    ({"$or": {"year": 1}}, "one or more filters"),
    ({1: 2}, "must be a string"),
    ({None: 2}, "must be a string"),
    ([("year", 1)], "where must be a mapping"),
    ("year = 1", "where must be a mapping"),
    (nested(40, "$and"), "deeper than 16 levels"),
    (nested(2000, "$not"), "deeper than 16 levels"),
    ({"$or": [{"year": 1}] * 2000}, "more than 1024 conditions"),
    ({"year": {"$in": list(range(70_000))}}, "more than 65536 values"),
]


@pytest.mark.parametrize(("where", "message"), BAD, ids=range(len(BAD)))
def test_a_filter_that_is_wrong_is_refused_by_its_path_and_the_limit(
    db: qvec.Collection, where: Any, message: str
) -> None:
    db.add(X[:3], payloads=[{"year": 1}, {"word": "a"}, None])
    for call in (lambda: db.search(X[0], where=where), lambda: db.count(where), lambda: db.delete(where=where)):
        with pytest.raises(qvec.InputError, match=message):
            call()
    with pytest.raises(qvec.InputError, match=message):
        next(db.scan(where=where))
    assert len(db) == 3


@pytest.mark.parametrize(("payload", "message"), [
    ({"year": "2020"}, r"payload\[1\]\['year'\] is '2020' \(str\): it must be an integer"),
    ({"year": True}, "it must be an integer"),
    ({"year": 2**63}, "an integer must be from"),
    ({"score": float("nan")}, "NaN"),
    ({"word": 5}, "it must be a string"),
    ({"words": "a"}, "must be a list of keyword values"),
    ({"words": ["a", 5]}, r"\['words'\]\[1\] is 5"),
    ({"years": list(range(5000))}, "5000 items; the limit is 4096"),
    ({"at": "noon"}, "ISO 8601"),
    ({"ok": "yes"}, "True or False"),
    ({"word": "x" * 70_000}, "65536"),
    ({"text": "x" * (16 << 20)}, r"payload\[1\] takes .* bytes; the limit is 16777216"),
])  # fmt: skip
def test_a_payload_of_the_wrong_type_or_size_changes_nothing(db: qvec.Collection, payload: Any, message: str) -> None:
    db.add(X[:2], payloads=[{"year": 1, "word": "a"}, None])
    before = db.stats()
    with pytest.raises(qvec.InputError, match=message):
        db.upsert(X[2:4], [0, 7], [{"year": 2}, payload])
    with pytest.raises(qvec.InputError, match=message):
        db.update_payloads([0, 1], [{"year": 2}, payload])
    assert db.stats() == before
    assert db.get([0, 1]).payloads == [{"year": 1, "word": "a"}, None]
    assert ids_where(db, {"year": 1}) == [0]
    assert db.verify() == []


def test_an_add_that_fails_late_leaves_the_indexes_as_they_were(db: qvec.Collection, monkeypatch: Any) -> None:
    db.add(X[:5], payloads=[{"year": i, "word": "w", "words": ["a"]} for i in range(5)])

    def fail(*args: Any) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("qvec.rows.writer.Writer.extend_index", fail)
        with pytest.raises(RuntimeError, match="power cut"):
            db.upsert(X[5:8], [0, 1, 9], [{"year": 100, "word": "w", "words": ["a"]}] * 3)
    assert db.verify() == []
    assert ids_where(db, {"word": "w"}) == ids_where(db, {"words": "a"}) == [0, 1, 2, 3, 4]
    assert ids_where(db, {"year": {"$gte": 3}}) == [3, 4]


def test_delete_by_where_deletes_only_matching_vectors(db: qvec.Collection) -> None:
    db.add(X[:9], payloads=[{"year": i % 3} for i in range(8)] + [None])
    assert db.delete([0, 1, 2, 99], where={"year": {"$gte": 1}}) == 2
    assert db.delete(where={"year": 0}) == 3
    assert [i in db for i in range(9)] == [False, False, False, False, True, True, False, True, True]
    assert db.delete(where={"year": {"$exists": False}}) == 1
    for bad in ({"where": {}}, {}):
        with pytest.raises(qvec.InputError, match=r"where is empty|give the ids"):
            db.delete(**bad)  # type: ignore[arg-type]
    assert db.verify() == []
    assert len(db) == 3


def test_string_ids_are_filtered_deleted_and_updated_alike(path: Path) -> None:
    names = [f"n{i}" for i in range(10)]
    with qvec.create(path, DIM, metric="l2", ids="str", fields={"year": "int"}) as db:
        db.add(X[:10], names, [{"year": i} for i in range(9)] + [None])
        assert db.get(where={"year": {"$gt": 6}}).ids.tolist() == ["n7", "n8"]
        assert db.search(X[3], 20, where={"year": {"$lt": 5}}, ids_in=["n3", "n4", "n9", "no"]).counts == 2
        assert db.update_payloads(["n0", "n9"], {"year": 50}) == 2
        assert db.delete(where={"year": 50}) == 2
        assert db.update_payloads(["n1"], None, merge=False) == 1
        assert db.get(["n1"]).payloads == [None]
        assert "n1" in db
        assert db.verify() == []


def test_allowed_ids_and_masks_combine_with_filters(db: qvec.Collection) -> None:
    db.add(X[:20], payloads=[{"year": i} for i in range(20)])
    mask = np.zeros(15, bool)
    mask[[2, 4, 6, 14]] = True

    def found(**options: Any) -> list[int]:
        hits = db.search(X[0], 20, **options)
        return sorted(hits.ids[: hits.counts].tolist())

    assert found(ids_in=[3, 5, 99]) == found(ids_in=np.array([5, 3, 99])) == [3, 5]
    assert found(ids_in=mask) == [2, 4, 6, 14]
    assert found(ids_in=mask, where={"year": {"$gte": 5}}) == [6, 14]
    assert found(ids_in=[]) == found(ids_in=np.zeros(0, bool)) == []
    assert found(ids_in=list(range(20)), where={"year": {"$lt": 2}}) == [0, 1]
    with pytest.raises(qvec.InputError, match="ids are integers"):
        found(ids_in=["a"])
    with pytest.raises(qvec.InputError, match="mask"):
        found(ids_in=mask[None])


def test_results_follow_each_commit_although_filters_are_remembered(db: qvec.Collection, path: Path) -> None:
    where = {"word": "a"}
    with qvec.open(path, "r") as reader:
        for i in range(4):
            db.add(X[i], payloads=[{"word": "a"}])
            assert db.search(X[0], 9, where=where).counts == i + 1
            assert reader.search(X[0], 9, where=where).counts == i + 1
        db.update_payloads([1], {"word": "b"})
        assert reader.count(where) == 3
        assert db.search(X[0], 9, where={"word": True} | where).counts == 3


def test_datetimes_are_read_back_as_the_same_moment_and_text_as_text(db: qvec.Collection) -> None:
    moment = datetime(2024, 5, 1, 12, 30, 0, 123, UTC)
    db.add(X[:3], payloads=[{"at": moment}, {"at": "2024-05-01T12:30:00.000123+00:00"}, {"free": datetime(2024, 1, 1)}])
    assert db.get([0, 1, 2]).payloads == [
        {"at": moment},
        {"at": "2024-05-01T12:30:00.000123+00:00"},
        {"free": datetime(2024, 1, 1, tzinfo=UTC)},
    ]
    assert ids_where(db, {"at": moment}) == [0, 1]
    assert ids_where(db, {"at": {"$gt": "2024-05-01T14:30:00.000122+02:00"}}) == [0, 1]


def test_each_filter_of_a_batch_is_named_by_its_place(db: qvec.Collection) -> None:
    db.add(X[:3], payloads=[{"year": i} for i in range(3)])
    with pytest.raises(qvec.InputError, match=r"^where\[1\]\['yeer'\]"):
        db.search(X[:3], where=[{"year": 1}, {"yeer": 1}, None])


def test_updating_leaves_other_fields_as_they_are(db: qvec.Collection) -> None:
    db.add(X[:2], payloads=[{"year": 1, "word": "a", "words": ["x", "y"]}, {"year": 1}])
    db.update_payloads([0, 1], [{"year": 2, "words": None}, {"word": "a"}])
    counts = [db.count(where) for where in ({"word": "a"}, {"year": 2}, {"year": 1}, {"words": "x"})]
    assert counts == [2, 1, 1, 0]
    assert db.verify() == []


def test_updating_reports_missing_and_repeated_ids(db: qvec.Collection) -> None:
    db.add(X[:2], payloads=[{"year": 1}, None])
    with pytest.raises(qvec.MissingIdError, match="7"):
        db.update_payloads([0, 7], {"year": 2})
    with pytest.raises(qvec.DuplicateIdError):
        db.update_payloads([0, 0], {"year": 2})
    assert db.update_payloads([0, 7], {"year": 2, "note": "n"}, missing="ignore") == 1
    assert db.update_payloads([0, 1], [{"note": None}, {"note": "m"}]) == 2
    assert db.get([0, 1]).payloads == [{"year": 2}, {"note": "m"}]
    assert db.update_payloads([0, 1], {"year": 5}, merge=False) == 2
    assert db.get([0, 1]).payloads == [{"year": 5}, {"year": 5}]
    with pytest.raises(qvec.InputError, match="1 payloads for 2"):
        db.update_payloads([0, 1], [{"year": 1}])


def test_an_empty_collection_can_be_asked(db: qvec.Collection) -> None:
    assert db.count({"year": 1}) == 0
    assert db.get(where={"year": 1}).payloads == []
    assert db.search(X[0], 3, where={"word": "a"}).counts == 0
    assert db.delete(where={"year": 1}) == 0
    db.add_field("more", "int")


def test_the_command_line_declares_shows_and_filters_by_fields(tmp_path: Path, capsys: Any) -> None:
    store, vectors, payload = str(tmp_path / "a.qvec"), tmp_path / "x.npy", tmp_path / "p.jsonl"
    np.save(vectors, X[:10])
    payload.write_text("".join(json.dumps({"year": 2000 + i, "word": "w"}) + "\n" for i in range(10)))
    new = ["import", store, str(vectors), "--payloads", str(payload), "--field", "year=int", "--field", "word=keyword"]
    assert main(new) == 0
    assert main(["info", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["fields"] == {"year": "int", "word": "keyword"}
    assert main(["info", store]) == 0
    assert "year=int, word=keyword" in capsys.readouterr().out
    ask = ["search", store, str(vectors), "--row", "0", "--json", "--where"]
    assert main([*ask, '{"year": {"$gte": 2008}}']) == 0
    assert {hit["id"] for hit in json.loads(capsys.readouterr().out)["hits"]} == {8, 9}
    for arguments, message in (
        ([*ask, "{year"], "--where is not JSON"),
        ([*ask, '{"yaer": 1}'], "did you mean 'year'"),
        ([*new[:3], "--field", "year=float"], "has no field year of type float"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_filters_in_a_transaction_see_each_change_before_them(db: qvec.Collection) -> None:
    db.add(X[:8], payloads=[{"year": i % 4} for i in range(8)])
    with db.transaction():
        assert db.delete(where={"year": 0}) == 2
        assert db.delete(where={"year": {"$ne": 3}}) == 4
        assert db.count({"year": {"$exists": True}}) == 2
        db.update_payloads([3], {"year": 9})
        assert ids_where(db, {"year": 9}) == [3]
        assert sorted(db.search(X[0], 5, where={"year": {"$gte": 3}}).ids[:2].tolist()) == [3, 7]
    assert ids_where(db, {"year": {"$gte": 0}}) == [3, 7]
    for year, left in ((9, 1), (3, 0)):
        assert db.delete(where={"year": year}) == 1
        assert len(db) == left
        assert db.verify() == []


def test_a_list_a_string_or_no_value_can_be_empty(tmp_path: Path) -> None:
    fields = {"tags": "keyword[]", "years": "int[]", "name": "keyword", "page": "int"}
    rows = [None, {}, {"tags": [], "years": [], "name": "", "page": 0}, {"tags": [""], "years": [1], "name": "x"}]
    rows.append({"tags": ["y" * 300], "years": [0]})
    with qvec.create(tmp_path / "s.qvec", 4, fields=fields) as db:
        db.add(np.ones((len(rows), 4)), payloads=rows)
        for name, empty in {"tags": [0, 1, 2], "years": [0, 1, 2], "name": [0, 1, 2, 4], "page": [0, 1, 3, 4]}.items():
            assert db.get(where={name: {"$empty": True}}).ids.tolist() == empty
            full = sorted(set(range(len(rows))) - set(empty))
            assert db.get(where={name: {"$empty": False}}).ids.tolist() == full
        with pytest.raises(qvec.InputError, match="must be True or False"):
            db.get(where={"tags": {"$empty": 1}})
