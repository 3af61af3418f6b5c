"""The wrapper for ann-benchmarks, under the loop that ann-benchmarks runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import annbenchmarks_stub as stub
from helpers.recall import recall
from helpers.vectors import clustered
from qvec.common.errors import InputError
from qvec.datasets import exact_knn

FOLDER = Path(__file__).parents[1] / "benchmarks" / "annbenchmarks"
ALL = clustered(np.random.default_rng(2), 820, 24)
X, Q = ALL[:800], ALL[800:]
COUNT = 10

if not FOLDER.exists():
    pytest.skip("benchmarks are not next to the tests", allow_module_level=True)
yaml = pytest.importorskip("yaml")


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path) -> Iterator[None]:
    stub.install(tmp_path, FOLDER)
    yield
    stub.uninstall(tmp_path)


def variants(metric: str) -> list[Any]:
    return stub.definitions(yaml.safe_load((FOLDER / "config.yml").read_text()), metric)


def recall_against_exact(ids: list[list[int]], metric: Any) -> float:
    return recall(ids, exact_knn(X, Q, COUNT, metric)[0])


@pytest.mark.parametrize(("metric", "own"), [("angular", "cosine"), ("euclidean", "l2")])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.slow
def test_every_variant_of_the_configuration_runs(metric: str, own: str, batch: bool) -> None:
    seen = set()
    for algorithm, arguments, searches in variants(metric):
        results = stub.run((algorithm, arguments, [searches[0], searches[-1]]), X, Q, COUNT, batch)
        first, last = results
        assert recall_against_exact(last["ids"], own) > 0.99
        assert recall_against_exact(first["ids"], own) <= recall_against_exact(last["ids"], own)
        assert all(len(row) == COUNT for row in last["ids"])
        assert last["used"] * 1024 > last["file_bytes"]
        assert isinstance(last["index_size"], float)
        assert last["codes_bytes"] > 0
        assert first["algo"] != last["algo"]
        seen.add((algorithm["name"], arguments[1]["code"], arguments[1].get("m")))
    assert len(seen) == 8


def test_a_metric_or_an_option_that_qvec_does_not_have_is_refused() -> None:
    algorithm = {"module": "ann_benchmarks.algorithms.qvec", "constructor": "Qvec"}
    with pytest.raises(NotImplementedError, match="qvec has no metric 'jaccard'; it has angular, euclidean, ip"):
        stub.run((algorithm, ["jaccard", {}], [(10,)]), X, Q, COUNT, False)
    with pytest.raises(InputError, match=r"HNSW\.m must be"):
        stub.run((algorithm, ["euclidean", {"index": "hnsw", "m": 999}], [(10,)]), X, Q, COUNT, False)


def test_the_docker_file_begins_from_the_image_of_ann_benchmarks() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    assert lines[0] == "FROM ann-benchmarks"
    assert any(line.startswith("RUN pip install") for line in lines)
