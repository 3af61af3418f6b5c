"""Interface of the readers of foreign files and databases."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qvec.common.errors import InputError
from qvec.common.types import MAX_DIM, IdKind, Metric, Payload

if TYPE_CHECKING:
    from qvec.filters.schema import Declared

Matrix = NDArray[Any]
Ids = NDArray[np.int64] | list[str]
MAX_INT_ID = 2**63 - 1


@dataclass(frozen=True)
class Batch:
    """Some rows. ``vectors``: real numbers [n, dim]. ``ids``: n, or None if rows have no ids."""

    vectors: Matrix
    ids: Ids | None
    payloads: list[Payload | None] | None


class Source(ABC):
    """Rows in a foreign format, which are read in bounded memory.

    ``rows``, ``dim``: shape of the vectors. ``metric``: metric of the foreign index, or None. ``id_kind``: None
    if rows have no ids. ``fields``: declared payload fields, if known. ``note``: describes what reading loses; "" if
    nothing.
    """

    name: str
    rows: int
    dim: int
    metric: Metric | None = None
    id_kind: IdKind | None = None
    fields: Mapping[str, Declared] = MappingProxyType({})
    note: str = ""

    @abstractmethod
    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all rows in order, up to ``size`` at a time."""

    @abstractmethod
    def sample(self, size: int) -> Matrix:
        """Return up to ``size`` vectors, spread over all rows, to train a code on."""

    def __repr__(self) -> str:
        shape = f"{self.rows} rows dim={self.dim} metric={self.metric} ids={self.id_kind}"
        return f"<{type(self).__name__} {self.name!r}: {shape}>"


def spread(rows: int, size: int) -> NDArray[np.int64]:
    """Return up to ``size`` row numbers, evenly spread from 0 to ``rows``."""
    return np.linspace(0, rows - 1, min(size, rows)).astype(np.int64)


def runs(rows: int, size: int, length: int) -> list[slice]:
    """Return slices of up to ``length`` rows, ``size`` in all, evenly spread: fewer calls than with single rows."""
    n = -(-min(size, rows) // length)
    bounds = [i * rows // n for i in range(n + 1)] if n else [0]
    return [slice(start, min(start + length, stop)) for start, stop in itertools.pairwise(bounds)]


def slices(rows: int, size: int) -> Iterator[slice]:
    """Yield consecutive slices of up to ``size`` rows."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def checked_dim(dim: int, where: str) -> int:
    """Return the dimension; InputError if a collection cannot have it."""
    if not 1 <= dim <= MAX_DIM:
        raise InputError(f"{where} has vectors of {dim} dimensions; the limits are 1 and {MAX_DIM}")
    return dim


def int_ids(ids: Matrix, where: str) -> NDArray[np.int64]:
    """Return integer ids as int64; InputError names the first id that a collection cannot have."""
    bad = np.flatnonzero((ids < 0) | (ids > MAX_INT_ID))
    if bad.size:
        raise InputError(f"{where}: row {bad[0]} has the id {ids[bad[0]]}; ids lie between 0 and {MAX_INT_ID}")
    return ids.astype(np.int64)
