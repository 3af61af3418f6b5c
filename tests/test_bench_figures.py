"""Figures, tables, plots and pages of a run."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from helpers.bench_results import RESULT, entry, point, written
from qvec import bench
from qvec.bench import figures
from qvec.bench.html import write_report
from qvec.bench.plot import axis_to_recall, plot_bytes, plot_recall, recall_to_axis
from qvec.bench.table import POINT_COLUMNS, print_summary
from qvec.common.errors import InputError, MissingExtraError

# --- figures ---


def test_rates_between_points_are_log_linear_on_the_front() -> None:
    curve = [(0.8, 1000.0), (0.85, 100.0), (0.9, 400.0), (1.0, 100.0)]  # .85 is beaten by .9
    assert figures.front(curve) == [(0.8, 1000.0), (0.9, 400.0), (1.0, 100.0)]
    assert figures.at_recall(curve, 0.95) == pytest.approx(200.0)  # the geometric mean of 400 and 100
    assert figures.at_recall(curve, 0.9) == pytest.approx(400.0)
    assert figures.at_recall(curve, 0.5) == 1000.0
    assert figures.at_recall(curve[:3], 0.95) is None
    assert figures.at_recall([], 0.9) is None


def test_ratios_are_to_the_best_peer_and_to_hnswlib() -> None:
    result = written(
        entry("qvec int8 hnsw", True, point(0.9, 600), point(0.99, 60)),
        entry("hnswlib", False, point(0.9, 100), point(0.95, 50)),
        entry("fast", False, point(0.95, 300, 900)),
        entry("qvec f32 flat", True, point(1.0, 10)),
    )
    at = bench.ratios(result, 0.9)
    assert at["qvec int8 hnsw"] == (2.0, 6.0)
    assert at["hnswlib"] == (pytest.approx(1 / 3), 1.0)
    assert at["fast"] == (3.0, 3.0)  # against the best of the others
    assert bench.ratios(result, 0.99)["qvec int8 hnsw"] == (None, None)
    assert bench.ratios(result, 0.9, "batch")["fast"] == (None, None)
    assert figures.rates_at(result, 0.9, "batch")["fast"] == 900
    assert figures.bytes_per_vector(result.entries[0], 10) == 400
    assert figures.index_bytes(result.entries[0], 10) is None
    parts = {"codes": 30, "graph": 20, "vectors": 900}
    assert figures.index_bytes(replace(result.entries[0], parts=parts), 10) == 5


def test_the_memory_of_an_index_is_without_mapped_originals() -> None:
    heap = entry("hnswlib", False, point(0.9, 100))
    own = replace(entry("qvec", True, point(0.9, 600)), parts={"codes": 30, "graph": 20, "vectors": 2900})
    assert figures.index_memory(heap, 10) == 400  # all of its 4,000 bytes
    assert figures.index_memory(own, 10) == 105  # 1,000 anonymous bytes, and 50 of the 3,000 bytes of the file
    assert figures.index_memory(replace(own, options={"memory": "index"}), 10) == 100  # the copies are anonymous
    assert figures.index_memory(replace(own, memory={**own.memory, "file": 40}), 10) == 104  # type: ignore[dict-item]
    assert figures.index_memory(replace(own, memory=None), 10) is None


def test_points_are_read_back_from_their_json_lines(tmp_path: Path) -> None:
    result = written(entry("a", True, point(0.9, 600, 700)), entry("hnswlib", False, point(0.9, 100), point(1.0, 5)))
    file = tmp_path / "points.jsonl"
    bench.write_lines(result, file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["contestant"], line["qps"]) for line in lines] == [("a", 600), ("hnswlib", 100), ("hnswlib", 5)]
    assert lines[0]["memory"]["anonymous"] == 1000
    assert bench.load_lines(file) == [result]
    file.write_text(file.read_text() + "{}\n")
    with pytest.raises(InputError, match="line 4: not a point of a benchmark"):
        bench.load_lines(file)


# --- pictures and pages ---


class Page(HTMLParser):
    """Checks that elements are balanced; collects cells of the tables and resources that the page would load."""

    VOID: ClassVar[set[str]] = {"meta", "input", "br", "link", "img"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.fetched: list[str] = []
        self.data = ""
        self._in_data = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.fetched += [value for name in ("src", "href") if (value := named.get(name))]
        self._in_data = named.get("id") == "data"
        if tag == "td":
            self.cells.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._in_data = False

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data += data
        elif self.open and self.open[-1] == "td":
            self.cells[-1] += data


def test_the_page_parses_carries_every_point_and_fetches_nothing(tmp_path: Path) -> None:
    other = replace(RESULT, settings={**RESULT.settings, "k": 100})
    write_report([RESULT, other], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.fetched == []
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    runs = json.loads(page.data)
    assert [run["entries"] for run in runs] == [
        [{**asdict(each), "index_memory": figures.index_memory(each, 10)} for each in RESULT.entries]
    ] * 2
    assert ["k = 10 (" in run["name"] for run in runs] == [True, False]
    assert page.cells.count("0.9123") == 2  # a row of each run
    assert page.cells.count("654,321") == 4  # best and median
    assert len(page.cells) == 2 * 4 * len(POINT_COLUMNS)


def test_the_script_knows_every_field_that_it_draws() -> None:
    script = (Path(bench.__file__).parent / "assets" / "report.js").read_text()
    (entry,) = json.loads(json.dumps([asdict(RESULT.entries[0])]))
    fields = set(re.findall(r"\bp\.(\w+)", script)) | set(re.findall(r"\bpoint\.(\w+)\b(?!\()", script))
    assert {"recall", "qps", "batch_qps", "p99_us", "search"} <= fields <= set(entry["points"][0])
    assert set(re.findall(r"e\.memory\.(\w+)", script)) <= set(entry["memory"])
    page = (Path(bench.__file__).parent / "assets" / "report.html").read_text()
    assert {*re.findall(r'\$\("(\w+)"\)', script)} <= {*re.findall(r'id="(\w+)"', page)}
    assert {"x axis", "y axis", "Pareto front only"} <= {*re.findall(r"(x axis|y axis|Pareto front only)", page)}


@pytest.mark.slow
def test_plots_show_the_points_that_exist(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lost = replace(RESULT.entries[0], contestant="elsewhere", memory=None)
    result = replace(RESULT, entries=[*RESULT.entries, lost])
    plot_recall(result, tmp_path / "recall.png")
    plot_bytes(result, tmp_path / "bytes.png", [0.9, 0.999])
    for name in ("recall.png", "bytes.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / name).stat().st_size > 10_000


def test_the_axis_of_recall_is_logarithmic_in_one_minus_recall() -> None:
    np.testing.assert_allclose(recall_to_axis([0.9, 0.99, 1.0]), [1, 2, 4])
    np.testing.assert_allclose(axis_to_recall(recall_to_axis([0.5, 0.9, 0.999])), [0.5, 0.9, 0.999])


def test_without_matplotlib_there_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="pip install 'matplotlib'"):
        plot_recall(RESULT, tmp_path / "recall.png")


def test_the_summary_shows_rates_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    result = replace(RESULT, failed={"usearch": "died of SIGSEGV"}, skipped={"scann": "scann is not installed"})
    print_summary(result, [0.95])
    text = " ".join(capsys.readouterr().out.split())
    assert "usearch: failed: died of SIGSEGV" in text
    assert "scann: skipped: scann is not installed" in text
    rate = figures.at_recall([(0.91234, 654321), (0.99, 60)], 0.95)
    assert rate is not None
    assert f"{rate:,.0f}" in text
    peer = (100 * 5) ** 0.5
    assert f"{rate / peer:.2f} {rate / peer:.2f}" in text
