"""``qvec bench`` from the command line, on files that the tests write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec.cli import main


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(qvec.__file__).parents[1]))
    x = clustered(np.random.default_rng(8), 520, 16)
    Path("set").mkdir()
    np.save("set/base.npy", x[:500])
    np.save("set/queries.npy", x[500:])
    Path("set/meta.json").write_text('{"metric": "l2"}')

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["bench", *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


@pytest.mark.slow
def test_bench_prints_tables_and_writes_a_line_a_point(run) -> None:
    code, out, _ = run(
        "set", "--peers", "--codes", "int8", "f32", "--indexes", "flat", "--rounds", "1", "-k", "5", "--threads", "1",
        "--sweep", "oversample=1,4", "--recall", "0.5", "--out", "out", "--points",
    )  # fmt: skip
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "set: 500 x 16, l2; recall@5" in " ".join(out.split())
    assert "@0.5" in out
    lines = [json.loads(line) for line in Path("out/points.jsonl").read_text().splitlines()]
    assert [(line["contestant"], line["search"]["oversample"]) for line in lines] == [
        ("qvec int8 flat", 1), ("qvec int8 flat", 4), ("qvec f32 flat", 1), ("qvec f32 flat", 4),
    ]  # fmt: skip
    for line in lines:
        assert (line["n"], line["dim"], line["metric"], line["k"], line["build_threads"]) == (500, 16, "l2", 5, 1)
        assert line["recall"] > 0.8
        assert 0 < line["p50_us"] <= line["p99_us"]
        assert line["simd"] == qvec.simd_level()
        assert f"{line['qps']:,.0f}" in out


@pytest.mark.slow
def test_bench_grows_a_set_and_keeps_it(run) -> None:
    arguments = (
        "set",
        "--grow",
        "1500",
        "--peers",
        "--indexes",
        "hnsw",
        "--rounds",
        "1",
        "--sweep",
        "ef=40",
        "--out",
        "o",
    )
    assert run(*arguments)[0] == 0
    assert np.load("o/set-1500/base.npy").shape == (1500, 16)
    code, out, _ = run(*arguments, "--json")  # from what was kept
    assert (code, json.loads(out)["dataset"]["n"]) == (0, 1500)
    lines = [json.loads(line) for line in Path("o/points.jsonl").read_text().splitlines()]
    assert [(line["dataset"], line["n"]) for line in lines] == [("set-1500", 1500)] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["set", "--threads", "0"], "threads must be an integer from 1 to 1024, got 0"),
        (["set", "--peers", "annoy"], "peer is 'annoy'; it is one of"),
        (["set", "--peers", "--codes", "int9"], "int9"),
        (["set", "--peers", "--indexes", "tree"], "index is 'tree'"),
        (["set", "--recall", "1.5"], "--recall is 1.5; it is above 0 and at most 1"),
        (["set", "--sweep", "ef"], "--sweep 'ef' is not of the form"),
        (["set", "-k", "501"], "k is 501; the limit is 1 to the 500 rows"),
        (["set", "--grow", "9"], "name a folder with --out"),
        (["set", "--truth", "set/queries.npy"], "dtype float32, not integers"),
        (["nowhere"], "nowhere: no such file or folder"),
        (["demo", "--metric", "l2"], "--metric does not go with demo"),
        (["set", "--peers", "--codes"], "there is no contestant to measure"),
    ],
)
def test_bench_refuses_bad_arguments(run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert err.splitlines()[-1].startswith("qvec: error: ")
    assert message in err
    assert "built" not in out
