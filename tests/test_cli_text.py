"""The command line with text fields: import, search by words, and relevance from files of judgments."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import qvec
from helpers.command_line import run_command
from qvec.datasets.judgments import load_judgments, load_texts

N, DIM = 60, 8
X = np.random.default_rng(4).normal(size=(N, DIM)).astype(np.float32)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": i, "vector": X[i].tolist(), "body": f"runner{i % 7} word{i}", "title": f"Title {i}"} for i in range(N)
    ]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    np.save("q.npy", X[:30])
    texts = [{"_id": f"q{i}", "text": f"word{i}"} for i in range(30)]
    Path("texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\t{i}\t1" for i in range(30)), "q1\t40\t0"]
    Path("qrels.tsv").write_text("\n".join(lines))

    call = partial(run_command, capsys)
    assert call("import", "s.qvec", "rows.jsonl", "--text-field", "body", "--text-field", "title=english")[0] == 0
    return call


def test_an_import_declares_text_fields(run: Run) -> None:
    with qvec.open("s.qvec", mode="r") as db:
        assert dict(db.fields) == {"body": "text", "title": "text"}
        assert db.declarations["title"] == qvec.Text(stemmer="english")
    again = ("import", "s.qvec", "rows.jsonl", "--on-conflict", "skip", "--text-field")
    assert run(*again, "body")[0] == 0
    assert "has no text field lead" in run(*again, "lead")[2]
    assert "stemmer 'klingon' is unknown" in run("import", "t.qvec", "rows.jsonl", "--text-field", "body=klingon")[2]


def test_a_search_takes_texts_alone_and_with_vectors(run: Run) -> None:
    found = [
        json.loads(line)
        for line in run("search", "s.qvec", "--text", "word7", "--text", "runner3", "--json")[1].splitlines()
    ]
    assert [line["query"] for line in found] == ["word7", "runner3"]
    assert found[0]["hits"][0]["id"] == 7
    assert {hit["id"] % 7 for hit in found[1]["hits"]} == {3}
    both = run("search", "s.qvec", "q.npy", "--row", "4", "--text", "word9", "--fusion", "vector=0,text=1", "--json")
    (line,) = map(json.loads, both[1].splitlines())
    assert line["hits"][0]["id"] == 9
    assert set(line["hits"][0]["parts"]) == {"vector", "text"}
    with qvec.open("s.qvec", mode="r") as db:
        hits = db.search(X[4], 10, text="word9", fusion={"vector": 0, "text": 1})
        assert [hit["id"] for hit in line["hits"]] == hits.ids.tolist()
    table = run("search", "s.qvec", "--text", "word7")[1]
    assert "word7" in table
    assert max(map(len, table.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("s.qvec",), "name either a file of QUERIES, --text or both, or --id"),
        (("s.qvec", "q.npy", "--text", "a"), "30 queries of q.npy and 1 of --text"),
        (("s.qvec", "q.npy", "--fusion", "rrf"), "give --text"),
        (("s.qvec", "--text", "a", "--row", "1"), "--row picks a row of QUERIES"),
        (("s.qvec", "q.npy", "--row", "1", "--text", "a", "--fusion", "vector=x"), "is not NAME=WEIGHT"),
        (("s.qvec", "--text", "a", "--id", "3"), "name either"),
    ],
)
def test_wrong_searches_are_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run("search", *arguments)
    assert code == 2
    assert message in err


def test_relevance_is_measured_from_files(run: Run) -> None:
    files = ("--relevant", "qrels.tsv", "--texts", "texts.jsonl", "--queries", "q.npy")
    rows = [json.loads(line) for line in run("evaluate", "s.qvec", *files, "--json")[1].splitlines()]
    assert [row["search"] for row in rows] == ["vector", "text", "fused"]
    assert [row["mrr"] for row in rows] == [1, 1, 1]
    assert rows[2]["gain_hit"] == 0
    table = run("evaluate", "s.qvec", *files, "--fusion", "weighted")[1]
    assert "fusion: weighted" in table
    assert max(map(len, table.splitlines())) <= 80
    alone = run("evaluate", "s.qvec", *files[:4], "-k", "3", "--json")[1].splitlines()
    assert [json.loads(line)["search"] for line in alone] == ["text"]


def test_a_fusion_is_tuned_from_files(run: Run) -> None:
    files = ("--relevant", "qrels.tsv", "--texts", "texts.jsonl", "--queries", "q.npy")
    assert "stored as the default" in run("evaluate", "s.qvec", *files, "--tune")[1]
    with qvec.open("s.qvec", mode="r") as db:
        (tuned,) = db.fusions
        assert (tuned.inputs, tuned.n_queries) == (("vector", "text"), 15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--relevant", "qrels.tsv"), "needs --queries, --texts or both"),
        (("--texts", "texts.jsonl"), "need --relevant"),
        (("--relevant", "qrels.tsv", "--queries", "q.npy"), "no query has a relevant document"),
        (("--relevant", "qrels.tsv", "--texts", "texts.jsonl", "--codes", "int8"), "do not go with --relevant"),
        (("--relevant", "qrels.tsv", "--texts", "texts.jsonl", "-n", "5"), "do not go with --relevant"),
        (("--relevant", "qrels.tsv", "--texts", "texts.jsonl", "--tune", "--fusion", "rrf"), "not go with --fusion"),
        (("--relevant", "q.npy", "--texts", "texts.jsonl"), "q.npy"),
    ],
)
def test_wrong_evaluations_are_refused(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run("evaluate", "s.qvec", *arguments)
    assert code == 2
    assert message in err


def test_judgments_have_the_forms_of_beir_and_trec(tmp_path: Path) -> None:
    file = tmp_path / "qrels"
    file.write_text("q1 0 d1 2\nq1 0 d2 0\nq2 0 d1 1\n\n")
    assert load_judgments(file) == {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": 1}}
    file.write_text("query-id\tcorpus-id\tscore\nq 1\td1\t1\n")
    assert load_judgments(file) == {"q 1": {"d1": 1}}
    for text, message in (
        ("a 2\n", "line 1: 2 columns"),
        ("", "has no judgments"),
        ("a b c\na b x\n", "line 2: the grade 'x'"),
        ("a b 1\na b 1\n", "line 2: query 'a' has document 'b' twice"),
        ("a b -1\n", "line 1: the grade '-1'"),
    ):
        file.write_text(text)
        with pytest.raises(qvec.InputError, match=message):
            load_judgments(file)


def test_texts_are_lines_or_objects(tmp_path: Path) -> None:
    lines = tmp_path / "a.txt"
    lines.write_text("first\nsecond\n")
    assert load_texts(lines) == {"0": "first", "1": "second"}
    objects = tmp_path / "a.jsonl"
    objects.write_text('{"id": 5, "question": "who"}\n{"text": "what"}\n')
    assert load_texts(objects) == {"5": "who", "1": "what"}
    for text, message in (('{"a": 1}\n', "line 1: there is no text"), ('{"id": 1, "text": "a"}\n' * 2, "occurs twice")):
        objects.write_text(text)
        with pytest.raises(qvec.InputError, match=message):
            load_texts(objects)
