"""The interface between the benchmark and a library."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from qvec.common.errors import InputError
from qvec.common.extras import require
from qvec.common.types import Float32Array, Metric, NDArray

Options = dict[str, Any]
Sweep = dict[str, Sequence[Any]]
EFS = (10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 56, 68, 80, 112, 160, 240, 400)
NPROBES = (1, 2, 4, 6, 10, 16, 24, 40, 64, 100, 160)


@dataclass(frozen=True)
class Calls:
    """Functions that search, as users of the library call them.

    ``one``: searches one query, [dim] or [1, dim] by the adapter's ``query_rank``. ``many``: searches [q, dim] in one
    call; None if the library cannot. ``ids``: extracts the ids from the answer of either.
    """

    one: Callable[[Float32Array], Any]
    many: Callable[[Float32Array], Any] | None
    ids: Callable[[Any], Any]


class Adapter(ABC):
    """One index of one library, created in the process that measures it.

    Vectors and queries are float32 and, under cosine, of length 1, so that a library without cosine can use the inner
    product. Ids are row numbers. ``defaults`` has all options.
    """

    module: ClassVar[str]
    package: ClassVar[str]  # name of the distribution
    metrics: ClassVar[tuple[str, ...]] = ("cosine", "ip", "l2")
    defaults: ClassVar[Options] = {}
    query_rank: ClassVar[int] = 1  # 1: a query is [dim]; 2: [1, dim]

    def __init__(self, metric: Metric, dim: int, folder: Path, options: Mapping[str, Any]) -> None:
        self.metric, self.dim, self.folder = metric, dim, folder
        self.options: Options = {**self.defaults, **options}

    @classmethod
    def check_options(cls, name: str, options: Mapping[str, Any]) -> None:
        """Raise InputError that names an unknown option, or a value whose type is not that of the default."""
        for key, value in options.items():
            if key not in cls.defaults:
                raise InputError(f"{name} has no option {key!r}; it has: {', '.join(cls.defaults) or 'none'}")
            wanted = type(cls.defaults[key])
            if not isinstance(value, wanted) and not (wanted is float and isinstance(value, int)):
                raise InputError(f"{name}: {key} is {value!r}; it is of type {wanted.__name__}")

    @property
    def inner(self) -> bool:
        """Whether the nearest neighbors have the largest inner product."""
        return self.metric != "l2"

    def imported(self) -> Any:
        """Import the library and return its module."""
        return require(self.module)

    @abstractmethod
    def build(self, base: Float32Array, threads: int) -> None:
        """Build the index of rows [n, dim], a map of a file."""

    @abstractmethod
    def sweep(self, k: int) -> Sweep:
        """Return the values of each search parameter, from fast to accurate; the points are their product."""

    @abstractmethod
    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        """Return functions that search at a point: single queries on one thread, batches on ``threads``."""

    def finish(self) -> int | None:
        """Save the index and prepare searches. Return the bytes on disk, or None if the library saves nothing."""
        return None

    def saved_bytes(self, save: Callable[[str], object]) -> int:
        """Return the bytes of the file that ``save`` writes to a path. The file is removed."""
        path = self.folder / "index"
        save(str(path))
        size = tree_bytes(path)
        path.unlink()
        return size

    def parts(self) -> dict[str, int]:
        """Return the bytes of the index by part, if the library reports them."""
        return {}

    def points(self, k: int, given: Mapping[str, Sequence[Any]]) -> list[Options]:
        """Return the points to measure. Values ``given`` for a parameter replace the adapter's own."""
        sweep = self.sweep(k)
        lists = [given.get(name, values) for name, values in sweep.items()]
        return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*lists)]


def widths(k: int) -> list[int]:
    """Return values of ef, from ``k`` on."""
    return sorted({max(k, ef) for ef in EFS} | {k * factor for factor in (2, 4, 8)})


def first(found: Any) -> Any:
    """Return the ids of an answer (ids, distances)."""
    return found[0]


def second(found: Any) -> Any:
    """Return the ids of an answer (distances, ids)."""
    return found[1]


def id_rows(found: Any, k: int) -> NDArray[np.int64]:
    """Return ids as int64 [queries, k]; shorter rows are padded with -1.

    Of unsigned ids the largest stands for no row, as in faiss and rabitqlib.
    """
    try:
        ids = np.asarray(found).reshape(-1)
        if ids.dtype.kind == "u":
            ids = ids.view(f"i{ids.dtype.itemsize}")
        if ids.dtype.kind == "i" and len(ids) % k == 0:
            return ids.astype(np.int64).reshape(-1, k)
    except ValueError:  # rows of different lengths
        pass
    rows = found if len(found) and np.ndim(found[0]) else [found]
    return np.array([(list(row) + [-1] * k)[:k] for row in rows], np.int64).reshape(-1, k)


def tree_bytes(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
