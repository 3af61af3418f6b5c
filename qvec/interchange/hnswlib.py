"""Index files of hnswlib, mapped and parsed here: hnswlib is not needed, and does not validate its files.

The file of ``save_index`` begins with 96 bytes: offset of level 0, capacity, count, bytes of an element, offsets of its
label and of its vector (u64 each), largest level and entry point (i32, u32), three degrees (u64), 1 / ln M (f64) and
ef_construction (u64). Elements follow: 4 bytes, the third with the deletion mark; links; vector (float32);
label (u64).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qvec.common.errors import InputError
from qvec.common.types import IdKind
from qvec.interchange.base import Batch, Matrix, Source, checked_dim, int_ids, slices, spread

HEADER = struct.Struct("<6QiI3QdQ")
_DELETED_BYTE, _DELETED = 2, 1


class HnswlibSource(Source):
    """Vectors and labels of an index of float32 vectors, without elements marked as deleted.

    Under cosine, hnswlib stores normalized vectors. The file has neither the original lengths nor the metric.
    """

    id_kind: IdKind | None = "int64"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        elements, self.dim = _mapped(path)
        alive = np.flatnonzero(elements["state"][:, _DELETED_BYTE] & _DELETED == 0)
        self._elements, self._alive = elements, alive
        self.rows = len(alive)

    def batches(self, size: int) -> Iterator[Batch]:
        for part in slices(self.rows, size):
            found = self._elements[self._alive[part]]
            yield Batch(found["vector"], int_ids(found["label"], self.name), None)

    def sample(self, size: int) -> Matrix:
        return np.asarray(self._elements[self._alive[spread(self.rows, size)]]["vector"])


def _mapped(path: Path) -> tuple[NDArray[np.void], int]:
    """Map the elements read-only; return them with their dimension. All numbers of the header are checked first."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER.size)
    if len(head) < HEADER.size:
        raise InputError(f"{path} has {size} bytes; the header of an hnswlib index has {HEADER.size}")
    level0, capacity, count, stride, label, vector, *_ = HEADER.unpack(head)
    width = label - vector
    sound = level0 == 0 and count <= capacity and 4 <= vector < label and width % 4 == 0 and stride == label + 8
    if not sound or HEADER.size + count * stride > size:
        raise InputError(f"{path} is not an hnswlib index of float32 vectors, or is truncated")
    dim = checked_dim(width // 4, str(path))
    names = ["state", "vector", "label"]
    formats = [("u1", (4,)), ("<f4", (dim,)), "<u8"]
    dtype = np.dtype({"names": names, "formats": formats, "offsets": [0, vector, label], "itemsize": stride})
    if count == 0:
        return np.empty(0, dtype), dim
    return np.memmap(path, dtype, "r", HEADER.size, count), dim
