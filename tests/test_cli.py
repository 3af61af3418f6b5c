"""The command line, on files that the tests write."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import qvec
from helpers.command_line import run_command
from qvec.cli import main
from qvec.common import console
from qvec.datasets import exact_knn

N, DIM = 600, 24
X = np.random.default_rng(3).normal(size=(N, DIM)).astype(np.float32)
Run = tuple[int, str, str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(qvec.__file__).parent.parent))  # for child processes
    np.save("x.npy", X)
    np.save("q.npy", X[:4] + 0.01)
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]):
    return partial(run_command, capsys)


def failure(result: Run) -> str:
    """The message of an error: one line on standard error, nothing on standard output, exit code 2."""
    code, out, err = result
    assert (code, out) == (2, "")
    line = err.splitlines()[-1]
    assert line.startswith("qvec: error: ")
    assert not any(other.startswith(("Traceback", "usage", "qvec:")) for other in err.splitlines()[:-1])
    return line


def test_import_then_search_finds_what_exact_search_finds(run) -> None:
    assert run("import", "s.qvec", "x.npy", "--metric", "l2", "--code", "int8", "--index", "hnsw")[0] == 0
    code, out, _ = run("search", "s.qvec", "q.npy", "-k", "5", "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    rows, distances = exact_knn(X, X[:4] + 0.01, 5, "l2")
    assert (code, [answer["query"] for answer in answers]) == (0, [0, 1, 2, 3])
    assert [[hit["id"] for hit in answer["hits"]] for answer in answers] == rows.tolist()
    found = [[hit["distance"] for hit in answer["hits"]] for answer in answers]
    np.testing.assert_allclose(found, distances, rtol=1e-5)


def test_import_prints_the_numbers_of_rows(run) -> None:
    code, out, err = run("import", "s.qvec", "x.npy", "--batch", "200")
    assert code == 0
    assert "600 added, 0 replaced, 0 skipped" in out
    assert "100 % (600 of 600 vectors)" in err


def test_ids_and_payloads_of_files_are_in_search_results(run, folder: Path) -> None:
    (folder / "ids.txt").write_text("".join(f"doc-{row}\n" for row in range(N)))
    (folder / "p.jsonl").write_text("".join(json.dumps({"row": row}) + "\n" for row in range(N)))
    assert run("import", "s.qvec", "x.npy", "--ids", "ids.txt", "--payloads", "p.jsonl", "--batch", "70")[0] == 0
    code, out, _ = run("search", "s.qvec", "q.npy", "--row", "2", "-k", "1", "--json")
    answer = json.loads(out)
    assert (code, answer["query"]) == (0, 2)
    assert (answer["hits"][0]["id"], answer["hits"][0]["payload"]) == ("doc-2", {"row": 2})


def test_a_second_import_adds_to_the_store(run) -> None:
    np.save("more.npy", X + 100)
    run("import", "s.qvec", "x.npy")
    assert run("import", "s.qvec", "more.npy", "--metric", "cosine")[0] == 0
    assert json.loads(run("info", "s.qvec", "--json")[1])["count"] == 2 * N


def test_integer_ids_of_a_text_file_go_into_a_store_of_strings(run, folder: Path) -> None:
    (folder / "ids.txt").write_text("a\n" + "".join(f"{row}\n" for row in range(1, N)))
    (folder / "more.txt").write_text("".join(f"{row}\n" for row in range(N, 2 * N)))
    assert run("import", "s.qvec", "x.npy", "--ids", "ids.txt")[0] == 0
    assert run("import", "s.qvec", "x.npy", "--ids", "more.txt")[0] == 0
    with qvec.open("s.qvec", mode="r") as db:
        assert "700" in db


def test_replacing_takes_the_new_vectors_and_skipping_keeps_them(run, folder: Path) -> None:
    np.save("ids.npy", np.arange(N))
    np.save("new.npy", -X)
    run("import", "s.qvec", "x.npy", "--ids", "ids.npy", "--metric", "l2")
    assert "id" in failure(run("import", "s.qvec", "new.npy", "--ids", "ids.npy"))
    code, out, _ = run("import", "s.qvec", "new.npy", "--ids", "ids.npy", "--on-conflict", "replace")
    assert (code, f"0 added, {N} replaced" in out) == (0, True)
    code, out, _ = run("import", "s.qvec", "x.npy", "--ids", "ids.npy", "--on-conflict", "skip")
    assert (code, f"0 replaced, {N} skipped" in out) == (0, True)
    with qvec.open("s.qvec", mode="r") as db:
        np.testing.assert_array_equal(db.get([5]).vectors, -X[5:6])


def test_an_hdf5_file_brings_its_metric(run, folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "x.hdf5", "w") as h5:
        h5["train"], h5["test"] = X, X[:2]
        h5.attrs["distance"] = "euclidean"
    assert run("import", "s.qvec", "x.hdf5")[0] == 0
    assert json.loads(run("info", "s.qvec", "--json")[1])["metric"] == "l2"
    assert json.loads(run("search", "s.qvec", "x.hdf5", "--key", "test", "--row", "1", "-k", "1", "--json")[1])


def test_searching_by_a_stored_id_finds_its_neighbors(run) -> None:
    run("import", "s.qvec", "x.npy", "--metric", "l2")
    _, out, _ = run("search", "s.qvec", "--id", "42", "-k", "2", "--json")
    answer = json.loads(out)
    rows, _ = exact_knn(X, X[42:43], 3, "l2")
    assert (answer["query"], [hit["id"] for hit in answer["hits"]]) == ("42", rows[0, 1:].tolist())


def test_a_search_finds_groups(run, folder: Path) -> None:
    with qvec.create("s.qvec", DIM, metric="l2", fields={"lang": "keyword"}) as db:
        db.add(X, payloads=[{"lang": ["de", "en"][row % 2]} for row in range(N)])
    code, out, _ = run(
        "search", "s.qvec", "q.npy", "--row", "0", "-k", "2", "--group-by", "lang", "--group-size", "3", "--json"
    )
    hits = json.loads(out)["hits"]
    assert (code, [hit["group"] for hit in hits]) == (0, ["de"] * 3 + ["en"] * 3)
    rows, _ = exact_knn(X[1::2], X[:1] + 0.01, 3, "l2")
    assert [hit["id"] for hit in hits[3:]] == (2 * rows[0] + 1).tolist()


def test_a_search_explains_itself(run) -> None:
    run("import", "s.qvec", "x.npy", "--metric", "l2")
    search = ("search", "s.qvec", "q.npy", "--row", "0", "-k", "3", "--explain")
    _, explanation = run(*search, "--json")[1].splitlines()
    assert json.loads(explanation)["explanation"]["evaluations"] == N
    assert re.search(rf"evaluations +{N}\b", run(*search)[1])


def test_a_search_can_be_paged_bounded_and_spread(run) -> None:
    run("import", "s.qvec", "x.npy", "--metric", "l2")
    rows, distances = exact_knn(X, X[:1] + 0.01, 9, "l2")
    search = ("search", "s.qvec", "q.npy", "--row", "0", "-k", "3", "--json")
    for options, expected in [
        (["--offset", "4"], rows[0, 4:7]),
        (["--max-distance", f"{distances[0, 1] + 1e-3}"], rows[0, :2]),
        (["--mmr", "1"], rows[0, :3]),
    ]:
        code, out, _ = run(*search, *options)
        assert (code, [hit["id"] for hit in json.loads(out)["hits"]]) == (0, expected.tolist())
    assert "--max-distance must be" in failure(run(*search, "--max-distance", "nan"))


@pytest.mark.parametrize(
    "option", [["--exact"], ["--oversample", "0"], ["--oversample", "4"], ["--ef", "200"], ["--threads", "1"]]
)
def test_the_options_of_a_search_have_an_effect(run, option: list[str]) -> None:
    run("import", "s.qvec", "x.npy", "--metric", "l2")
    code, out, _ = run("search", "s.qvec", "q.npy", "--row", "3", "-k", "1", "--json", *option)
    assert (code, json.loads(out)["hits"][0]["id"]) == (0, 3)


def test_without_reranking_the_distances_are_those_of_the_codes(run) -> None:
    run("import", "s.qvec", "x.npy", "--metric", "l2", "--code", "int8")
    search = ("search", "s.qvec", "q.npy", "--row", "0", "-k", "2", "--json")
    exact, coded = (json.loads(run(*search, *more)[1])["hits"][1]["distance"] for more in ([], ["--oversample", "0"]))
    assert exact == pytest.approx(exact_knn(X, X[:1] + 0.01, 2, "l2")[1][0, 1], rel=1e-5)
    assert coded != pytest.approx(exact, rel=1e-5)
    assert coded == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("rich", [True, False])
def test_a_table_of_hits_shows_rank_id_and_payload(
    run, folder: Path, monkeypatch: pytest.MonkeyPatch, rich: bool
) -> None:
    if not rich:
        monkeypatch.setitem(sys.modules, "rich", None)
    (folder / "p.jsonl").write_text("".join(json.dumps({"row": row, "text": "[b] " * 40}) + "\n" for row in range(N)))
    run("import", "s.qvec", "x.npy", "--payloads", "p.jsonl")
    _, out, _ = run("search", "s.qvec", "q.npy", "--row", "1", "-k", "3")
    assert "query 1" in out
    (line,) = (line for line in out.splitlines() if line.split()[:2] == ["1", "1"])
    assert '{"row": 1, "text": "[b] [b]' in line
    assert "…" in line
    assert max(map(len, out.splitlines())) <= console.WIDTH


def test_info_shows_sizes_a_person_can_read(run) -> None:
    run("import", "s.qvec", "x.npy", "--metric", "ip")
    code, out, _ = run("info", "s.qvec")
    fields = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
    assert code == 0
    assert (fields["metric"], fields["count"]) == (["ip"], ["600"])
    assert fields["file"][1] in ("KiB", "MiB")
    assert fields["codes"][-1].replace(",", "").isdigit()  # bytes a vector


def test_verify_reports_a_sound_store(run) -> None:
    run("import", "s.qvec", "x.npy")
    assert run("verify", "s.qvec") == (0, "s.qvec: no damage\n", "")
    assert run("verify", "s.qvec", "--json")[:2] == (0, '{"store": "s.qvec", "problems": [], "advice": []}\n')


def test_verify_lists_the_problems_of_a_damaged_store(run, folder: Path) -> None:
    run("import", "s.qvec", "x.npy", "--metric", "l2")
    file = folder / "s.qvec"
    data = bytearray(file.read_bytes())
    data[data.index(X[300].tobytes())] ^= 1  # one bit of a stored vector
    file.write_bytes(data)
    code, out, _ = run("verify", "s.qvec", "--json")
    assert code == 1
    assert json.loads(out)["problems"]
    assert run("verify", "s.qvec")[0] == 1


def test_verify_of_a_truncated_store_is_a_finding(run, folder: Path) -> None:
    run("import", "s.qvec", "x.npy")
    file = folder / "s.qvec"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    code, out, _ = run("verify", "s.qvec")
    assert (code, out.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "none.qvec"), "none.qvec"),
        (("import", "s.qvec", "none.npy"), "none.npy: no such file"),
        (("import", "s.qvec", "x.npy", "--dim", "25"), "dimension 24; --dim says 25"),
        (("import", "s.qvec", "x.npy", "--dim", "none"), "--dim: 'none' is not an integer from 1 to 65536"),
        (("import", "s.qvec", "x.npy", "--batch", "0"), "--batch: '0' is not an integer from 1 to"),
        (("import", "s.qvec", "x.npy", "--metric", "taxi"), "--metric must be one of cosine, ip, l2; got 'taxi'"),
        (("import", "s.qvec", "x.npy", "--ids", "q.npy"), "ids are 1-D"),
        (("search", "x.npy", "q.npy"), "x.npy"),
        (("search", "s.qvec"), "s.qvec"),
        (("verify", "none.qvec"), "none.qvec"),
        (("teleport",), "no verb 'teleport'"),
        ((), "VERB"),
    ],
)
def test_an_error_is_one_line_that_names_the_bad_value(run, arguments: tuple[str, ...], message: str) -> None:
    assert message in failure(run(*arguments))
    assert not Path("s.qvec").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "s.qvec"), "either a file of QUERIES, --text or both, or --id"),
        (("search", "s.qvec", "q.npy", "--id", "1"), "either a file of QUERIES, --text or both, or --id"),
        (("search", "s.qvec", "--id", "1", "--row", "1"), "--row picks a row of QUERIES"),
        (("search", "s.qvec", "--id", "x"), "the id 'x' is not an integer"),
        (("search", "s.qvec", "--id", "9999"), "9999"),
        (("search", "s.qvec", "q.npy", "--row", "4"), "rows 0 to 3; --row is 4"),
        (("search", "s.qvec", "q.npy", "-k", "0"), "k"),
        (
            ("import", "s.qvec", "x.npy", "--metric", "l2"),
            "s.qvec has metric cosine; --metric l2 is for a new store",
        ),
        (("import", "s.qvec", "x.npy", "--code", "f32"), "s.qvec has code int8"),
    ],
)
def test_an_error_on_a_store_leaves_it_as_it_was(run, arguments: tuple[str, ...], message: str) -> None:
    run("import", "s.qvec", "x.npy", "--code", "int8")
    assert message in failure(run(*arguments))
    assert json.loads(run("info", "s.qvec", "--json")[1])["count"] == N


def test_rows_that_do_not_match_their_ids_or_payloads_are_refused_before_anything_is_written(run, folder: Path) -> None:
    (folder / "ids.txt").write_text("1\n2\n")
    (folder / "p.jsonl").write_text("{}\n")
    assert "ids.txt has 2 rows, x.npy has 600" in failure(run("import", "s.qvec", "x.npy", "--ids", "ids.txt"))
    assert "p.jsonl has 1 rows, x.npy has 600" in failure(run("import", "s.qvec", "x.npy", "--payloads", "p.jsonl"))
    assert not (folder / "s.qvec").exists()


@pytest.mark.parametrize(("batch", "stored"), [("600", 0), ("100", 200)])
def test_a_bad_row_stops_an_import_and_the_stored_rows_are_reported(run, folder: Path, batch: str, stored: int) -> None:
    bad = X.copy()
    bad[234, 5] = np.nan
    np.save("bad.npy", bad)
    run("import", "s.qvec", "x.npy") if stored else None
    message = failure(run("import", "s.qvec", "bad.npy", "--batch", batch))
    assert f"batch that begins at row {stored}" in message
    assert f"({stored} rows before it are done)" in message
    if stored:
        assert json.loads(run("info", "s.qvec", "--json")[1])["count"] == N + stored
    else:
        assert not [path.name for path in folder.iterdir() if path.name.startswith("s.qvec")]


def test_debug_shows_the_traceback(run) -> None:
    with pytest.raises(qvec.NotFoundError):
        main(("info", "none.qvec", "--debug"))


def test_an_interrupt_is_one_line_and_code_130(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(qvec, "open", interrupted)
    assert run("info", "s.qvec") == (130, "", "qvec: interrupted\n")


def test_help_of_each_verb_is_reached_from_the_program_itself(run) -> None:
    command = [sys.executable, "-m", "qvec", "search", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout.startswith("usage: qvec search"), done.stderr) == (True, "")
    for arguments in ([], ["demo"], ["import"], ["info"], ["search"], ["verify"]):
        code, out, err = run(*arguments, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(" ".join(["usage: qvec", *arguments]))


def test_a_closed_pipe_is_not_an_error(run) -> None:
    run("import", "s.qvec", "x.npy")
    command = f"{sys.executable} -m qvec search s.qvec x.npy -k 50 --json | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["query"] == 0
    assert done.stderr == ""


def test_maintenance_from_the_command_line(run, folder: Path) -> None:
    options = ("--metric", "l2", "--index", "hnsw", "--payloads", "p.jsonl", "--field", "kind=keyword")
    (folder / "p.jsonl").write_text("".join(f'{{"kind": "k{i % 3}"}}\n' for i in range(N)))
    assert run("import", "s.qvec", "x.npy", *options)[0] == 0
    assert run("delete", "s.qvec", "1", "2", "9999")[1] == "2 deleted\n"
    assert run("delete", "s.qvec", "--where", '{"kind": "k0"}')[1] == "200 deleted\n"
    assert "1" in failure(run("delete", "s.qvec", "1", "--missing", "error"))
    assert "not an integer" in failure(run("delete", "s.qvec", "x"))
    assert "give ids" in failure(run("delete", "s.qvec"))
    assert json.loads(run("info", "s.qvec", "--json")[1])["deleted"] > 0
    size = (folder / "s.qvec").stat().st_size
    code, out, _ = run("optimize", "s.qvec", "--compact")
    assert code == 0
    assert "unused rows were released" in out
    assert (folder / "s.qvec").stat().st_size < size
    stats = json.loads(run("info", "s.qvec", "--graph", "--json")[1])
    assert (stats["deleted"], stats["reachable"]) == (0, stats["count"])
    assert 1 < stats["degree"] <= 32
    parts = sum(n for name, n in stats.items() if name.endswith("_bytes") and name != "file_bytes")
    assert parts == stats["file_bytes"]
    assert run("erase", "s.qvec", "4", "5")[1].startswith("2 deleted")
    assert "bytes were released" in run("compact", "s.qvec")[1]
    assert run("backup", "s.qvec", "copy.qvec")[0] == 0
    with qvec.open("s.qvec", "r") as db, qvec.open("copy.qvec", "r") as copy:
        assert len(db) == len(copy) == stats["count"] - 2
        assert copy.verify() == []
    text = run("info", "s.qvec", "--graph")[1]
    for part in ("codes", "graph", "free", "reachable", "snapshots"):
        assert part in text
