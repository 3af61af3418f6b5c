"""Create a set of shards: its folder, options, calibration and, with partition="cluster", its centroids."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

from qvec.codes.configs import CodeConfig, IndexConfig
from qvec.codes.registry import make_config
from qvec.collection.open import create as create_collection
from qvec.common.errors import ExistsError, InputError, NotFoundError
from qvec.common.types import ArrayLike, Float32Array, IdKind, Metric, Originals, check_choice
from qvec.filters.schema import Declared, declared_fields
from qvec.schema.config import Config, index_config
from qvec.schema.validation import as_float32, as_vectors, check_count
from qvec.shards import manifest as manifests
from qvec.shards.folder import LOG, STAGED
from qvec.shards.manifest import MANIFEST, Clusters, Manifest, Partition
from qvec.shards.partition import learn

MAX_CLUSTERS = 4096  # shards by cluster: their centroids are in the manifest


def create(
    folder: str | os.PathLike[str],
    dim: int,
    *,
    metric: Metric = "cosine",
    code: str | CodeConfig = "auto",
    index: str | IndexConfig = "auto",
    ids: IdKind = "int64",
    fields: Mapping[str, Declared] | None = None,
    originals: Originals = "f32",
    model: str | None = None,
    seed: int = 0,
    partition: Partition = "block",
    shards: int | None = None,
    sample: ArrayLike | None = None,
    calibration: str | None = None,
) -> Manifest:
    """Create an empty set of shards in a new or empty folder. Returns a manifest without shards.

    partition: "block": each block that is written becomes a shard. "cluster": vectors are divided by k-means of the
    ``sample`` among ``shards`` shards, so that a search can be limited to the few nearest shards.
    sample: representative vectors [n, dim]. The code is trained on them once for all shards, so that distances between
    codes are comparable. calibration: instead of a sample, the result of :meth:`Collection.export_calibration`. Without
    both, each shard is calibrated on its own first rows. Other options are as in :func:`qvec.create`.

    Raises InputError, ExistsError if the folder has a manifest, NotFoundError if its parent is missing.
    """
    check_choice("partition", partition, get_args(Partition))
    config = Config(dim, metric, ids, originals, make_config(code), index_config(index), model, seed)
    x = None if sample is None else as_float32(as_vectors("sample", sample, dim, metric))
    if x is not None and calibration is not None:
        raise InputError("give a sample to train the code on, or a calibration, not both")
    clusters = _clusters(config, partition, shards, x)
    declared = declared_fields(fields or {})
    empty = Manifest(0, config, declared, partition, calibration, clusters, (), None, 0, 0, 0, False)
    manifest = replace(empty, calibration=_calibration(empty, x))
    manifests.write(_new_folder(folder), manifest)
    return manifest


def _clusters(config: Config, partition: Partition, shards: int | None, x: Float32Array | None) -> Clusters | None:
    if partition == "block":
        if shards is not None:
            raise InputError("shards is for partition='cluster': by block, each block becomes a shard")
        return None
    if x is None or shards is None:
        raise InputError("partition='cluster' needs the number of shards and a sample")
    if config.form is not None:
        raise InputError("partition='cluster' is for vectors of floats, not for Prequantized ones")
    return learn(x, check_count("shards", shards, 1, MAX_CLUSTERS), config.metric, config.seed)


def _calibration(manifest: Manifest, x: Float32Array | None) -> str | None:
    """Return the calibration of all shards. Raises the error that the first shard would raise."""
    with create_collection(":memory:", manifest.dim, sample=x, **manifest.creation) as db:
        if x is not None:
            return str(db.export_calibration())
        if manifest.calibration is not None:
            db.import_calibration(manifest.calibration)
    return manifest.calibration


def _new_folder(folder: str | os.PathLike[str]) -> Path:
    path = Path(os.path.realpath(folder))
    if (path / MANIFEST).exists():
        raise ExistsError(f"{path} has a set of shards already")
    try:
        path.mkdir(exist_ok=True)
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise NotFoundError(f"{path} is not a folder and cannot be created: {error}") from error
    for name in (STAGED, LOG):
        (path / name).mkdir(exist_ok=True)
    return path
