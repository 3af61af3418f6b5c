"""Public types: metrics, kinds of codes and indexes, limits, statistics; and checks of arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Never, Required, TypedDict, get_args

import numpy as np

from qvec.common.errors import InputError

if TYPE_CHECKING:
    from datetime import timedelta

    from numpy.typing import ArrayLike as ArrayLike
    from numpy.typing import NDArray as NDArray

    # Types of queries for type checkers. The first is an array of unknown shape: a search returns Any for it.
    Number = float | np.floating[Any] | np.integer[Any]
    UnknownArray = np.ndarray[tuple[Never, Never, Never], np.dtype[Any]]
    Query = Sequence[Number] | np.ndarray[tuple[int], np.dtype[Any]]
    Batch = (
        Sequence[Sequence[Number]]
        | Sequence[np.ndarray[tuple[int], np.dtype[Any]]]
        | np.ndarray[tuple[int, int], np.dtype[Any]]
    )
    Boost = Mapping[str, tuple[str, str | timedelta] | tuple[str, str | timedelta, float]]
    ManyIds = list[int] | list[str] | tuple[int, ...] | tuple[str, ...] | range | np.ndarray[Any, np.dtype[Any]]

    class CommonKeywords(TypedDict, total=False):
        """Options of every kind of search."""

        where: dict[str, Any] | Sequence[dict[str, Any] | None] | None
        ids_in: Any
        include: Sequence[Literal["payloads", "vectors", "explanation"]]
        max_distance: float | None
        offset: int
        ef: int | None
        nprobe: int | None
        oversample: float | Literal["auto"]
        exact: bool
        recall: float | None
        threads: int | None
        timeout: float | None

    class SearchKeywords(CommonKeywords, total=False):
        """Options of ``search`` and ``search_by_id``."""

        mmr: float | tuple[float, int] | None

    class TextKeywords(CommonKeywords, total=False):
        """Options of searches by text and sparse vectors."""

        text: str | Sequence[str] | None
        sparse: Any
        fusion: Literal["rrf", "weighted"] | Mapping[str, float] | None
        fusion_depth: int | None
        text_weights: Mapping[str, float] | None
        highlight: bool
        boost: Boost | None

    class HybridKeywords(TextKeywords, total=False):
        """Options of ``search``."""

        mmr: float | tuple[float, int] | None
        statistics: Any

    class GroupKeywords(TextKeywords, total=False):
        """Options of ``search_groups``."""

        group_by: Required[str]
        group_size: int

else:  # numpy.typing takes a tenth of the import's time, and only type checkers read it
    ArrayLike, NDArray = object, np.ndarray

Metric = Literal["cosine", "ip", "l2"]
CodeKind = Literal["f32", "f16", "bf16", "int8", "int4", "ternary", "binary", "rabitq", "mixed", "prequantized"]
IdKind = Literal["int64", "str"]
Originals = Literal["f32", "f16", "int8", "uint8", "none"]
Scale = Literal["per_vector", "per_dim", "global"]
Rounding = Literal["nearest", "truncate"]
GraphLayout = Literal["compact", "packed"]
CalibrationMethod = Literal["minmax", "percentile", "mse", "entropy"]
PrequantizedType = Literal["int8", "uint8", "binary", "ubinary"]
MixedGroups = Literal["pca", "raw"]
CentroidCount = int | Literal["auto"]
OnConflict = Literal["error", "skip", "replace"]
Missing = Literal["ignore", "error"]
"""How a call treats an id that is not stored."""
Durability = Literal["full", "relaxed"]
MemoryMode = Literal["mmap", "index", "ram"]
Memory = MemoryMode | int
"""What of a file to copy to memory; an int is a budget in bytes."""
Mode = Literal["rw", "r"]
Include = Sequence[Literal["payloads", "vectors", "explanation"]]

FieldType = Literal[
    "keyword",
    "int",
    "float",
    "bool",
    "datetime",
    "keyword[]",
    "int[]",
    "float[]",
    "bool[]",
    "datetime[]",
    "text",
    "sparse",
]
Where = dict[str, Any]
Bitmap = NDArray[np.uint64]
"""Rows of a collection: bit r of word w is row 64 w + r."""

Float32Array = NDArray[np.float32]
Int64Array = NDArray[np.int64]
Codes = NDArray[np.uint8]
Ids = NDArray[Any]
Payload = dict[str, Any]

_OTHER_METRIC_NAMES = {  # lower case -> the name here, and what to know about it
    "euclidean": "l2 (distances are squared)",
    "sqeuclidean": "l2",
    "euclid": "l2 (distances are squared)",
    "l2sq": "l2",
    "l2_distance": "l2 (distances are squared)",
    "dot": "ip (distances are negated products)",
    "dotproduct": "ip (distances are negated products)",
    "dot_product": "ip (distances are negated products)",
    "innerproduct": "ip (distances are negated products)",
    "inner_product": "ip (distances are negated products)",
    "cos": "cosine",
    "cosinesimil": "cosine",
    "cosine_similarity": "cosine",
    "angular": "cosine",
}

MAX_DIM = 65_536  # sums of 255 * 127 over more dimensions leave int32
MIN_SAMPLES_RANGE = 256  # a range has 255 steps: fewer values do not determine its ends
MIN_SAMPLES_ENTROPY = 2048  # the histogram has as many bins
MIN_SAMPLES_MEAN = 100  # the error of the mean is then a tenth of the standard deviation
MIN_ROWS_PER_CENTROID = 16  # rows of a sample per centroid
MAX_CENTROIDS = 256  # a row stores the number of its centroid in one byte


@dataclass(frozen=True)
class OpenSnapshot:
    """An open ``db.snapshot()``: its age in seconds, and the number of commits since."""

    age: float
    commits_behind: int


@dataclass(frozen=True, repr=False)
class Stats:
    """Statistics of a collection as of its last commit. Sizes are in bytes; ``code_size`` is per vector, with factors.

    - Sizes of parts count whole blocks: ``graph_bytes`` and ``lists_bytes`` of the index, ``fields_bytes`` of ordered
      fields. ``tree_bytes``: ids, payloads and other field indexes. ``other_bytes``: everything else in use, such as
      inactive codes. ``free_bytes``: pages that the next commits can use.
    - ``degree``: average number of edges of a live row in the graph; ``reachable``: live rows that walks can reach.
      None unless requested, or without a graph.
    - ``expired``: stored vectors whose time has passed; ``count`` does not include them. ``unindexed``: stored vectors
      that the index does not contain yet; searches score all of them. Later adds, or ``optimize``, add them to it.
    - ``memory``: the option of this handle; ``resident``: the bytes that it has copied to memory.
    - ``erasing``: whether deleted data must still be overwritten.
    - ``commits_held``: how many commits the oldest reader of any process is behind; pages freed since then are reused
      after that reader ends. ``snapshots``: open snapshots of this handle, oldest first.
    """

    path: str
    dim: int
    metric: Metric
    code: str
    index: Literal["flat", "hnsw", "ivf"]
    ids: IdKind
    originals: Originals
    model: str | None
    count: int
    expired: int
    unindexed: int
    deleted: int
    code_size: int
    codes_bytes: int
    vectors_bytes: int
    graph_bytes: int
    lists: int
    lists_bytes: int
    ids_bytes: int
    fields_bytes: int
    tree_bytes: int
    other_bytes: int
    free_bytes: int
    file_bytes: int
    memory: Memory
    resident: int
    degree: float | None
    reachable: int | None
    erasing: bool
    calibration: str | None
    generation: int
    txn_id: int
    commits_held: int
    snapshots: tuple[OpenSnapshot, ...]

    def _repr_html_(self) -> str:
        from qvec.common.tables import html_table

        rows = [(name, getattr(self, name)) for name in self.__dataclass_fields__]
        return html_table("Statistics", ("name", "value"), [(n, f"{v:,}" if type(v) is int else v) for n, v in rows])

    def __repr__(self) -> str:
        values = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        lines = [f"  {name}: {value:,}" if type(value) is int else f"  {name}: {value}" for name, value in values]
        return "\n".join(("<qvec.Stats", *lines)) + ">"


def unbox(options: Any) -> None:
    """Replace NumPy scalars in the fields of a frozen dataclass by Python's own numbers."""
    for name in options.__dataclass_fields__:
        value = getattr(options, name, None)
        if isinstance(value, np.generic):
            object.__setattr__(options, name, value.item())


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise InputError listing the choices unless ``value`` is one of them."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


MAX_BUDGET = 1 << 46


def check_memory(value: object) -> None:
    """Raise InputError unless ``value`` is a memory mode or a budget in bytes."""
    modes = get_args(MemoryMode)
    if isinstance(value, str) and value in modes:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= MAX_BUDGET:
        known = ", ".join(modes)
        raise InputError(f"memory must be one of {known}, or a number of bytes from 1 to 2^46; got {value!r}")


def check_metric(value: object) -> None:
    """Raise InputError unless ``value`` is a metric; for the name that others give a metric, with the name here."""
    known = _OTHER_METRIC_NAMES.get(value.lower()) if isinstance(value, str) else None
    if known is not None:
        raise InputError(f"metric={value!r} is called {known} here: metric={known.split(' ')[0]!r}")
    check_choice("metric", value, get_args(Metric))


def check_int(name: str, value: object, low: int, high: int) -> int:
    """Return ``value`` as an int if it is an integer, of NumPy too, within the limits. Raises InputError naming them.

    Both limits are included.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{name} must be an integer from {low} to {high}, got {value!r}")
    return int(value)


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raise InputError naming the limits unless ``value`` is a number within them, both included."""
    if (
        not isinstance(value, int | float | np.integer | np.floating)
        or isinstance(value, bool)
        or not low <= value <= high
    ):
        raise InputError(f"{name} must be a number from {low} to {high}, got {value!r}")


def check_timeout(name: str, seconds: float) -> float:
    """A number of seconds that is not negative. Raises InputError for others."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | np.number) or not seconds >= 0:
        raise InputError(f"{name} must be a number of seconds that is not negative, got {seconds!r}")
    return float(seconds)


def check_flag(name: str, value: object) -> None:
    """Raise InputError unless ``value`` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, got {value!r}")


def check_centroid_count(name: str, value: object) -> None:
    """Raise InputError unless ``value`` is "auto" or a number of centroids."""
    if value != "auto":
        check_int(f'{name} must be "auto", or it', value, 0, MAX_CENTROIDS)


def centroid_samples(centroids: CentroidCount) -> int:
    """How many vectors are needed to train this many centroids."""
    if centroids == 0:
        return 0
    return MIN_SAMPLES_MEAN if centroids == "auto" else max(MIN_SAMPLES_MEAN, centroids * MIN_ROWS_PER_CENTROID)


def check_dims(name: str, value: int | None) -> None:
    """Raise InputError unless ``value`` is None or a number of dimensions."""
    if value is not None:
        check_int(name, value, 1, MAX_DIM)
