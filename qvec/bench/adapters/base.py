"""What the benchmark asks of a library."""

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
    """A search as its users call it, ready to be timed.

    ``one`` takes a query, [dim] or [1, dim] as the adapter says, ``many`` takes [q, dim] and answers it in one call
    (None where the library has no such call); ``ids`` gives the ids of what either returned.
    """

    one: Callable[[Float32Array], Any]
    many: Callable[[Float32Array], Any] | None
    ids: Callable[[Any], Any]


class Adapter(ABC):
    """One index of one library. Made in the process that measures it.

    The vectors it gets are float32 and, under cosine, of length 1, the queries too: a library without cosine uses the
    inner product. Ids are row numbers. All its options have defaults, and no others are taken.
    """

    module: ClassVar[str]
    package: ClassVar[str]  # as its distribution is called
    metrics: ClassVar[tuple[str, ...]] = ("cosine", "ip", "l2")
    defaults: ClassVar[Options] = {}
    query_rank: ClassVar[int] = 1  # 1: a query is [dim]; 2: [1, dim]

    def __init__(self, metric: Metric, dim: int, folder: Path, options: Mapping[str, Any]) -> None:
        self.metric, self.dim, self.folder = metric, dim, folder
        self.options: Options = {**self.defaults, **options}

    @classmethod
    def check_options(cls, name: str, options: Mapping[str, Any]) -> None:
        """InputError naming an option that there is not, or a value of another type than its default."""
        for key, value in options.items():
            if key not in cls.defaults:
                raise InputError(f"{name} has no option {key!r}; it has: {', '.join(cls.defaults) or 'none'}")
            wanted = type(cls.defaults[key])
            if not isinstance(value, wanted) and not (wanted is float and isinstance(value, int)):
                raise InputError(f"{name}: {key} is {value!r}; it is of type {wanted.__name__}")

    @property
    def inner(self) -> bool:
        """Whether neighbors are those of the largest inner product."""
        return self.metric != "l2"

    def imported(self) -> Any:
        """The imported module."""
        return require(self.module, "bench")

    @abstractmethod
    def build(self, base: Float32Array, threads: int) -> None:
        """Make the index of the rows [n, dim], a map of a file."""

    @abstractmethod
    def sweep(self, k: int) -> Sweep:
        """Values of each search parameter, from fast to good; the points are their product."""

    @abstractmethod
    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        """Search with the parameters of a point: single queries on one thread, a batch on ``threads``."""

    def settle(self) -> int | None:
        """Save the index and get ready to search it; bytes on disk, None where there is nothing to save."""
        return None

    def parts(self) -> dict[str, int]:
        """Bytes of the index by part, where the library tells."""
        return {}

    def points(self, k: int, given: Mapping[str, Sequence[Any]]) -> list[Options]:
        """The points to measure; values that are ``given`` for a parameter take the place of its own."""
        sweep = self.sweep(k)
        lists = [given.get(name, values) for name, values in sweep.items()]
        return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*lists)]


def widths(k: int) -> list[int]:
    """Values of ef: none below ``k``, and up to eight times it."""
    return sorted({max(k, ef) for ef in EFS} | {k * factor for factor in (2, 4, 8)})


def first(found: Any) -> Any:
    """Ids of a library that returns them before distances."""
    return found[0]


def second(found: Any) -> Any:
    """Ids of a library that returns them after distances."""
    return found[1]


def id_rows(found: Any, k: int) -> NDArray[np.int64]:
    """Ids as int64 [queries, k]; -1 fills rows that are shorter."""
    try:
        ids = np.asarray(found).reshape(-1)
        if ids.dtype.kind in "iu" and len(ids) % k == 0:
            return ids.astype(np.int64).reshape(-1, k)
    except ValueError:  # rows of different lengths
        pass
    rows = found if len(found) and np.ndim(found[0]) else [found]
    return np.array([(list(row) + [-1] * k)[:k] for row in rows], np.int64).reshape(-1, k)


def tree_bytes(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
