"""Workloads of benchmarks: vectors, queries and exact neighbors, from common layouts of files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike

from qvec.common.errors import InputError, NotFoundError
from qvec.common.types import Float32Array, check_number
from qvec.datasets import bigann
from qvec.datasets.annbenchmarks import Metric, load_benchmark
from qvec.datasets.files import Matrix, PathLike
from qvec.datasets.ground_truth import Int64, Progress, exact_knn
from qvec.datasets.vectors import HDF5_SUFFIXES, SUFFIXES, load_vectors
from qvec.quality.recall import recall_of_rows

DEPTH = 100  # neighbors per query that are computed if the workload has none
SPOT_CHECKS = 8  # queries whose given neighbors are verified
BLOCK_ROWS = 8192
NAMES = {
    "base": ("base",),
    "queries": ("queries", "query"),
    "truth": ("gt", "groundtruth", "neighbors"),
}


@dataclass(frozen=True)
class Workload:
    """``base`` (n, dim): of any real dtype, may be a map of a file. ``queries``: float32 (q, dim).

    ``truth``: int64 (q, at least k), the exact nearest rows of ``base``, nearest first.
    """

    name: str
    metric: Metric
    base: Matrix
    queries: Float32Array
    truth: Int64

    def blocks(self) -> Iterator[Float32Array]:
        """Yield the base as float32, several thousand rows at a time; normalized under cosine."""
        for start in range(0, len(self.base), BLOCK_ROWS):
            yield scaled(self.base[start : start + BLOCK_ROWS], self.metric)

    def recall(self, rows: ArrayLike, k: int) -> float:
        """Return the mean recall@k of the first queries, given the rows of the base found for each: int [q, k or more].

        Ties count; a row that is repeated counts once; negative rows stand for no hit.
        """
        found = np.asarray(rows, np.int64)[:, :k]
        n = len(found)
        recalls = recall_of_rows(found, self.truth[:n, :k], self.queries[:n], self.base, self.metric)
        return float(recalls.mean())


def scaled(x: Matrix, metric: Metric) -> Float32Array:
    """Convert to float32 rows, C-contiguous; normalize under cosine."""
    rows = np.ascontiguousarray(x, np.float32)
    if metric != "cosine":
        return rows
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return np.asarray(rows / norms[:, None], np.float32)


def with_noise(workload: Workload, size: float, *, seed: int = 0, progress: Progress | None = None) -> Workload:
    """Return the workload with queries unlike its vectors: each gets Gaussian noise of ``size`` times its length.

    The exact neighbors are computed again. ``progress(done, total)`` is called with rows of the base. InputError: the
    size is not from 0 to 1,000.
    """
    check_number("noise", size, 0.0, 1000.0)
    queries = workload.queries
    noise = np.random.default_rng(seed).standard_normal(queries.shape).astype(np.float32)
    scale = np.linalg.norm(queries, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    noisy = np.ascontiguousarray(queries + np.float32(size) * scale * noise, np.float32)
    truth = exact_knn(workload.base, noisy, workload.truth.shape[1], workload.metric, progress=progress)[0]
    return replace(workload, name=f"{workload.name}, noise {size:g}", queries=noisy, truth=truth)


def load_workload(
    path: PathLike,
    k: int = 10,
    *,
    queries: PathLike | None = None,
    truth: PathLike | None = None,
    metric: Metric | None = None,
    rows: int | None = None,
    max_queries: int | None = None,
    progress: Progress | bool | None = None,
) -> Workload:
    """Load vectors, queries and at least ``k`` exact neighbors per query.

    ``path``: an ``.hdf5`` file of ann-benchmarks; a file of vectors, with ``queries`` as another file; or a folder with
    ``base.*``, ``queries.*``, optionally ``gt.*`` and ``meta.json`` (its ``metric``), in any format of
    :func:`load_vectors`. Names of texmex, such as ``sift_base.fvecs``, ``sift_query.fvecs`` and
    ``sift_groundtruth.ivecs``, are recognized. ``queries``, ``truth`` and ``metric`` override those of ``path``.
    ``rows`` and ``max_queries``: use only the first ones. Neighbors are computed if they are not given, or if they are
    for other rows; ``progress(done, total)`` is called with rows of the base; True: show a bar.

    Raises NotFoundError; InputError if something is missing or unreadable, or the given neighbors are not those of the
    vectors: shape and range are checked, and for some queries the neighbors.
    """
    found = _Parts(Path(path))
    base = found.base()
    asked = load_vectors(queries) if queries is not None else found.queries()
    chosen = metric if metric is not None else found.metric()
    if chosen not in get_args(Metric):
        raise InputError(f"{path}: metric is {chosen!r}; name one of {', '.join(get_args(Metric))}")
    if base.shape[1] != asked.shape[1]:
        raise InputError(f"{path}: queries have dimension {asked.shape[1]}, the base has {base.shape[1]}")
    for name, count in (("rows", rows), ("max_queries", max_queries)):
        if count is not None and count < 1:
            raise InputError(f"{name} is {count}; the least is 1")
    if not 1 <= k <= min(len(base), rows or len(base)):
        raise InputError(f"k is {k}; the limit is 1 to the {min(len(base), rows or len(base)):,} rows of the base")
    answers = load_truth(truth) if truth is not None else found.truth()
    if answers is not None:
        check_truth(answers, len(base), len(asked), k, f"ground truth of {path}")
        answers = np.asarray(answers[:max_queries], np.int64)
    asked = np.ascontiguousarray(asked[:max_queries], np.float32)
    if rows is not None and rows < len(base):
        base, answers = base[:rows], None
    if answers is None:
        answers = exact_knn(base, asked, min(max(k, DEPTH), len(base)), chosen, progress=progress)[0]
    else:
        _spot_check(base, asked, answers[:, :k], chosen, str(path))
    return Workload(found.name, chosen, base, asked, answers)


def load_truth(path: PathLike) -> Matrix:
    """Load exact neighbors: any file of vectors, or an ``.ibin`` or ``.bin`` of big-ann with distances."""
    file = Path(path)
    return bigann.load_neighbors(file) if file.suffix in bigann.TRUTH_SUFFIXES else load_vectors(file)


def check_truth(truth: Matrix, n: int, queries: int, k: int, where: str) -> None:
    """Raise InputError unless ``truth`` has at least ``k`` rows of the base for each query."""
    if truth.ndim != 2 or truth.dtype.kind not in "iu":
        raise InputError(f"{where} has shape {truth.shape} and dtype {truth.dtype}, not integers, a row a query")
    if len(truth) != queries:
        raise InputError(f"{where}: {len(truth)} rows for {queries} queries")
    if truth.shape[1] < k:
        raise InputError(f"{where}: {truth.shape[1]} neighbors a query; k is {k}")
    used = truth[:, :k]
    outside = np.flatnonzero((used < 0).any(axis=1) | (used >= n).any(axis=1))
    if outside.size:
        raise InputError(f"{where}: query {outside[0]} has a neighbor outside the {n:,} rows of the base")


def _spot_check(base: Matrix, queries: Float32Array, truth: Int64, metric: Metric, where: str) -> None:
    """Raise InputError if given neighbors are farther than the k-th nearest, by the distances of the vectors."""
    some = np.unique(np.linspace(0, len(queries) - 1, SPOT_CHECKS).astype(int))
    k = truth.shape[1]
    nearest = exact_knn(base, queries[some], k, metric)[1]
    for query, exact in zip(some.tolist(), nearest, strict=True):
        given = exact_knn(base[np.unique(truth[query])], queries[query : query + 1], k, metric)[1][0]
        slack = 1e-3 * max(abs(float(exact[-1])), float(np.ptp(exact)), 1e-6)
        right = int((given <= exact[-1] + slack).sum())
        if right < 0.9 * k:
            raise InputError(
                f"{where}: the ground truth is of other vectors or another metric: of query {query}, {right} of {k} "
                f"given neighbors are among the {k} nearest"
            )


class _Parts:
    """Finds the files of a workload's parts."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise NotFoundError(f"{path}: no such file or folder")
        self.path, self.name = path, path.name if path.is_dir() else path.stem
        self._hdf5 = load_benchmark(path) if path.suffix in HDF5_SUFFIXES else None

    def base(self) -> Matrix:
        if self._hdf5 is not None:
            return self._hdf5.train
        return load_vectors(self._needed("base") if self.path.is_dir() else self.path)

    def queries(self) -> Matrix:
        if self._hdf5 is not None:
            return self._hdf5.test
        if not self.path.is_dir():
            raise InputError(f"{self.path} holds vectors only: name a file of queries too")
        return load_vectors(self._needed("queries"))

    def truth(self) -> Matrix | None:
        if self._hdf5 is not None:
            return self._hdf5.neighbors
        file = self._file("truth") if self.path.is_dir() else None
        return None if file is None else load_truth(file)

    def metric(self) -> Metric:
        if self._hdf5 is not None:
            return self._hdf5.metric
        meta = self.path / "meta.json"
        if not meta.is_file():
            raise InputError(f"{self.path} does not have a metric: name one of {', '.join(get_args(Metric))}")
        try:
            metric: Metric = json.loads(meta.read_text())["metric"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{meta} is not a JSON object with a metric: {error!r}") from error
        return metric

    def _needed(self, part: str) -> Path:
        file = self._file(part)
        if file is None:
            raise InputError(f"{self.path} holds no {part}.*, of {' '.join(SUFFIXES)}")
        return file

    def _file(self, part: str) -> Path | None:
        """Return the folder's file of a part, or None."""
        suffixes = (*SUFFIXES, *bigann.TRUTH_SUFFIXES) if part == "truth" else SUFFIXES
        fitting = [
            file
            for file in sorted(self.path.iterdir())
            if file.suffix in suffixes and file.stem.rpartition("_")[2] in NAMES[part]
        ]
        if len(fitting) > 1:
            raise InputError(f"{self.path} holds {len(fitting)} files that may be the {part}: {fitting[0].name}, ...")
        return fitting[0] if fitting else None
