"""Make a set of any size that resembles a real one: mixtures of its rows, block by block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qvec.common import system
from qvec.common.errors import InputError
from qvec.common.types import Float32Array
from qvec.datasets.annbenchmarks import Metric
from qvec.datasets.files import Matrix, PathLike
from qvec.datasets.ground_truth import Progress, exact_knn
from qvec.datasets.workload import DEPTH, Workload, load_workload, scaled

WEIGHTS = (0.7, 0.3)
NOISE = 0.25  # length of the noise, relative to that of the mixture
BLOCK_ROWS = 8192  # a block depends on its number and the seed only
QUERIES = 1000


def mixtures(rows: Matrix, n: int, metric: Metric, seed: int) -> Iterator[Float32Array]:
    """Yield ``n`` new rows in blocks, float32 (at most 8192, dim).

    A row is 0.7 of a random row of ``rows`` plus 0.3 of another, plus Gaussian noise of a quarter of that length; under
    cosine it is normalized. The first rows do not depend on ``n``.
    """
    for block, start in enumerate(range(0, n, BLOCK_ROWS)):
        rng = np.random.default_rng((seed, block))
        first, second = rng.integers(0, len(rows), (2, BLOCK_ROWS))
        noise = rng.standard_normal((BLOCK_ROWS, rows.shape[1]), np.float32)
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
    progress: Progress | bool | None = None,
) -> Workload:
    """Create ``n`` mixtures of the source's base and ``queries`` mixtures of its queries, with exact neighbors.

    The set is written to ``folder`` (base.npy, queries.npy, gt.npy, meta.json) with a few megabytes of memory. If it
    already exists, its files are mapped. ``progress(done, total)``: rows searched for neighbors; True: show
    a bar.

    Raises InputError, also if the folder has another set.
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
    meta.write_text(json.dumps(recipe) + "\n")  # last: marks the set as complete
    return Workload(target.name, source.metric, base, asked, truth)


def write_rows(file: Path, blocks: Iterator[Float32Array], n: int, dim: int) -> None:
    """Write blocks of float32 rows, (n, dim) in all, to an ``.npy`` file that appears when it is complete."""
    partial = file.with_name(file.name + ".partial")
    with partial.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": (n, dim)})
        for block in blocks:
            out.write(np.ascontiguousarray(block, "<f4").data)
    system.replace(partial, file)
