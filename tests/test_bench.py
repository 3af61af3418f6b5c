"""The benchmark: its processes and their order with fake libraries, and its figures against expected ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.vectors import clustered
from qvec import bench
from qvec.bench import figures
from qvec.bench.adapters.base import id_rows, widths
from qvec.bench.contestants import PEERS, Contestant, adapter_class, locate, parse
from qvec.common.errors import InputError
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
    contestants, skipped = bench.own_contestants(["int8", "f32"], ["flat", "hnsw:m=8"], DIM, "l2", {"ef": [20, 60]})
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
    assert not skipped


def test_a_code_that_does_not_fit_an_index_is_skipped_with_the_reason() -> None:
    contestants, skipped = bench.own_contestants(["int8", "binary"], ["packed", "flat"], DIM, "l2")
    assert [each.name for each in contestants] == ["qvec int8 packed", "qvec int8 flat", "qvec binary flat"]
    assert skipped.keys() == {"qvec binary packed"}
    assert "index='packed' needs codes of at least 4 bits per dimension" in skipped["qvec binary packed"]


def test_the_nodes_of_a_packed_graph_count_as_the_index(workload: Workload) -> None:
    contestants, _ = bench.own_contestants(["int8"], ["packed"], DIM, "l2", {"ef": [60]})
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
        (["int8"], ["hnsw:batch=many"], "batch is 'many'; it is of type int"),
        (["int8"], ["hnsw:batch=-1"], "batch is -1; the least is 0"),
        (["int8"], ["hnsw:memory=disk"], "memory must be one of mmap, index, ram"),
        (["int8"], ["hnsw:m"], "'hnsw:m' is not of the form"),
        (["int8"], ["hnsw:originals=f64"], "originals must be one of f32, f16, int8, uint8, none"),
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


def test_progress_true_shows_a_bar_and_other_values_are_refused_first(workload: Workload, capsys) -> None:
    with pytest.raises(InputError, match="progress must be"):
        bench.run(workload, [fake("Exact")], FAST, progress=3)
    bench.run(workload, [fake("Exact")], replace(FAST, rounds=1), progress=True)
    assert "measuring" in capsys.readouterr().err


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
    np.testing.assert_array_equal(id_rows(np.array([[1, 2**32 - 1]], np.uint32), 2), [[1, -1]])  # of rabitqlib
    np.testing.assert_array_equal(id_rows([], 2), [[-1, -1]])
