"""The benchmark: its processes and their order with fake libraries, and its figures against expected ones."""

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

from helpers.vectors import clustered
from qvec import bench
from qvec.bench import figures
from qvec.bench.adapters.base import id_rows, widths
from qvec.bench.contestants import PEERS, Contestant, adapter_class, locate, parse
from qvec.bench.html import write_report
from qvec.bench.plot import axis_to_recall, plot_bytes, plot_recall, recall_to_axis
from qvec.bench.records import Entry, Point, Result
from qvec.bench.table import POINT_COLUMNS, print_summary
from qvec.common.errors import InputError, MissingExtraError
from qvec.datasets import Workload, exact_knn

DIM, K = 16, 5
FAST = bench.Settings(k=K, build_threads=1, rounds=2, trial_seconds=0.5)


@pytest.fixture(autouse=True)
def _fakes_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture(scope="module")
def workload() -> Workload:
    rng = np.random.default_rng(5)
    x = clustered(rng, 430, DIM)
    truth = exact_knn(x[:400], x[400:], 20, "l2")[0]
    return Workload("clustered", "l2", x[:400], x[400:], truth)


def fake(kind: str, **options: object) -> Contestant:
    return Contestant(str(options.get("name", kind)), f"helpers.fake_peers:{kind}", options)


def test_a_run_measures_recall_rates_latency_memory_and_size(workload: Workload) -> None:
    result = bench.run(workload, [fake("Exact", pause=0.002)], FAST)
    (entry,) = result.entries
    half, whole = entry.points
    truth = exact_knn(workload.base[:200], workload.queries, K, "l2")[0]
    expected = np.mean([np.isin(true[:K], found).mean() for true, found in zip(workload.truth, truth, strict=True)])
    assert half.recall == half.batch_recall == pytest.approx(expected)
    assert (whole.recall, whole.batch_recall, whole.queries) == (1.0, 1.0, 30)
    assert whole.search == {"share": 1.0}
    assert 0 < whole.qps_median <= whole.qps < 500  # it sleeps 2 ms a query
    assert 2000 <= whole.p50_us <= whole.p95_us <= whole.p99_us
    assert whole.batch_qps is not None
    assert whole.batch_qps > 2 * whole.qps  # a batch does not sleep
    assert entry.file_bytes == 4 * 400 * DIM
    assert entry.memory is None or entry.memory["rss"] > 0
    assert (entry.library, entry.own) == ("numpy", False)
    assert result.dataset == {"dataset": "clustered", "n": 400, "dim": DIM, "metric": "l2"}


@pytest.mark.slow
def test_trials_are_interleaved_and_another_contestant_begins_each_round(workload: Workload, tmp_path: Path) -> None:
    log = tmp_path / "turns"
    names = ["a", "b", "c"]
    bench.run(workload, [fake("Exact", log=str(log), name=name) for name in names], FAST)
    turns = [line.split() for line in log.read_text().splitlines()]
    groups = [turns[i : i + 3] for i in range(0, len(turns), 3)]
    assert [{point for _, point in group} for group in groups] == [{"0.5"}, {"1.0"}] * 2
    assert all(sorted(name for name, _ in group) == names for group in groups)
    assert len({group[0][0] for group in groups}) == 3


@pytest.mark.unsanitized
@pytest.mark.slow
def test_a_contestant_that_crashes_hangs_or_raises_is_reported_and_the_rest_go_on(workload: Workload) -> None:
    contestants = [fake(kind) for kind in ("Crashing", "Exact", "Hanging", "Refusing")]
    lines: list[str] = []
    result = bench.run(workload, contestants, replace(FAST, trial_timeout=2.0), notice=lines.append)
    assert result.failed.keys() == {"Crashing", "Hanging", "Refusing"}
    assert "SIGSEGV" in result.failed["Crashing"]
    assert "about to read nothing" in result.failed["Crashing"]
    assert "no answer to 'search' within 2 s" in result.failed["Hanging"]
    assert result.failed["Refusing"] == "RuntimeError: 400 rows are too many"
    counts = {entry.contestant: len(entry.points) for entry in result.entries}
    assert counts == {"Crashing": 1, "Exact": 2}  # the point before the crash stays
    assert any(line.startswith("Refusing: failed: RuntimeError") for line in lines)


def test_short_answers_and_repeated_ids_lower_the_recall(workload: Workload) -> None:
    (entry,) = bench.run(workload, [fake("Short")], FAST).entries
    assert entry.points[-1].recall == pytest.approx(2 / K)
    assert entry.points[-1].batch_qps is None


@pytest.mark.slow
def test_a_trial_ends_when_its_time_is_over(workload: Workload) -> None:
    many = replace(workload, queries=np.tile(workload.queries, (20, 1)), truth=np.tile(workload.truth, (20, 1)))
    (entry,) = bench.run(many, [fake("Exact", pause=0.002)], replace(FAST, rounds=1, trial_seconds=0.1)).entries
    assert [point.queries for point in entry.points] == [100, 100]
    assert entry.points[-1].recall == 1.0


@pytest.mark.slow
def test_own_indexes_are_measured_from_their_file(workload: Workload) -> None:
    contestants = bench.own_contestants(["int8", "f32"], ["flat", "hnsw:m=8"], DIM, "l2", {"ef": [20, 60]})
    result = bench.run(workload, contestants, FAST)
    assert [entry.contestant for entry in result.entries] == [
        "qvec int8 flat", "qvec int8 hnsw m=8", "qvec f32 flat", "qvec f32 hnsw m=8",
    ]  # fmt: skip
    for entry in result.entries:
        assert entry.points[-1].recall > 0.95
        assert entry.own
        assert entry.parts["codes"] > 0
        assert {"codes", "graph", "vectors"} <= entry.parts.keys()
        assert "file" not in entry.parts
        assert entry.file_bytes
    assert [point.search for point in result.entries[1].points] == [{"ef": 20}, {"ef": 60}]
    assert not result.failed


def test_the_nodes_of_a_packed_graph_count_as_the_index(workload: Workload) -> None:
    contestants = bench.own_contestants(["int8"], ["packed"], DIM, "l2", {"ef": [60]})
    result = bench.run(workload, contestants, replace(FAST, rounds=1))
    (entry,) = result.entries
    assert entry.points[0].recall > 0.95
    assert entry.parts["graph"] > 400 * (5 * DIM + 264)
    size = figures.index_bytes(entry, 400)
    assert size is not None
    assert size * 400 == entry.parts["graph"] + entry.parts["codes"]


@pytest.mark.parametrize(
    ("codes", "indexes", "message"),
    [
        (["int9"], ["flat"], "int9"),
        (["int8"], ["tree"], "index is 'tree'; it is one of flat, hnsw, packed, ivf"),
        (["int8"], ["flat:m=4"], "qvec int8 flat m=4 has no option 'm'"),
        (["int8"], ["hnsw:m=1000"], "HNSW.m must be an integer from 2 to 64"),
        (["int8"], ["hnsw:depth=4"], "has no option 'depth'; it has: code, index, originals"),
        (["int8"], ["hnsw:m=many"], "HNSW.m must be an integer from 2 to 64, got 'many'"),
        (["binary"], ["packed"], "layout='packed' needs codes of at least 4 bits per dimension, not binary"),
        (["int8"], ["hnsw:batch=many"], "batch is 'many'; it is of type int"),
        (["int8"], ["hnsw:batch=-1"], "batch is -1; the least is 0"),
        (["int8"], ["hnsw:memory=disk"], "memory must be one of mmap, index, ram"),
        (["int8"], ["hnsw:m"], "'hnsw:m' is not of the form"),
        (["int8"], ["hnsw:originals=f64"], "originals must be one of f32, f16, none"),
    ],
)
def test_unknown_codes_indexes_and_options_are_refused_before_a_run(codes: list[str], indexes: list[str], message: str):
    with pytest.raises(InputError, match=message):
        bench.own_contestants(codes, indexes, DIM, "l2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"build_threads": 0}, "threads must be an integer from 1 to 1024, got 0"),
        ({"batch_threads": -1}, "batch_threads must be an integer from 1"),
        ({"rounds": 0}, "rounds must be"),
        ({"k": 0}, "k must be"),
        ({"trial_seconds": 0}, "trial_seconds must be"),
        ({"cpus": (0,), "batch_threads": 2}, "1 processors to search on"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(FAST, **changes)


def test_more_neighbors_than_the_ground_truth_has_are_refused(workload: Workload) -> None:
    with pytest.raises(InputError, match="k is 21; the ground truth has 20 neighbors a query"):
        bench.run(workload, [fake("Exact")], replace(FAST, k=21))


def test_a_run_without_contestants_is_refused(workload: Workload) -> None:
    with pytest.raises(InputError, match="no contestant"):
        bench.run(workload, [])


def test_peers_that_are_not_installed_are_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    chosen, skipped = bench.choose_peers(["helpers.fake_peers:Foreign", "helpers.fake_peers:Exact"], "l2")
    assert [peer.name for peer in chosen] == ["Exact"]
    assert skipped == {"Foreign": "no-such-library is not installed"}


def test_names_stand_for_families_of_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert {peer.name for peer in bench.choose_peers(["all"], "l2")[0]} == set(PEERS)
    assert all(peer.name.startswith("faiss-") for peer in bench.choose_peers(["faiss"], "l2")[0])
    (one,) = bench.choose_peers(["hnswlib:M=32", "hnswlib:M=32"], "l2")[0]
    assert (one.name, one.options, one.own) == ("hnswlib M=32", {"M": 32}, False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("annoy", "peer is 'annoy'; it is one of hnswlib, faiss-flat"),
        ("hnswlib:depth=3", "hnswlib has no option 'depth'; it has: M, ef_construction"),
        ("nothing.here:Class", "No module named 'nothing'"),
        ("qvec.common.errors:InputError", "qvec.common.errors:InputError is not an adapter"),
    ],
)
def test_unknown_peers_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bench.choose_peers([name], "l2")


@pytest.mark.parametrize("name", PEERS)
def test_every_adapter_loads_without_its_library(name: str) -> None:
    adapter = adapter_class(locate(name))("cosine", DIM, Path(), {})
    sweep = adapter.sweep(10)
    assert all(values for values in sweep.values())
    assert len(adapter.points(10, {})) == np.prod([len(values) for values in sweep.values()])
    assert adapter.defaults == adapter.options


def test_numeric_options_are_parsed_as_numbers() -> None:
    assert parse("x:a=1,b=0.5,c=f16") == ("x", {"a": 1, "b": 0.5, "c": "f16"})


def test_widths_are_never_below_k() -> None:
    assert widths(10)[0] == 10
    assert min(widths(100)) == 100
    assert max(widths(100)) == 800


def test_ids_of_any_shape_become_rows() -> None:
    np.testing.assert_array_equal(id_rows([1, 2], 3), [[1, 2, -1]])
    np.testing.assert_array_equal(id_rows([[1, 2, 3], [4]], 3), [[1, 2, 3], [4, -1, -1]])
    np.testing.assert_array_equal(id_rows(np.array([[1, 2], [3, 4]], np.uint64), 2), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(id_rows([], 2), [[-1, -1]])


# --- figures ---


def point(recall: float, qps: float, batch: float | None = None) -> Point:
    return Point({"ef": 1}, recall, qps, qps, 1.0, 2.0, 3.0, 10, None if batch is None else recall, batch, batch)


def entry(name: str, own: bool, *points: Point) -> Entry:
    memory = {"rss": 4000, "pss": 3000, "anonymous": 1000, "file": 3000}
    return Entry(name, own, name, "1", {}, 1.5, 100, 200, 150, memory, {}, "avx2", list(points))


def written(*entries: Entry) -> Result:
    dataset = {"dataset": "x", "n": 10, "dim": 4, "metric": "l2"}
    settings = {"k": 10, "build_threads": 2, "batch_threads": 1, "rounds": 3, "started": "2025-01-01T00:00:00Z"}
    return Result(dataset, settings, {"cpu": "c", "cores": 2}, list(entries))


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


RESULT = written(
    entry("qvec </script><b>int8", True, point(0.91234, 654321, 700), point(0.99, 60)),
    entry("hnswlib", False, point(0.9, 100), point(1.0, 5)),
)


def test_the_page_parses_carries_every_point_and_fetches_nothing(tmp_path: Path) -> None:
    other = replace(RESULT, settings={**RESULT.settings, "k": 100})
    write_report([RESULT, other], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.fetched == []
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    runs = json.loads(page.data)
    assert [run["entries"] for run in runs] == [[asdict(each) for each in RESULT.entries]] * 2
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
    with pytest.raises(MissingExtraError, match=r"pip install 'qvec\[plot\]'"):
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
