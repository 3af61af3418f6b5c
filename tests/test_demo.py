"""`qvec demo`: each step, what it recommends, and its data."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from functools import partial
from pathlib import Path

import pytest

import qvec
from helpers.command_line import run_command
from qvec.cli import build_parser
from qvec.demo import next_commands


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(qvec.__file__).parent.parent))  # for child processes
    return partial(run_command, capsys)


@pytest.mark.slow
def test_the_demo_answers_in_two_processes_and_compares_the_codes(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvec.demo.comparison.MEASURE_SECONDS", 0.01)
    code, out, err = run("demo", "--path", "kept.qvec")
    assert code == 0
    lines = out.replace("**", "").splitlines()  # bold text; commands are not wrapped
    assert max(len(line) for line in lines if not line.startswith("  $ qvec")) <= 80
    assert "100 % (5,000 of 5,000 passages)" in err
    assert "**30–60%" in out
    assert "the same passages" in " ".join(out.split())
    table = {tuple(re.split(r"\s{2,}", line.strip())[:2]): line.split() for line in out.splitlines()}
    recall = {
        way: float(next(cell for cell in line if re.fullmatch(r"[01]\.\d{3}", cell)))
        for way, line in table.items()
        if way[0] in ("f32", "int8", "binary")
    }
    assert recall["f32", "exact scan"] == 1
    assert recall["int8", "re-ranked"] >= 0.99
    assert recall["binary", "graph"] < recall["binary", "re-ranked"]
    assert json.loads(run("info", "kept.qvec", "--json")[1])["count"] == 5000
    code, out, err = run("demo", "--path", "kept.qvec")
    assert (code, out) == (2, "")
    assert "kept.qvec" in err
    code, out, _ = run("demo", "--json")
    found = json.loads(out)
    assert (code, list(found)) == (0, ["stored", "answers", "second_process", "hybrid", "codes", "indexes"])
    assert found["stored"]["count"] == 5000
    assert found["answers"][0]["hits"] == found["second_process"]["hits"]
    hits = {row["search"]: row["hit"] for row in found["hybrid"]["rows"]}
    assert hits["fused"] >= max(hits["vector"], hits["text"])
    assert all(answer["titles"].keys() == {"vector", "text", "fused"} for answer in found["hybrid"]["answers"])
    assert {(row["code"], row["search"]): row["recall"] for row in found["codes"]["rows"]}["f32", "exact scan"] == 1
    indexes = {row["index"]: row for row in found["indexes"]["rows"]}
    assert {"qvec, compact graph", "qvec, packed graph"} <= indexes.keys()
    assert ("hnswlib" in indexes) == (importlib.util.find_spec("hnswlib") is not None)
    assert all(row["recall"] >= 0.95 and row["queries_per_second"] > 0 for row in indexes.values())
    assert indexes["qvec, compact graph"]["index_bytes"] < indexes["qvec, packed graph"]["index_bytes"]


def test_the_demo_ends_with_three_commands_that_exist() -> None:
    for path in (None, Path("kept.qvec")):
        commands = [shlex.split(command) for command, about in next_commands(path) if about]
        assert len(commands) == 3
        for command in commands:
            assert command[0] == "qvec"
            build_parser().parse_args(command[1:])  # exits if an option does not exist


def test_without_its_data_the_demo_says_how_to_get_it(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qvec_demo_data", None)
    code, out, err = run("demo")
    assert (code, out) == (2, "")
    assert "qvec-demo-data" in err
    assert err.rstrip().endswith("pip install ./demo_data")
