"""A set of any size with the character of a real one: mixtures of its rows, made block by block."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import Float32Array
from qvec.datasets.annbenchmarks import Metric
from qvec.datasets.files import Matrix, PathLike
from qvec.datasets.ground_truth import Progress, exact_knn
from qvec.datasets.workload import DEPTH, Workload, load_workload, scaled

WEIGHTS = (0.7, 0.3)
NOISE = 0.25  # length of the noise, of the length of the mixture
BLOCK = 8192  # rows at a time; a block depends on its number and the seed, not on how many there are
QUERIES = 1000


def mixtures(rows: Matrix, n: int, metric: Metric, seed: int) -> Iterator[Float32Array]:
    """``n`` new rows, in blocks float32 (at most 8192, dim).

    A row is 0.7 of one random row of ``rows`` and 0.3 of another, and Gaussian noise of a quarter of their length;
    under cosine it is scaled to length 1. The first rows are the same whatever ``n`` is.
    """
    for block, start in enumerate(range(0, n, BLOCK)):
        rng = np.random.default_rng((seed, block))
        first, second = rng.integers(0, len(rows), (2, BLOCK))
        noise = rng.standard_normal((BLOCK, rows.shape[1]), np.float32)
        mixed = WEIGHTS[0] * rows[first].astype(np.float32) + WEIGHTS[1] * rows[second].astype(np.float32)
        lengths = np.linalg.norm(mixed, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
        mixed += np.float32(NOISE) * lengths * noise
        yield scaled(mixed[: n - start], metric)


def grow(
    source: Workload,
    n: int,
    folder: PathLike,
    *,
    queries: int = QUERIES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Workload:
    """A set of ``n`` mixtures of the source's base and ``queries`` of its queries, with exact neighbors.

    It is written to ``folder`` (base.npy, queries.npy, gt.npy, meta.json) with some megabytes of memory, and loaded
    from there, mapped, when it is there already. ``progress(done, total)``: rows searched for neighbors.

    Raises InputError, also where the folder holds another set.
    """
    if n < 1 or queries < 1:
        raise InputError(f"a set has at least 1 row and 1 query, not {n} and {queries}")
    target = Path(folder)
    recipe = {
        "n": n, "d": source.base.shape[1], "metric": source.metric, "queries": queries, "seed": seed,
        "mixed_from": source.name, "weights": WEIGHTS, "noise": NOISE,
    }  # fmt: skip
    meta = target / "meta.json"
    if meta.exists():
        if json.loads(meta.read_text()) != json.loads(json.dumps(recipe)):
            raise InputError(f"{target} holds another set: {meta.read_text().strip()}")
        return load_workload(target, min(n, DEPTH))
    target.mkdir(parents=True, exist_ok=True)
    write_rows(target / "base.npy", mixtures(source.base, n, source.metric, 2 * seed), n, source.base.shape[1])
    asked = np.concatenate(list(mixtures(source.queries, queries, source.metric, 2 * seed + 1)))
    base = np.load(target / "base.npy", mmap_mode="r")
    truth = exact_knn(base, asked, min(n, DEPTH), source.metric, progress=progress)[0]
    np.save(target / "queries.npy", asked)
    np.save(target / "gt.npy", truth.astype(np.int32))
    meta.write_text(json.dumps(recipe) + "\n")  # last: a set without it is not finished
    return Workload(target.name, source.metric, base, asked, truth)


def write_rows(file: Path, blocks: Iterator[Float32Array], n: int, dim: int) -> None:
    """Write blocks of float32 rows, (n, dim) in all, as an ``.npy`` file, whole or not at all."""
    partial = file.with_name(file.name + ".partial")
    with partial.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": (n, dim)})
        for block in blocks:
            out.write(np.ascontiguousarray(block, "<f4").data)
    os.replace(partial, file)
