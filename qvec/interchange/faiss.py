"""Index files of faiss: vectors are reconstructed from what the index stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvec.common.errors import InputError
from qvec.common.extras import require
from qvec.common.types import IdKind, Metric
from qvec.interchange.base import Batch, Matrix, Source, checked_dim, int_ids, runs, slices

EXTRA = "faiss"
ROWS_PER_SAMPLE_CALL = 64
Read = Callable[[int, int], Matrix]
_EXACT = ("IndexFlat", "IndexIVFFlat", "IndexHNSWFlat", "IndexNSGFlat")


class FaissSource(Source):
    """An index of float vectors. If it stores codes (SQ, PQ), they are decoded, and ``note`` says so."""

    def __init__(self, path: Path) -> None:
        self._faiss = faiss = require("faiss", EXTRA)
        self.name = str(path)
        self._index = index = _opened(faiss, path)  # owns the parts used below
        self.dim, self.rows = checked_dim(index.d, self.name), int(index.ntotal)
        metrics: dict[int, Metric] = {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "ip"}
        self.metric = metrics.get(index.metric_type)
        self._read, self._ids, kept = _reader(faiss, index, self.name)
        self.id_kind: IdKind | None = None if self._ids is None else "int64"
        self.note = "" if kept.startswith(_EXACT) else f"vectors are decoded from the codes of {kept}"

    def batches(self, size: int) -> Iterator[Batch]:
        for part in slices(self.rows, size):
            ids = None if self._ids is None else int_ids(self._ids[part], self.name)
            yield Batch(self._read(part.start, part.stop), ids, None)

    def sample(self, size: int) -> Matrix:
        parts = [self._read(part.start, part.stop) for part in runs(self.rows, size, ROWS_PER_SAMPLE_CALL)]
        return np.concatenate(parts)[:size] if parts else np.empty((0, self.dim), np.float32)


def _opened(faiss: Any, path: Path) -> Any:
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:  # the only exception of faiss
        raise InputError(f"{path} is not an index of float vectors that faiss can read: {error}") from error


def _reader(faiss: Any, index: Any, name: str) -> tuple[Read, NDArray[np.int64] | None, str]:
    """A function that reads rows [start, stop), the ids of all rows, and the class that stores the vectors."""
    if hasattr(index, "id_map"):
        read, inner, kept = _reader(faiss, faiss.downcast_index(index.index), name)
        ids = faiss.vector_to_array(index.id_map)
        return read, ids if inner is None else ids[inner], kept
    if hasattr(index, "refine_index"):
        return _reader(faiss, faiss.downcast_index(index.refine_index), name)
    if isinstance(index, faiss.IndexIVF) and not isinstance(index, faiss.IndexIVFFastScan):
        return _list_reader(faiss, index)
    return _row_reader(faiss, index, name), None, type(index).__name__


def _list_reader(faiss: Any, index: Any) -> tuple[Read, NDArray[np.int64], str]:
    """Read rows in the order of the inverted lists. Decoding needs the number of the list with the code."""
    lists, prefix = index.invlists, index.coarse_code_size()
    sizes = [lists.list_size(i) for i in range(index.nlist)]
    stops = np.cumsum(sizes)

    def array(pointer: Any, size: int) -> Any:  # a view, which the caller copies
        return faiss.rev_swig_ptr(pointer, size) if size else np.empty(0, np.uint8)

    def part(i: int, start: int, stop: int) -> Matrix:
        codes = array(lists.get_codes(i), sizes[i] * lists.code_size).reshape(-1, lists.code_size)[start:stop]
        number = np.frombuffer(i.to_bytes(prefix, "little"), np.uint8)
        return np.asarray(index.sa_decode(np.hstack([np.tile(number, (len(codes), 1)), codes])))

    def read(start: int, stop: int) -> Matrix:
        first, last = np.searchsorted(stops, [start, stop - 1], "right")
        begins = stops - sizes
        parts = [part(i, max(0, start - begins[i]), stop - begins[i]) for i in range(first, last + 1) if sizes[i]]
        return np.concatenate(parts)

    ids = [array(lists.get_ids(i), size) for i, size in enumerate(sizes) if size]
    return read, np.concatenate([np.empty(0, np.int64), *ids]), type(index).__name__


def _row_reader(faiss: Any, index: Any, name: str) -> Read:
    """Read rows by number. One row is tried first, as faiss aborts the process on an error with several."""
    try:
        inner = faiss.try_extract_index_ivf(index)
        if inner is not None:
            inner.make_direct_map()
        if index.ntotal:
            index.reconstruct(0)
    except RuntimeError as error:
        raise InputError(f"{name}: {type(index).__name__} cannot reconstruct its vectors: {error}") from error
    return lambda start, stop: np.asarray(index.reconstruct_n(start, stop - start))
