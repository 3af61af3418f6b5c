"""The page of results is what the committed JSON lines give, and chooses the newest curves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
if not (BENCHMARKS / "results").exists():
    pytest.skip("benchmarks are not next to the tests", allow_module_level=True)


@pytest.fixture
def results() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    import results_page

    yield results_page
    sys.path.remove(str(BENCHMARKS))


def line(name: str, started: str, recall: float, qps: float, **more: Any) -> dict[str, Any]:
    machine = {"cpu": "C", "cores": 2}
    return {
        "dataset": "wiki-minilm-384",
        "k": 10,
        "contestant": name,
        "started": started,
        "machine": machine,
        "simd": "avx512",
        "memory": {"anonymous": 5_000_000, "pss": 1},
        "build_s": 1.25,
        "recall": recall,
        "qps": qps,
        **more,
    }


def write(file: Path, *lines: dict[str, Any]) -> None:
    file.write_text("".join(json.dumps(each) + "\n" for each in lines))


def test_the_committed_page_and_the_readme_are_those_of_the_committed_lines(results: Any) -> None:
    groups = results.read()
    assert results.PAGE.read_text() == results.page(groups)
    (shown,) = results.SENTENCE.findall(results.README.read_text())
    assert shown == results.sentence(groups, results.plotted_machine(groups))


def test_the_last_run_of_a_contestant_counts_with_its_commit_and_command(results: Any, tmp_path: Path) -> None:
    origin = {"commit": "abc1234", "command": "python benchmarks/bench_search.py --k 10"}
    write(
        tmp_path / "m.jsonl",
        {"bench": "other", "value": 3},
        line("qvec int8 packed", "2026-01-01T00:00:00Z", 0.99, 900.0),
        line("qvec int8 packed", "2026-02-01T00:00:00Z", 0.90, 400.0, **origin),
        line("qvec int8 packed", "2026-02-01T00:00:00Z", 1.00, 100.0, **origin),
        line("hnswlib", "2026-02-01T00:00:00Z", 0.90, 50.0, **origin),
    )
    groups = results.read(tmp_path)
    page = results.page(groups)
    assert "## m: with AVX-512" in page
    assert "| `qvec int8 packed` | 400 | 200 | 132 | 115 | 5 | 1.2 | 2026-02-01 | abc1234 |" in page
    assert "| `hnswlib` | 50 | - | - | - | 5 | 1.2 | 2026-02-01 | abc1234 |" in page
    assert page.count(origin["command"]) == 1
    shown = results.sentence(groups, results.plotted_machine(groups))
    assert shown.startswith("**200 queries/s at a recall@10 of 0.95**")
    assert "(hnswlib: not reached)" in shown


def test_the_plot_shows_the_newest_variant_and_is_the_same_file_each_time(results: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write(
        tmp_path / "m.jsonl",
        line("qvec int8 packed memory=ram", "2026-01-01T00:00:00Z", 0.96, 999.0),
        line("qvec int8 packed memory=index", "2026-02-01T00:00:00Z", 0.96, 400.0),
        line("hnswlib", "2026-02-01T00:00:00Z", 0.96, 50.0),
    )
    curves = results.chosen(results.read(tmp_path)["m", "wiki-minilm-384", 10])
    assert curves["qvec packed"].contestant == "qvec int8 packed memory=index"
    import results_plot

    drawn = [results_plot.plot({"wiki-minilm-384": curves}, dark, tmp_path) for dark in (False, True)]
    first = [file.read_bytes() for file in drawn]
    assert b"#4c72e0" in first[0]
    assert first[0] != first[1]
    assert results_plot.plot({"wiki-minilm-384": curves}, False, tmp_path).read_bytes() == first[0]
