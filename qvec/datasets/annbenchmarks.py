"""The HDF5 files of https://ann-benchmarks.com."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qvec.common.errors import InputError, MissingExtraError
from qvec.datasets.files import Matrix, PathLike, checked_matrix, existing_file, named_part

Metric = Literal["cosine", "ip", "l2"]
METRICS: dict[str, Metric] = {
    "angular": "cosine",
    "cosine": "cosine",
    "euclidean": "l2",
    "l2": "l2",
    "dot": "ip",
    "ip": "ip",
}


@dataclass(frozen=True)
class Benchmark:
    """Vectors, queries and exact answers of a benchmark.

    ``train`` (n, dim): vectors to store. ``test`` (q, dim): queries. ``neighbors`` (q, k) int64: the exact nearest rows
    of ``train``, nearest first. ``distances`` (q, k): their distances, in the scale of the file, which may differ from
    qvec's.
    """

    train: Matrix
    test: Matrix
    neighbors: Matrix
    distances: Matrix
    metric: Metric


def load_benchmark(path: PathLike) -> Benchmark:
    """Read the whole file into memory.

    Raises NotFoundError, InputError (not HDF5, a missing dataset, an unknown metric) or MissingExtraError (no h5py).
    """
    file = existing_file(path)
    with _opened(file) as h5:
        train, test, neighbors, distances = (
            _read(file, h5, name) for name in ("train", "test", "neighbors", "distances")
        )
        metric = _metric(file, h5)
    return Benchmark(train, test, neighbors.astype(np.int64), distances, metric)


def load_hdf5(file: Path, key: str | None) -> Matrix:
    """Read one dataset of an HDF5 file; ``train`` if ``key`` is None."""
    with _opened(file) as h5:
        return _read(file, h5, key)


def hdf5_metric(path: PathLike) -> Metric | None:
    """Return the metric in the file's attribute ``distance``. None if there is no such attribute."""
    file = existing_file(path)
    with _opened(file) as h5:
        return _metric(file, h5) if "distance" in h5.attrs else None


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(f"{file}: HDF5 needs h5py: pip install h5py") from error
    try:
        h5 = h5py.File(file, "r")
    except OSError as error:
        raise InputError(f"{file} is not a readable HDF5 file: {error}") from error
    with h5:
        yield h5


def _read(file: Path, h5: Any, key: str | None) -> Matrix:
    names: list[str] = []
    h5.visititems(lambda name, member: names.append(name) if hasattr(member, "shape") else None)
    name = named_part(file, "array", "key", names, key, default="train")
    return checked_matrix(np.asarray(h5[name]), f"{file}[{name!r}]")


def _metric(file: Path, h5: Any) -> Metric:
    name = h5.attrs.get("distance")
    name = name.decode() if isinstance(name, bytes) else name
    if name not in METRICS:
        raise InputError(f"{file}: distance is {name!r}; qvec knows {', '.join(METRICS)}")
    return METRICS[name]
