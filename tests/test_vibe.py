"""The module for VIBE, on a file in its format and under the loop that it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import annbenchmarks_stub as stub
from helpers.recall import recall
from helpers.vectors import clustered
from qvec.datasets import exact_knn

FOLDER = Path(__file__).parents[1] / "benchmarks" / "vibe"
ALL = clustered(np.random.default_rng(4), 620, 24)
X, Q = ALL[:600], ALL[600:]
COUNT = 10

if not FOLDER.exists():
    pytest.skip("benchmarks are not next to the tests", allow_module_level=True)
yaml = pytest.importorskip("yaml")
h5py = pytest.importorskip("h5py")


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path) -> Iterator[None]:
    stub.install(tmp_path, FOLDER, "vibe")
    yield
    stub.uninstall(tmp_path)


def written(file: Path, distance: str, base: Any, queries: Any) -> Path:
    """A data set as VIBE writes it."""
    with h5py.File(file, "w") as out:
        out["train"], out["test"] = base, queries
        out["neighbors"] = np.zeros((len(queries), 100), np.int32)
        out.attrs.update({"distance": distance, "dimension": base.shape[1], "point_type": "float"})
    return file


@pytest.mark.parametrize(("distance", "own"), [("normalized", "cosine"), ("euclidean", "l2")])
def test_each_algorithm_of_the_configuration_searches_a_file_of_vibe(distance: Any, own: Any, tmp_path: Path) -> None:
    base, queries = X, Q
    if distance == "normalized":
        base, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (X, Q))
    file = written(tmp_path / "data.hdf5", distance, base, queries)
    truth = exact_knn(base, queries, COUNT, own)[0]
    variants = stub.definitions(yaml.safe_load((FOLDER / "config.yml").read_text()), distance)
    names = {variant[0]["name"]: variant for variant in variants}
    assert sorted(names) == ["qvec-int4-ivf", "qvec-int8-hnsw", "qvec-int8-packed"]
    assert {variant[0]["singularity_image"] for variant in variants} == {"qvec"}
    for algorithm, arguments, searches in names.values():
        first, last = stub.run_hdf5((algorithm, arguments, [searches[0], searches[-1]]), file, COUNT)
        assert recall(last["ids"], truth) > 0.99
        assert recall(first["ids"], truth) <= recall(last["ids"], truth)
        assert first["algo"] != last["algo"]
        assert last["used"] * 1024 > last["file_bytes"] > 0


def test_a_distance_that_qvec_does_not_have_is_refused() -> None:
    algorithm = {"module": "vibe.algorithms.qvec", "constructor": "Qvec"}
    with pytest.raises(NotImplementedError, match="'hamming'; it has cosine, normalized, euclidean, ip"):
        stub.instantiate((algorithm, ["hamming", {}], []))


def test_the_image_begins_from_the_image_of_vibe() -> None:
    lines = (FOLDER / "image.def").read_text().splitlines()
    assert lines[:2] == ["Bootstrap: localimage", "From: base.sif"]
    assert any(line.strip().startswith("pip install") for line in lines)
