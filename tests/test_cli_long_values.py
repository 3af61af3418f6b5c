"""The command line on a store with long names, ids and values of every type: tables of 80 columns, and valid JSON."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from qvec.cli import main
from qvec.common.text_tables import text_width

N, DIM = 300, 24
X = np.random.default_rng(8).normal(size=(N, DIM)).astype(np.float32)
MOMENT = datetime(2024, 5, 1, tzinfo=UTC)
LONG_FIELD = "f" * 130
IDS: dict[str, Callable[[int], str]] = {
    "words": lambda i: f"\u6587\u66f8-{i}-" + "x" * 300,
    "digits": lambda i: "9" * 400 + str(i),
}
FIELDS: dict[str, Any] = {
    "lang": "keyword",
    LONG_FIELD: "keyword",
    "body": qvec.Text(),
    "sparse": qvec.Sparse(),
    "at": "datetime",
    "share": "float",
}


def payload(i: int) -> dict[str, Any]:
    return {
        "lang": ["de", "en"][i % 2],
        LONG_FIELD: "\u6587" * 150 + str(i % 3),
        "data": b"\x00\xff",
        "nan": float("nan"),
        "infinite": float("-inf"),
        "at": MOMENT,
        "share": i / 7,
        "body": f"the quick brown fox {i} " + "\u4e00\u4e2a\u5b57" * 60,
        "nested": {"list": [float("nan"), {"then": MOMENT}], "text": "word" * 200},
    }


# By a name, the arguments of a verb; I stands for an id.
COMMANDS: dict[str, tuple[str, ...]] = {
    "info": ("info", "s.qvec", "--graph"),
    "get": ("get", "s.qvec", "I"),
    "head": ("head", "s.qvec", "-n", "3"),
    "head without vectors": ("head", "s.qvec", "-n", "3", "--no-vectors", "--order-by", "share", "--desc"),
    "count": ("count", "s.qvec", "--where", '{"lang": "de"}'),
    "facets": ("facets", "s.qvec", LONG_FIELD),
    "facets of times": ("facets", "s.qvec", "at"),
    "field": ("field", "list", "s.qvec"),
    "field add": ("field", "add", "s.qvec", "z" * 200, "int"),
    "search": ("search", "s.qvec", "q.npy", "-k", "3"),
    "search explained": ("search", "s.qvec", "q.npy", "-k", "3", "--explain"),
    "search by id": ("search", "s.qvec", "--id", "I", "-k", "3"),
    "search groups": ("search", "s.qvec", "q.npy", "--group-by", LONG_FIELD),
    "search groups of times": ("search", "s.qvec", "q.npy", "--group-by", "at"),
    "evaluate": ("evaluate", "s.qvec", "-n", "20"),
    "choose": ("choose", "s.qvec", "-n", "20", "--recall", "0.3", "--codes", "binary,mixed", "--indexes", "current"),
    "choose all": ("choose", "s.qvec", "-n", "20", "--recall", "0.3", "--codes", "int8,mixed", "--indexes", "all"),
    "choose apply": ("choose", "s.qvec", "-n", "20", "--recall", "0.1", "--codes", "mixed", "--apply"),
    "tune": ("tune", "s.qvec", "-n", "20", "-k", "5"),
    "drift": ("drift", "s.qvec"),
    "requantize": ("requantize", "s.qvec", "mixed:bits=2.25"),
    "generations": ("generations", "s.qvec"),
    "verify": ("verify", "s.qvec"),
    "optimize": ("optimize", "s.qvec", "--compact"),
    "compact": ("compact", "s.qvec"),
    "repair": ("repair", "s.qvec"),
    "backup": ("backup", "s.qvec", "c.qvec"),
    "import": ("import", "s.qvec", "rows.jsonl"),
    "delete": ("delete", "s.qvec", "I"),
    "erase": ("erase", "s.qvec", "I"),
}


@pytest.fixture(scope="module", params=IDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder, name_of = tmp_path_factory.mktemp("long"), IDS[request.param]
    options: dict[str, Any] = {"code": qvec.Mixed(bits=2.5), "index": "hnsw", "fields": FIELDS, "model": "m" * 200}
    with qvec.create(folder / "s.qvec", DIM, ids="str", durability="relaxed", **options) as db:
        sparse = [{7: 0.5, 100 + i: 2.0} for i in range(N)]
        db.add(X, [name_of(i) for i in range(N)], [payload(i) for i in range(N)], sparse={"sparse": sparse})
    return folder / "s.qvec", name_of(5)


@pytest.fixture
def run(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    monkeypatch.chdir(tmp_path)
    shutil.copy(made[0], "s.qvec")
    np.save("q.npy", X[:2])
    Path("rows.jsonl").write_text(json.dumps({"id": "new" * 100, "vector": [1] * DIM, "text": "word " * 100}) + "\n")

    def call(name: str, *more: str) -> list[str]:
        arguments = [made[1] if part == "I" else part for part in COMMANDS[name]]
        assert main([*arguments, *more]) == 0
        return capsys.readouterr().out.splitlines()

    return call


@pytest.mark.parametrize("name", COMMANDS)
def test_no_table_is_wider_than_80_columns(run: Callable[..., list[str]], name: str) -> None:
    lines = run(name)
    assert lines
    assert [line for line in lines if text_width(line) > 80] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_values_of_every_type_are_valid_json(run: Callable[..., list[str]], name: str) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = [json.loads(line, parse_constant=refuse) for line in run(name, "--json")]
    assert found
    if name == "get":
        held = found[0]["payload"]
        assert (held["data"], held["nan"], held["infinite"], held["at"]) == ("AP8=", None, None, MOMENT.isoformat())
        assert held["nested"]["list"] == [None, {"then": MOMENT.isoformat()}]
        assert set(held["sparse"]) == {"ids", "weights"} or held["sparse"]


def test_text_that_the_terminal_lacks_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with qvec.create(tmp_path / "s.qvec", DIM) as db:
        db.add(X[:1], [9000], [{"text": "\u4f60"}])
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    assert main(["get", str(tmp_path / "s.qvec"), "9000"]) == 0
    sys.stdout.flush()
    assert b"\\u4f60" in raw.getvalue()
