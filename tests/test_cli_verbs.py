"""Every verb of the command line: its JSON, its width, and the options that the API has as well."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.command_line import run_command
from qvec.cli import VERBS

N, DIM = 600, 24
X = np.random.default_rng(3).normal(size=(N, DIM)).astype(np.float32)
LONG = "a payload whose text is longer than a line of a terminal " * 3
Run = Callable[..., tuple[int, str, str]]

COMMANDS = {
    "import": ("s.qvec", "more.npy"),
    "export": ("s.qvec", "out.npy"),
    "info": ("s.qvec",),
    "get": ("s.qvec", "1", "2"),
    "head": ("s.qvec", "-n", "3"),
    "count": ("s.qvec", "--where", '{"lang": "de"}'),
    "facets": ("s.qvec", "lang"),
    "field": ("add", "s.qvec", "page", "int"),
    "search": ("s.qvec", "q.npy", "-k", "3"),
    "delete": ("s.qvec", "5"),
    "erase": ("s.qvec", "6"),
    "evaluate": ("s.qvec", "-n", "20", "--codes", "f32,int8,mixed,binary"),
    "choose": (
        "s.qvec",
        "--indexes",
        "current",
        "-n",
        "20",
        "--codes",
        "f32,int8,binary",
        "--recall",
        "0.5",
        "--apply",
    ),
    "tune": ("s.qvec", "-n", "20", "-k", "5"),
    "drift": ("s.qvec",),
    "report": ("s.qvec", "-n", "20"),
    "requantize": ("s.qvec", "binary"),
    "generations": ("s.qvec",),
    "optimize": ("s.qvec", "--compact"),
    "compact": ("s.qvec",),
    "backup": ("s.qvec", "copy.qvec"),
    "verify": ("s.qvec",),
    "repair": ("s.qvec",),
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and the files that the commands read."""
    folder = tmp_path_factory.mktemp("samples")
    np.save(folder / "q.npy", X[:2] + 0.01)
    np.save(folder / "x.npy", X)
    np.save(folder / "more.npy", X[:5])
    with qvec.create(folder / "s.qvec", DIM, fields={"lang": "keyword"}, index="hnsw") as db:
        db.add(X, payloads=[{"lang": ["de", "en"][i % 2], "page": i, "text": LONG} for i in range(N)])
    return folder


@pytest.fixture
def run(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(qvec.__file__).parent.parent))
    for name in ("q.npy", "x.npy", "more.npy", "s.qvec"):
        shutil.copy(samples / name, name)

    return partial(run_command, capsys)


def give(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))


def test_every_verb_has_a_command_here_and_prints_json() -> None:
    assert {*COMMANDS, "demo", "bench", "mcp", "reembed"} == set(VERBS)  # the others: test_cli*.py; mcp: frameworks
    for verb in VERBS.values():
        parser = argparse.ArgumentParser()
        verb.configure(parser)
        assert "--json" in parser.format_help()


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_verb_prints_at_most_80_characters_in_a_line(run: Run, verb: str) -> None:
    code, out, _ = run(verb, *COMMANDS[verb])
    assert code == 0
    assert out
    assert max(map(len, out.splitlines())) <= 80


WRITING = ["import", "delete", "erase", "tune", "requantize", "optimize", "compact"]


@pytest.mark.parametrize(
    "command", [*([verb, *COMMANDS[verb]] for verb in WRITING), ["field", "drop", "s.qvec", "lang"]]
)
def test_a_verb_that_writes_waits_for_other_writers_as_long_as_its_timeout(run: Run, command: list[str]) -> None:
    code, _, err = run(*command, "--timeout", "-1")
    assert (code, err.count("\n")) == (2, 1)
    assert "--timeout" in err
    with qvec.open("s.qvec") as db, ThreadPoolExecutor(1) as pool, db.transaction():
        code, _, err = pool.submit(run, *command, "--timeout", "0.1").result()
    assert code == 2
    assert "is in a transaction since" in err.splitlines()[-1]
    assert "waited 0.1 s" in err.splitlines()[-1]


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_fits_80_columns(run: Run, monkeypatch: pytest.MonkeyPatch, verb: str | None) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(*([] if verb is None else [verb]), "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_verb_prints_json(run: Run, verb: str) -> None:
    code, out, _ = run(verb, *COMMANDS[verb], "--json")
    assert code == 0

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in out.splitlines()]
    assert lines
    assert all(isinstance(line, dict) for line in lines)


def test_the_evaluation_has_a_line_for_each_row_and_few_others(run: Run) -> None:
    rows = len(run("evaluate", "s.qvec", "-n", "20", "--json")[1].splitlines())
    assert len(run("evaluate", "s.qvec", "-n", "20")[1].splitlines()) < 2 * rows + 30


def test_fields_are_listed_added_and_dropped(run: Run) -> None:
    assert json.loads(run("field", "list", "s.qvec", "--json")[1]) == {"lang": "keyword"}
    assert json.loads(run("field", "add", "s.qvec", "page", "int", "--json")[1]) == {"lang": "keyword", "page": "int"}
    assert json.loads(run("count", "s.qvec", "--where", '{"page": {"$lt": 7}}', "--json")[1]) == {"count": 7}
    assert json.loads(run("field", "drop", "s.qvec", "lang", "--json")[1]) == {"page": "int"}
    assert "field add takes STORE NAME TYPE" in run("field", "add", "s.qvec", "page")[2]


def test_rows_are_printed_by_id_and_by_filter(run: Run) -> None:
    (row,) = map(json.loads, run("get", "s.qvec", "7", "--json")[1].splitlines())
    assert (row["id"], row["payload"]["page"]) == (7, 7)
    np.testing.assert_array_equal(np.array(row["vector"], np.float32), X[7])
    head = run("head", "s.qvec", "-n", "2", "--offset", "1", "--where", '{"lang": "en"}', "--no-vectors", "--json")[1]
    assert [json.loads(line)["id"] for line in head.splitlines()] == [3, 5]


def test_vectors_expire_and_recent_ones_are_first(run: Run) -> None:
    lines = [{"id": i, "vector": X[i].tolist(), "until": "2000-01-01" if i % 2 else "2100-01-01"} for i in range(20)]
    lines = [{**line, "at": f"19{70 + line['id']}-01-01"} for line in lines]
    Path("r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    fields = ("--field", "until=datetime", "--field", "at=datetime")
    assert run("import", "t.qvec", "r.jsonl", *fields, "--expires", "until")[0] == 0
    assert json.loads(run("count", "t.qvec", "--json")[1]) == {"count": 10}
    assert json.loads(run("info", "t.qvec", "--json")[1])["expired"] == 10
    np.save("one.npy", X[:1])
    hits = json.loads(run("search", "t.qvec", "one.npy", "-k", "10", "--boost", "at=1d", "--json")[1])["hits"]
    assert [hit["id"] for hit in hits][:1] == [0]
    assert set(hits[0]["parts"]) == {"vector", "decay"}
    assert "is not FIELD=TIME" in run("search", "t.qvec", "one.npy", "--boost", "at")[2]
    assert "the half-life must be a time" in run("search", "t.qvec", "one.npy", "--boost", "at=soon")[2]
    rows = run("head", "t.qvec", "-n", "2", "--order-by", "at", "--desc", "--json", "--no-vectors")[1].splitlines()
    assert [json.loads(row)["id"] for row in rows] == [18, 16]
    assert json.loads(run("erase", "t.qvec", "--expired", "--json")[1]) == {"erased": 10}
    assert "--expires is for a new store" in run("import", "t.qvec", "r.jsonl", "--expires", "until")[2]


def test_an_export_can_have_a_filter(run: Run) -> None:
    assert run("export", "s.qvec", "out.npy", "--where", '{"lang": "de"}')[0] == 0
    np.testing.assert_array_equal(np.load("out.npy"), X[::2])


CODES = (
    "auto",
    "f32",
    "f16",
    "bf16",
    "int8",
    "int4",
    "ternary",
    "binary",
    *(f"rabitq{n}" for n in range(1, 9)),
    "mixed",
)
COARSE = ("ternary", "binary", "rabitq1", "rabitq2", "rabitq3", "mixed")


@pytest.mark.parametrize(
    ("code", "index", "metric"),
    [
        *((code, index, "cosine") for code in CODES for index in ("hnsw", "packed")),
        *(("int8", index, metric) for index in ("auto", "flat", "ivf") for metric in ("ip", "l2")),
    ],
)
def test_an_import_takes_every_code_and_index_of_the_api(run: Run, code: str, index: str, metric: str) -> None:
    options = ("--code", code, "--index", index, "--originals", "f16", "--model", "m1", "--metric", metric)
    status, _, err = run("import", "t.qvec", "x.npy", *options)
    if index == "packed" and code in COARSE:
        kind = code.rstrip("123")
        assert (status, err.splitlines()[-1]) == (
            2,
            f"qvec: error: --index packed needs codes of at least 4 bits per dimension, not {kind}",
        )
        assert not Path("t.qvec").exists()
        return
    assert status == 0
    with qvec.open("t.qvec", mode="r", model="m1") as db:
        made = {"auto": "flat", "packed": "hnsw"}.get(index, index)
        assert (db.code, db.index, db.metric) == ("int8" if code == "auto" else code, made, metric)
        assert db.stats().originals == "f16"
        assert db.search(X[7], 1, exact=True).ids.tolist() == [7] or metric == "ip"


def test_an_import_takes_codes_that_come_quantized(run: Run) -> None:
    np.save("i8.npy", np.clip(40 * X, -128, 127).astype(np.int8))
    assert run("import", "t.qvec", "i8.npy", "--code", "prequantized")[0] == 0
    with qvec.open("t.qvec", mode="r") as db:
        np.testing.assert_array_equal(db.get([3]).vectors, np.load("i8.npy")[3:4])
    assert "must hold integers" in run("import", "u.qvec", "x.npy", "--code", "prequantized")[2]
    assert not Path("u.qvec").exists()


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".csv"])
@pytest.mark.parametrize("form", ["int8", "uint8", "binary", "ubinary"])
def test_an_import_takes_every_form_that_comes_quantized(run: Run, form: str, suffix: str) -> None:
    shift = {"int8": 0, "uint8": 128, "binary": -128, "ubinary": 0}[form]
    values = np.packbits(X > 0, axis=1) if "binary" in form else np.clip(40 * X, -127, 127).round()
    codes = (values.astype(np.int16) + shift).astype(np.uint8 if form[0] == "u" else np.int8)
    save_rows(f"c{suffix}", codes)
    assert run("import", "t.qvec", f"c{suffix}", "--code", f"prequantized:dtype={form}")[0] == 0
    with qvec.open("t.qvec", mode="r") as db:
        assert db.dim == DIM
        found = db.get(range(N)).vectors
        assert found.dtype == codes.dtype
        np.testing.assert_array_equal(found, codes)
    save_rows(f"q{suffix}", codes[7:8])
    (answer,) = map(json.loads, run("search", "t.qvec", f"q{suffix}", "-k", "1", "--json")[1].splitlines())
    assert answer["hits"][0]["distance"] == 0 or form in ("int8", "uint8")
    assert answer["hits"][0]["id"] == 7 or "binary" in form  # bits can be equal


def save_rows(file: str, rows: np.ndarray[Any, Any]) -> None:
    """Write the rows of a matrix to a file of the format of its suffix."""
    if file.endswith(".npy"):
        np.save(file, rows)
        return
    lines = [json.dumps(row) if file.endswith(".jsonl") else ",".join(map(str, row)) for row in rows.tolist()]
    Path(file).write_text("".join(f"{line}\n" for line in lines))


def test_a_code_can_have_options(run: Run) -> None:
    assert run("import", "t.qvec", "x.npy", "--code", "int8:scale=per_dim,rotate=true")[0] == 0
    with qvec.open("t.qvec", mode="r") as db:
        assert '"scale": "per_dim"' in str(db.export_calibration())
    assert run("requantize", "t.qvec", "mixed:bits=2.5")[0] == 0
    assert "mixed has no option 'byts'" in run("requantize", "t.qvec", "mixed:byts=2")[2]
    assert "'mixed:bits' is not of the form NAME:OPTION=VALUE" in run("requantize", "t.qvec", "mixed:bits")[2]
    assert "dtype must be one of" in run("import", "u.qvec", "x.npy", "--code", "prequantized:dtype=int4")[2]
    assert not Path("u.qvec").exists()
    assert "are for a new store" in run("import", "t.qvec", "x.npy", "--code", "mixed:bits=2.5")[2]


def test_an_import_names_the_codes_that_there_are(run: Run) -> None:
    assert "--code must be one of auto" in run("import", "u.qvec", "more.npy", "--code", "int7")[2]


def test_json_lines_and_csv_are_imported(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"id": f"a{i}", "vector": X[i].tolist(), "page": i, "tags": ["x"]} for i in range(20)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    Path("r.jsonl").write_text(text)
    give(monkeypatch, text)
    for store, file in {"a.qvec": "r.jsonl", "b.qvec": "-"}.items():
        assert run("import", store, file)[0] == 0
        with qvec.open(store, mode="r") as db:
            found = db.get([f"a{i}" for i in range(20)])
            np.testing.assert_array_equal(found.vectors, X[:20])
            assert found.payloads[3] == {"page": 3, "tags": ["x"]}
    rows = [f'{i},"{X[i].tolist()}",{i * 2},"x, y"' for i in range(20)]
    give(monkeypatch, "id,vector,page,text\n" + "\n".join(rows) + "\n20,[1],2,\n")
    assert "line 22: the vector has 1 values, not 24" in run("import", "c.qvec", "-", "--format", "csv")[2]
    give(monkeypatch, "id,vector,page,text\n" + "\n".join(rows))
    assert run("import", "c.qvec", "-", "--format", "csv", "--field", "page=int")[0] == 0
    with qvec.open("c.qvec", mode="r") as db:
        np.testing.assert_array_equal(db.get([3]).vectors, X[3:4])
        assert db.get([3]).payloads == [{"page": 6, "text": "x, y"}]


def test_queries_come_from_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, json.dumps(X[7].tolist()) + "\n")
    assert json.loads(run("search", "s.qvec", "-", "-k", "1", "--json")[1])["hits"][0]["id"] == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"vector": [1, "a"]}', "line 1: value 1 of the vector"),
        ('{"vektor": [1]}', "line 1: no vector or embedding among vektor"),
        ('{"vector": [1]}\n{"vector": [1, 2]}', "line 2: the vector has 2 values, not 1"),
        ('{"vector": [1], "id": 1}\n{"vector": [2], "id": "b"}', "line 2: ids are strings, or integers"),
        ('{"vector": [1], "id": 1}\n{"vector": [2]}', "line 2: some rows have 'id'"),
        ("[" * 3000, "line 1: not JSON"),
        ("", "has no rows"),
    ],
)
def test_a_line_that_is_not_a_row_is_named(run: Run, text: str, message: str) -> None:
    Path("r.jsonl").write_text(text)
    assert message in run("import", "t.qvec", "r.jsonl")[2]
    assert not Path("t.qvec").exists()


def test_json_has_datetimes_as_iso_text_and_bytes_as_base64(run: Run) -> None:
    moment = datetime(2024, 5, 1, 12, tzinfo=UTC)
    with qvec.open("s.qvec") as db:
        db.add(X[:1], [7000], [{"at": moment, "data": b"\x00\xff", "x": float("nan")}])
    row = json.loads(run("get", "s.qvec", "7000", "--json", "--no-vectors")[1])
    assert row["payload"] == {"at": "2024-05-01T12:00:00+00:00", "data": "AP8=", "x": None}


def test_a_verb_that_is_mistyped_gets_a_suggestion(run: Run) -> None:
    code, _, err = run("serch", "s.qvec")
    assert (code, "no verb 'serch'; did you mean 'search'?" in err) == (2, True)


def test_errors_name_the_options_of_the_shell(run: Run) -> None:
    np.savez("two.npz", a=X, b=X)
    assert "--missing" in run("get", "s.qvec", "999")[2] or "999" in run("get", "s.qvec", "999")[2]
    assert run("import", "t.qvec", "more.npy", "--key", "train")[2].count("--key train") == 1
    assert "-k must be" in run("search", "s.qvec", "q.npy", "-k", "0")[2]
    assert "no-folder" in run("backup", "s.qvec", "no-folder/x.qvec")[2]
    assert "[Errno" not in run("generations", "s.qvec", "--import", "none.json")[2]
    for arguments, message in {
        (
            "generations",
            "s.qvec",
            "--import",
            "x.npy",
        ): "x.npy is not what --export prints: invalid start byte at byte 0",
        ("export", "s.qvec", "x.npy"): "x.npy exists already; --overwrite replaces it",
        ("head", "s.qvec", "-n", "-1"): "-n must be an integer from 0",
        ("choose", "s.qvec", "--recall", "2"): "--recall must be a number between 0 and 1",
        ("search", "s.qvec", "q.npy", "--group-by", "x"): "--group-by names a declared field, got 'x'",
        ("search", "s.qvec", "q.npy", "--where", '{"x": 1}'): "declare it with qvec field add; declared are",
        ("search", "s.qvec", "q.npy", "--recall", "0.9"): "--recall needs a measured curve: call qvec tune with",
        ("search", "s.qvec", "q.npy", "--oversample", "x"): "argument --oversample: 'x' is not a number, nor auto",
        ("import", "t.qvec", "x.npy", "--metric", "euclidean"): "--metric euclidean is called l2",
        ("field", "s.qvec"): "argument list|add|drop: invalid choice: 's.qvec'",
    }.items():
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert message in err.splitlines()[-1]
        assert err.splitlines()[-1].startswith("qvec: error: ")


def test_choose_says_what_changed_and_how_to_free_the_old_codes(run: Run) -> None:
    _, out, _ = run(
        *("choose", "s.qvec", "--indexes", "current", "-n", "20", "--codes", "binary", "--recall", "0.05", "--apply")
    )
    assert "before" in out
    assert "ms of a search" in out
    assert "qvec generations s.qvec --drop 0" in out
    assert "qvec compact s.qvec" in out


def test_a_plot_that_cannot_be_drawn_is_refused_before_measuring(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: object, **__: object) -> None:
        raise AssertionError("measured first")

    monkeypatch.setattr(qvec.Collection, "evaluate", measured)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'matplotlib'" in run("evaluate", "s.qvec", "--plot", "x.png")[2]
    monkeypatch.undo()
