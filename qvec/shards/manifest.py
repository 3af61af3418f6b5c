"""The manifest of a set of shards: one small file that lists all files of the set (docs/format.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from qvec._kernels import crc32c
from qvec.common.errors import CorruptError, FormatError, InputError, LockedError, NotFoundError
from qvec.common.plain_state import Between, Coder, decode, encode
from qvec.common.types import Float32Array, IdKind, Metric, NDArray
from qvec.filters.schema import Declared, declared_fields, from_plain_declared, to_plain_declared
from qvec.schema.config import Config
from qvec.shards.folder import locked
from qvec.storage import records
from qvec.storage.atomic_file import replace_bytes

MANIFEST = "manifest.qvm"
MAGIC = b"qvecset1"
MAX_SHARDS = 65_536
MAX_BYTES = 1 << 62
MAX_NAME = 200

Partition = Literal["block", "cluster"]


def _fields(value: Any) -> dict[str, Declared]:
    if not isinstance(value, dict):
        raise FormatError("field 'fields' must be a mapping")
    return declared_fields({name: from_plain_declared(kind) for name, kind in value.items()})


def _plain_fields(fields: Mapping[str, Declared]) -> dict[str, Any]:
    return {name: to_plain_declared(kind) for name, kind in fields.items()}


def _matrix(value: Any) -> Float32Array:
    if not (isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], bytes)):
        raise FormatError("field 'centroids' must hold a width and rows of float32")
    width, data = value
    if type(width) is not int or not 1 <= width <= 65_536 or len(data) % (4 * width):
        raise FormatError(f"field 'centroids' has {len(data)} bytes, which are no rows of {width} float32")
    rows = np.frombuffer(data, "<f4").reshape(-1, width).astype(np.float32)
    if not np.isfinite(rows).all():
        raise FormatError("field 'centroids' holds a value that is not finite")
    return rows


def _owners(value: Any) -> NDArray[np.uint32]:
    if not isinstance(value, bytes) or len(value) % 4:
        raise FormatError("field 'owners' must hold uint32 values")
    return np.frombuffer(value, "<u4").astype(np.uint32)


Options = Annotated[Config, Coder(Config.from_dict, Config.to_dict)]
Fields = Annotated[Mapping[str, Declared], Coder(_fields, _plain_fields)]
Matrix = Annotated[Float32Array, Coder(_matrix, lambda rows: [rows.shape[1], rows.astype("<f4").tobytes()])]
Owners = Annotated[NDArray[np.uint32], Coder(_owners, lambda rows: rows.astype("<u4").tobytes())]
Id = Annotated[int | str | None, Coder(lambda value: value, lambda value: value)]
Name = Annotated[str, Between(1, MAX_NAME)]
Count = Annotated[int, Between(0, MAX_BYTES)]
Share = Annotated[float, Between(0.0, 1.0)]


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as it was when it was added.

    ``name``: of its file. ``rows``, ``bytes``, ``crc``: of the file, CRC-32C. ``first``, ``last``: its smallest and
    largest id, None if it is empty. ``generation``: of the manifest that added it. Routed writes later change rows, ids
    and bytes; ``crc`` is then valid only for published copies.
    """

    name: Name
    rows: Count
    bytes: Count
    crc: Annotated[int, Between(0, 2**32 - 1)]
    first: Id
    last: Id
    generation: Count


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """The assignment of vectors to their nearest shards.

    ``count``: of the shards. ``centroids``: float32 [c, dim], several for each shard. ``owners``, ``weights``: uint32
    [c], the shard of each and the vectors of the sample around it. ``sharpness``: of the Gaussian that weighs distances
    (qvec/shards/partition.py). ``recalls``: of searches that ask the nearest 1, 2, ... shards, as measured; empty
    before :meth:`ShardSet.measure`.
    """

    count: Annotated[int, Between(1, MAX_SHARDS)]
    centroids: Matrix
    owners: Owners
    weights: Owners
    sharpness: Annotated[float, Between(0.0, 1e30)]
    recalls: tuple[Share, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """``generation``: increases with each change of the set. ``config``, ``fields``: the same for every shard.

    ``routes``: the file that maps ids to shards, None before the first commit. ``size``: of that file and ``crc``:
    CRC-32C, in published copies; 0 in a set that is written. ``is_copy``: fetched from elsewhere, not to be changed.
    ``oversample``: the default of searches, 0 for that of the code. ``logged``: the last routed write of the log that
    the shards contain.
    """

    generation: Count
    config: Options
    fields: Fields
    partition: Literal["block", "cluster"]
    calibration: Annotated[str, Between(0, 64 << 20)] | None
    clusters: Clusters | None
    shards: Annotated[tuple[Shard, ...], Between(0, MAX_SHARDS)]
    routes: Name | None
    size: Count
    crc: Annotated[int, Between(0, 2**32 - 1)]
    oversample: Annotated[int, Between(0, 10_000)]
    is_copy: bool

    @property
    def dim(self) -> int:
        """Values of a vector."""
        return self.config.dim

    @property
    def metric(self) -> Metric:
        """The metric of all shards."""
        return self.config.metric

    @property
    def ids(self) -> IdKind:
        """The kind of ids."""
        return self.config.ids

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the shards, in order."""
        return tuple(shard.name for shard in self.shards)

    @property
    def creation(self) -> dict[str, Any]:
        """The options of :func:`qvec.create` for a shard."""
        names = ("metric", "ids", "originals", "code", "model", "seed")
        options = {name: getattr(self.config, name) for name in names}
        return {**options, "index": self.config.index or "auto", "fields": dict(self.fields)}


def dump(manifest: Manifest) -> bytes:
    """The bytes of a manifest: magic, CRC-32C of what follows, msgpack."""
    packed = records.pack(encode(manifest), "the manifest")
    return MAGIC + crc32c(packed).to_bytes(4, "little") + packed


def parse(data: bytes, where: str) -> Manifest:
    """Read a manifest. Raises FormatError, or CorruptError naming ``where``."""
    if data[:7] != MAGIC[:7]:
        raise FormatError(f"{where} is not a manifest of shards")
    if data[: len(MAGIC)] != MAGIC:
        raise FormatError(f"{where} has version {data[7:8]!r} of the manifest; this release reads {MAGIC[7:]!r}")
    packed = data[len(MAGIC) + 4 :]
    if crc32c(packed).to_bytes(4, "little") != data[len(MAGIC) : len(MAGIC) + 4]:
        raise CorruptError(f"{where} is damaged: it fails its checksum")
    try:
        plain = records.unpack(packed)
    except ValueError as error:
        raise CorruptError(f"{where} is {error}") from error
    manifest = decode(Manifest, plain, where)
    _check(manifest, where)
    return manifest


def _check(manifest: Manifest, where: str) -> None:
    for name in (*manifest.names, *([manifest.routes] if manifest.routes else [])):
        if os.path.basename(name) != name or name.startswith("."):
            raise FormatError(f"{where} names {name!r}, which is not a file of the folder")
    if (manifest.partition == "cluster") != (manifest.clusters is not None):
        raise FormatError(f"{where}: field 'clusters' does not go with partition {manifest.partition!r}")
    clusters = manifest.clusters
    if clusters is not None and (
        clusters.centroids.shape[1] != manifest.dim
        or not len(clusters.centroids) == len(clusters.owners) == len(clusters.weights)
    ):
        raise FormatError(f"{where}: fields 'centroids', 'owners' and 'weights' do not match dimension {manifest.dim}")


def read(folder: str | os.PathLike[str]) -> Manifest:
    """The manifest of a folder. Raises NotFoundError if there is none."""
    path = Path(folder) / MANIFEST
    try:
        return parse(path.read_bytes(), str(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{folder} is no set of shards: it has no {MANIFEST}") from error


def write(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Replace the manifest of a folder by one rename, durably."""
    replace_bytes(str(Path(folder) / MANIFEST), dump(manifest))


def check_key(key: str) -> str:
    """A block's name: letters, digits, "_" and "-", 1 to 64 of them. Raises InputError."""
    if not isinstance(key, str) or not 1 <= len(key) <= 64 or not all(c.isalnum() or c in "_-" for c in key):
        raise InputError(f"the key of a block is 1 to 64 letters, digits, '_' and '-'; got {key!r}")
    if not key.isascii():
        raise InputError(f"the key of a block is ASCII; got {key!r}")
    return key


def store_recalls(
    folder: str | os.PathLike[str], manifest: Manifest, recalls: tuple[float, ...], timeout: float
) -> None:
    """Store measured recalls, unless the shards have changed since. Raises LockedError."""
    with locked(folder, timeout):
        now = read(folder)
        if now.generation != manifest.generation or now.clusters is None:
            raise LockedError(f"{folder} has got other shards meanwhile: measure() again")
        write(folder, replace(now, clusters=replace(now.clusters, recalls=recalls)))
