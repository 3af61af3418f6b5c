"""Create and open collections."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from qvec.codes.base import make_transform
from qvec.codes.configs import CodeConfig, IndexConfig, Int4, Int8, projection_of
from qvec.codes.registry import Quantizer, make_config
from qvec.collection.collection import Collection
from qvec.collection.creation import new_store
from qvec.common.errors import CorruptError, ExistsError, InputError
from qvec.common.findings import damages
from qvec.common.types import (
    ArrayLike,
    Durability,
    FieldType,
    Float32Array,
    IdKind,
    Memory,
    Metric,
    Mode,
    NDArray,
    Originals,
    check_flag,
)
from qvec.maintenance.state_check import state_codec
from qvec.schema.config import Config, index_config
from qvec.schema.quantizers import check_enough
from qvec.schema.validation import as_float32, as_stored, as_vectors, check_count
from qvec.storage.store import TIMEOUT, Store

if TYPE_CHECKING:
    from qvec.codes.adapters import Adapter
    from qvec.codes.calibration import Calibration
    from qvec.collection.embedding import Embed, Embedding
    from qvec.quality.drift import OnDrift
    from qvec.schema.state import FieldDeclaration
    from qvec.text.options import Sparse, Text

IN_MEMORY = ":memory:"  # as of SQLite


def create(
    path: str | os.PathLike[str],
    dim: int,
    *,
    metric: Metric = "cosine",
    code: str | CodeConfig = "auto",
    index: str | IndexConfig = "auto",
    ids: IdKind = "int64",
    fields: Mapping[str, FieldType | Text | Sparse] | None = None,
    expires: str | None = None,
    originals: Originals = "f32",
    sample: ArrayLike | None = None,
    queries: ArrayLike | None = None,
    adapter: Adapter | None = None,
    quantizer: Quantizer | None = None,
    calibration: Calibration | None = None,
    model: str | None = None,
    embed: Embed | None = None,
    seed: int = 0,
    exist_ok: bool = False,
    durability: Durability = "full",
    on_drift: OnDrift = None,
    map_size: int | None = None,
    timeout: float = TIMEOUT,
    exclusive: bool = False,
    build_memory: int | None = None,
) -> Collection:
    """Create a collection file and open it for writing.

    path: the path of the file, or ":memory:" for a temporary collection, which is deleted when its handle is closed.
    dim: the number of values of a vector, 1 to 65,536. metric: "cosine", "ip" or "l2".
    code: "auto" (int8), "f32", "f16", "bf16", "int8", "int4", "ternary", "binary", "rabitq1" to "rabitq8", "mixed", or
    a configuration such as ``Int8(scale="per_dim")``; ``Prequantized(dtype)`` for embeddings that are int8, uint8 or
    packed bits.
    index: "auto" (a scan that becomes a graph at 10,000 vectors), "flat", "hnsw", "packed" (a graph with packed
    nodes), "ivf" (inverted lists), or a configuration: ``HNSW(m, ef_construction)``, ``IVF(nlist, copies)``.
    ids: integers or strings.
    fields: payload keys that searches can filter by: name -> "keyword", "int", "float", "bool", "datetime", or a list
    of these ("keyword[]"); and keys to search: "text" or :class:`qvec.Text`, "sparse" or :class:`qvec.Sparse`. More
    with :meth:`Collection.add_field`.
    expires: a field of datetimes in ``fields``. A vector whose time has passed when a call begins appears in no result
    of the call, and its id can be added again; :meth:`Collection.optimize` removes it.
    originals: how to store the vectors themselves, for re-ranking and ``get``: "f32", "f16" or "none". Always "none"
    if the vectors are added quantized.
    model: a tag of the embedding model. seed: the seed of the rotation, if the code uses one.
    embed: a function that returns the vectors, array-like [n, dim], of a list of texts: ``add(texts=...)`` and
    ``search("text")`` call it with 256 texts at a time. Its attribute ``model`` is the tag of the model, and its
    attribute ``embed_query``, if it has one, embeds queries.
    exist_ok: if the file exists, open it, provided that it was created with the same options.
    durability: stored in the file and valid for all writers. "full": a commit survives power loss. "relaxed": the
    system flushes when it wants; a commit survives the death of the process, but power loss may destroy the file.
    on_drift: what to do when a batch raises the drift level to alarm: "warn" (DriftWarning), "raise" (DriftError; the
    batch is refused), a callable that receives the :class:`qvec.Drift`, or None: nothing. None of these acts at level
    warning; :meth:`Collection.drift` returns the level.
    map_size: bytes of address space to reserve at first; it grows. Default: one tebibyte, which costs nothing.
    timeout, exclusive, build_memory: see :func:`open`.

    By default the code is trained on the first batch that is added. Alternatives:
    sample: vectors [n, dim] to train the code on. queries: with a sample, queries [m, dim] that a projection is learned
    for, too (``Int8(projection=...)``).
    adapter: a learned map that is applied to vectors and queries before they are encoded (:mod:`qvec.qat`). The default
    code is then the one that the adapter was trained for, and the adapter determines the seed of the rotation. A sample
    can also be given.
    quantizer: a trained quantizer, for example from :mod:`qvec.torch`; ``code`` must be of its kind.
    calibration: known ranges, as from ``Calibration.from_ranges``, for ``Int8`` or ``Int4`` with
    ``scale="per_dim"`` or ``"global"``. If the code has a rotation, they are ranges of rotated values.

    Raises InputError, ExistsError, NotFoundError (no such directory).
    """
    _check_on_drift(on_drift)
    if adapter is not None:
        adapter.check(dim, metric)
        code, seed = adapter.code if code == "auto" else code, adapter.seed
    declared, embedding = _checked_fields(fields), _embedding(embed)
    if embedding is not None and embedding.model is not None:
        if model not in (None, embedding.model):
            raise InputError(f"model is {model!r}, but embed.model is {embedding.model!r}")
        model = embedding.model
    _check_expires(expires, declared)
    config = Config(dim, metric, ids, originals, make_config(code), index_config(index), model, seed)
    x = None if sample is None else as_stored("sample", sample, config.dim, config.metric, config.form)
    if x is not None:
        x = x if config.form is not None else as_float32(x)
        check_enough(config.code, len(x))
    asked = _checked_queries(config, queries, x is not None and adapter is None and quantizer is None)
    if calibration is not None:
        quantizer = _calibrated(config, calibration, x is not None or adapter is not None or quantizer is not None)
    trained = _trained(config, x, adapter, quantizer)
    try:
        options: dict[str, Any] = {"timeout": timeout, "exclusive": exclusive, **_sized(map_size)}
        options["build_memory"] = _build_memory(build_memory)
        options |= {"durability": durability, "expires": expires}
        made = _new_collection(path, config, x, asked, on_drift, trained, declared, **options)
        made._embedding = embedding
        return made
    except ExistsError:
        if not exist_ok:
            raise
    collection = open(
        path, on_drift=on_drift, map_size=map_size, timeout=timeout, exclusive=exclusive, build_memory=build_memory
    )
    try:
        if collection.durability != durability:
            raise InputError(f"{collection.path} was created with durability={collection.durability!r}")
        collection._embedding = embedding
        _check_same(collection, config, None if fields is None else declared, trained, expires)
    except BaseException:
        collection.close()
        raise
    return collection


def _check_same(
    collection: Collection,
    config: Config,
    fields: dict[str, FieldDeclaration] | None,
    quantizer: Quantizer | None,
    expires: str | None,
) -> None:
    """Raise InputError unless a collection was created with these options. None: any fields, any quantizer."""
    path, own = collection.path, collection._config
    if own != config:
        raise InputError(f"{path} was created with other options: {own}, not {config}")
    with collection._store.read() as snap:
        if snap.state.expires != expires:
            raise InputError(f"{path} was created with expires={snap.state.expires!r}")
    if fields is not None:
        with collection._store.read() as snap:
            stored, wanted = _types(snap.state.fields), _types(fields)
        if stored != wanted:
            raise InputError(f"{path} was created with other fields: {stored}, not {wanted}")
    if quantizer is not None:
        with collection._store.read() as snap:
            if not collection._access.encodes_like(snap, quantizer):
                raise InputError(f"{path} was created with another quantizer or adapter, or without one")


def _types(fields: Mapping[str, FieldDeclaration]) -> dict[str, object]:
    """The types of fields; of text and sparse fields, their options."""
    return {name: field.type if field.postings is None else field.postings.options for name, field in fields.items()}


def _new_collection(
    path: str | os.PathLike[str],
    config: Config,
    sample: NDArray[Any] | None,
    queries: Float32Array | None,
    on_drift: OnDrift,
    quantizer: Quantizer | None = None,
    fields: Mapping[str, FieldDeclaration] | None = None,
    build_memory: int | None = None,
    expires: str | None = None,
    **options: Any,
) -> Collection:
    """Create the file, and open it; see :func:`qvec.collection.creation.new_store`."""
    if path == IN_MEMORY:
        return _temporary(config, sample, queries, on_drift, quantizer, fields, build_memory, expires, **options)
    store = new_store(path, config, sample, queries, quantizer, fields, expires, **options)
    try:
        return Collection(store, on_drift, build_memory)
    except BaseException:
        store.close()
        raise


def _temporary(*settings: Any, **options: Any) -> Collection:
    """Create a collection in a temporary directory, which is deleted when the handle is closed."""
    import shutil
    import tempfile  # late: it imports random

    directory = tempfile.mkdtemp(prefix="qvec-")
    try:
        path = os.path.join(directory, "memory.qvec")
        collection = _new_collection(path, *settings, **{**options, "durability": "relaxed"})
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    collection.call_on_close(lambda: shutil.rmtree(directory, ignore_errors=True))
    return collection


def _checked_fields(fields: Mapping[str, FieldType | Text | Sparse] | None) -> dict[str, FieldDeclaration]:
    if fields is None:
        return {}
    from qvec.filters.schema import check_fields  # late, as all of qvec.filters: many collections have no fields

    return check_fields(fields)


def _check_expires(expires: str | None, fields: Mapping[str, FieldDeclaration]) -> None:
    """Raise InputError unless ``expires`` is None or a field of datetimes."""
    if expires is None:
        return
    times = [name for name, field in fields.items() if field.type == "datetime"]
    if expires not in times:
        listed = ", ".join(times) or "none"
        raise InputError(f"expires must name a field of type datetime, got {expires!r}; such fields are: {listed}")


def _checked_queries(config: Config, queries: ArrayLike | None, trains: bool) -> Float32Array | None:
    """Return float32 [m, dim], for which a projection is learned. ``trains``: whether the code is trained now."""
    if queries is None:
        return None
    if not trains or projection_of(config.code) is None:
        raise InputError("queries= needs a sample, and a code with a projection, such as Int8(projection='auto')")
    return as_vectors("queries", queries, config.dim, config.metric)


def _calibrated(config: Config, calibration: Calibration, taught: bool) -> Quantizer:
    """Return the quantizer of a code with the given ranges."""
    from qvec.codes.int4 import Int4Quantizer
    from qvec.codes.int8 import Int8Quantizer

    code = config.code
    if taught:
        raise InputError("give a calibration, or a sample, adapter or quantizer, not both")
    if not isinstance(code, Int8 | Int4) or code.scale == "per_vector":
        raise InputError(f"a calibration is for Int8 or Int4 with scale='per_dim' or 'global', not for {code}")
    if code.projection is not None:
        raise InputError("a calibration has the ranges of known dimensions, and a projection is learned: give a sample")
    if calibration.model != config.model:
        raise InputError(f"the calibration is of model {calibration.model!r}, the collection of {config.model!r}")
    transform = make_transform(config.dim, False, None, config.seed if code.rotate else None, code.dims)
    if isinstance(code, Int8):
        return Int8Quantizer(config.dim, config.metric, transform, calibration, code.rounding)
    return Int4Quantizer(config.dim, config.metric, transform, calibration)


def _trained(
    config: Config, sample: Float32Array | None, adapter: Adapter | None, quantizer: Quantizer | None
) -> Quantizer | None:
    """Return the quantizer of a new collection. None: it will be trained on vectors."""
    if adapter is not None:
        if quantizer is not None:
            raise InputError("give an adapter or a quantizer, not both: a quantizer brings its own transform")
        x = np.empty((0, config.dim), np.float32) if sample is None else sample
        return adapter.quantizer(x, config.code, config.model)
    if quantizer is None:
        return None
    got, wanted = (quantizer.kind, quantizer.dim, quantizer.metric), (config.code.kind, config.dim, config.metric)
    if got != wanted:
        raise InputError(f"the quantizer is (kind, dim, metric) = {got}, the collection {wanted}")
    if quantizer.is_projected != (projection_of(config.code) is not None):
        raise InputError("a quantizer that projects vectors goes with a code that has a projection, and no other does")
    return quantizer


def open(
    path: str | os.PathLike[str],
    mode: Mode = "rw",
    *,
    memory: Memory = "mmap",
    checksums: bool = True,
    on_drift: OnDrift = None,
    model: str | None = None,
    embed: Embed | None = None,
    map_size: int | None = None,
    untrusted: bool = False,
    timeout: float = TIMEOUT,
    exclusive: bool = False,
    build_memory: int | None = None,
) -> Collection:
    """Open a collection file. Any number of handles, in any number of processes, may read and write it.

    memory: "mmap" shares the file's pages between processes. "index" copies the data that finds candidates (codes,
    graph or lists) into huge pages at the first search; "ram" also the originals that re-rank them. A number of bytes
    is a budget for these copies: ids, index, codes and originals are copied in this order, as far as the budget lasts.
    checksums: check each block's checksum when it is first read. model: the tag of the embedding model of later vectors
    and queries; refused if the collection has another tag. embed: a function that embeds texts, see :func:`create`;
    refused if it has a tag, ``embed.model``, that is not the collection's. on_drift, map_size: see :func:`create`.
    untrusted: the file comes from elsewhere or may be damaged. LMDB's pages are checked before the file is mapped, and
    everything else is checked before the first search, as by :meth:`Collection.verify`. Nobody may write to the file
    until then.
    timeout: seconds that a transaction waits for earlier requests in all threads and processes; after that, LockedError
    says which process is writing, what it does and since when. exclusive: no other handle can write while this one is
    open, and transactions of this handle need not lock the file.
    build_memory: limit in bytes for the candidates and lists of a graph while it is built; by default a quarter of the
    vectors as float32, and at least 256 MiB. A temporary file next to the collection holds the rest.

    Raises NotFoundError, FormatError, CorruptError, LockedError, InputError.
    """
    _check_on_drift(on_drift)
    check_flag("untrusted", untrusted)
    options: dict[str, Any] = {"memory": memory, "checksums": checksums}
    options |= {"timeout": timeout, "exclusive": exclusive, **_sized(map_size)}
    memory_limit, embedding = _build_memory(build_memory), _embedding(embed)
    store = Store.open(path, mode, untrusted=untrusted, state_codec=state_codec, **options)
    collection = Collection(store, on_drift, memory_limit)
    try:
        for tag in (model, None if embedding is None else embedding.model):
            if tag is not None and tag != collection.model:
                raise InputError(f"{collection.path} is of model {collection.model!r}, not {tag!r}")
        collection._embedding = embedding
        if untrusted and (problems := damages(collection.verify())):
            raise CorruptError(f"{collection.path} is damaged: {problems[0]}; {len(problems)} problems in all")
        if mode == "rw":
            _finish_erasure(store, collection)
    except BaseException:
        collection.close()
        raise
    return collection


def _embedding(embed: Embed | None) -> Embedding | None:
    if embed is None:
        return None
    from qvec.collection.embedding import Embedding  # late: many collections have no texts

    return Embedding(embed)


def _finish_erasure(store: Store, collection: Collection) -> None:
    """Continue an unfinished erasure."""
    with store.read() as snap:
        erasing = snap.state.erasing
    if erasing:
        from qvec.maintenance.deletion import finish_erasure

        finish_erasure(store, collection._maintenance)


def _build_memory(size: int | None) -> int | None:
    return None if size is None else check_count("build_memory", size, 0, 2**46)


def _sized(map_size: int | None) -> dict[str, int]:
    return {} if map_size is None else {"map_size": check_count("map_size", map_size, 2**16, 2**46)}


def _check_on_drift(on_drift: object) -> None:
    """Raise InputError unless ``on_drift`` is a valid option."""
    if not (on_drift in (None, "warn", "raise") or callable(on_drift)):
        raise InputError(f"on_drift must be 'warn', 'raise', a callable or None, got {on_drift!r}")
