"""The programs for fanns-benchmark, on small files in its formats, against filtered brute force."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.vectors import clustered

FOLDER = Path(__file__).parents[1] / "benchmarks" / "fanns"
if not FOLDER.exists():
    pytest.skip("benchmarks are not next to the tests", allow_module_level=True)

N, QUERIES, DIM, K = 500, 20, 16, 10
RNG = np.random.default_rng(6)
ALL = clustered(RNG, N + QUERIES, DIM)
X, Q = ALL[:N], ALL[N:]
CATEGORIES = ("cs", "math", "physics")
ROWS = [
    {
        "number_of_sub_categories": int(RNG.integers(1, 4)),
        "update_date": int(RNG.integers(13_655, 20_217)),
        "main_categories": [name for name in CATEGORIES if RNG.random() < 0.4],
    }
    for _ in range(N)
]
LABELS = [1 + i % 3 for i in range(QUERIES)]
RANGES = [(14_000 + 100 * i, 17_000 + 50 * i) for i in range(QUERIES)]
NAMES = [CATEGORIES[i % 3] for i in range(QUERIES)]
NAMES[3] = "astro"  # no row has it: no neighbors


def matching(kind: str, query: int) -> list[int]:
    low, high = RANGES[query]
    tests: dict[str, Any] = {
        "EM": lambda row: row["number_of_sub_categories"] == LABELS[query],
        "R": lambda row: low <= row["update_date"] <= high,
        "EMIS": lambda row: NAMES[query] in row["main_categories"],
    }
    return [number for number, row in enumerate(ROWS) if tests[kind](row)]


def truth(kind: str) -> list[list[int]]:
    found = []
    for number, query in enumerate(Q):
        rows = np.array(matching(kind, number), np.int64)
        distances = ((X[rows].astype(np.float64) - query) ** 2).sum(axis=1)
        found.append([int(row) for row in rows[np.argsort(distances, kind="stable")]][:50])
    return found


def write_vectors(file: Path, rows: Sequence[Any], dtype: str) -> Path:
    """Rows of any lengths: each is its length and its values."""
    with file.open("wb") as out:
        for row in rows:
            out.write(np.int32(len(row)).tobytes() + np.asarray(row, dtype).tobytes())
    return file


def write_lines(file: Path, lines: Sequence[object]) -> Path:
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def as_json(folder: Path, kind: str) -> tuple[Path, Path]:
    rows = write_lines(folder / "database_attributes.jsonl", [json.dumps(row) for row in ROWS])
    labels: list[dict[str, Any]] = [{"label": label} for label in (LABELS if kind == "EM" else NAMES)]
    if kind == "R":
        labels = [{"range_start": low, "range_end": high} for low, high in RANGES]
    return rows, write_lines(folder / "query_attributes.jsonl", [json.dumps(label) for label in labels])


def as_text(folder: Path, kind: str) -> tuple[Path, Path]:
    names = [*CATEGORIES, "astro"]
    rows: dict[str, list[object]] = {
        "EM": [row["number_of_sub_categories"] for row in ROWS],
        "R": [row["update_date"] for row in ROWS],
        "EMIS": [",".join(str(names.index(name)) for name in row["main_categories"]) for row in ROWS],
    }
    queries: dict[str, list[object]] = {
        "EM": [*LABELS],
        "R": [f"{low}-{high}" for low, high in RANGES],
        "EMIS": [names.index(name) for name in NAMES],
    }
    return write_lines(folder / "rows.csv", rows[kind]), write_lines(folder / "queries.csv", queries[kind])


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def value(name: str, done: subprocess.CompletedProcess[str]) -> float:
    assert done.returncode == 0, done.stderr
    found = re.search(rf"^{re.escape(name)}:\s*([\d.]+)", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    return float(found[1])


@pytest.mark.parametrize(
    ("kind", "written", "index"),
    [("EM", as_json, "hnsw"), ("R", as_text, "packed"), ("EMIS", as_json, "packed"), ("EMIS", as_text, "hnsw")],
)
def test_filtered_queries_on_files_of_the_project_find_the_neighbors_of_brute_force(
    kind: str, written: Any, index: str, tmp_path: Path
) -> None:
    rows, conditions = written(tmp_path, kind)
    base = write_vectors(tmp_path / "database_vectors.fvecs", X, "<f4")
    queries = write_vectors(tmp_path / "query_vectors.fvecs", Q, "<f4")
    right = truth(kind)
    exact = write_vectors(tmp_path / "ground_truth.ivecs", right, "<i4")
    made = run("construct.py", base, rows, tmp_path / "index.qvec", kind, "--index", index, "--m", 16)
    assert value("Index construction time", made) > 0
    assert value("Maximum number of threads", made) >= 1
    done = run("search.py", queries, conditions, exact, tmp_path / "index.qvec", kind, K, 200)
    assert value("Recall", done) > 0.99
    assert value("Queries per second", done) > 0
    assert value("VmPeak", done) > value("VmHWM", done) > 1000
    wrong = [[(row + 1) % N for row in each] for each in right]  # rows that match only by chance
    missed = write_vectors(tmp_path / "wrong.ivecs", wrong, "<i4")
    assert value("Recall", run("search.py", queries, conditions, missed, tmp_path / "index.qvec", kind, K, 200)) < 0.5


@pytest.mark.parametrize(
    ("changed", "content", "message"),
    [
        ("queries.csv", b"5\n", r"line 1 is '5': .*low-high"),
        ("rows.csv", b"7\nx\n", r"line 2 is 'x'"),
        ("truth.ivecs", np.array([3, 1], "<i4").tobytes(), r"ends inside row 0: 3 ids, 1 words left"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(changed: str, content: bytes, message: str, tmp_path: Path) -> None:
    sys.path.insert(0, str(FOLDER))
    try:
        import formats
    finally:
        sys.path.remove(str(FOLDER))
    file = tmp_path / changed
    file.write_bytes(content)
    readers = {"queries.csv": formats.conditions, "rows.csv": formats.attributes}
    reader = readers.get(changed, lambda file, _: formats.neighbors(file, 10))
    with pytest.raises(ValueError, match=message):
        reader(file, "R")
