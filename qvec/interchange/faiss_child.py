"""The process that reads a faiss index for :class:`qvec.interchange.faiss.FaissSource`: ``FILE`` is its argument.

It writes a JSON line that describes the index, and the ids as int64. It then answers each line ``START STOP`` of its
standard input with a JSON line and the rows as float32. A line with ``error`` is an answer without data.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from qvec.common.errors import InputError
from qvec.common.extras import require
from qvec.interchange.base import Matrix

Read = Callable[[int, int], Matrix]


def main(path: Path) -> None:
    """Serve the rows of one file until standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # faiss may print
    try:
        faiss = require("faiss")
        index = _opened(faiss, path)
        metrics = {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "ip"}
        if index.metric_type not in metrics:
            names = [name for name in dir(faiss) if name.startswith("METRIC_")]
            name = next((name for name in names if getattr(faiss, name) == index.metric_type), index.metric_type)
            raise InputError(
                f"{path} has the metric {name}; qvec has cosine, ip and l2, which are METRIC_INNER_PRODUCT "
                f"and METRIC_L2 of faiss"
            )
        read, ids, stored = _reader(faiss, index, str(path))
    except InputError as error:
        _answer(out, {"error": str(error)})
        return
    shape = {"dim": index.d, "rows": int(index.ntotal), "metric": metrics[index.metric_type], "stored": stored}
    _answer(out, {**shape, "ids": ids is not None}, None if ids is None else np.asarray(ids, np.int64))
    for line in sys.stdin:
        start, stop = map(int, line.split())
        try:
            rows = read(start, stop)
        except RuntimeError as error:
            _answer(out, {"error": f"{path}: rows {start} to {stop} cannot be read: {error}"})
        else:
            _answer(out, {}, np.asarray(rows, np.float32))


def _answer(out: BinaryIO, head: dict[str, Any], data: NDArray[Any] | None = None) -> None:
    out.write(json.dumps(head).encode() + b"\n")
    if data is not None:
        out.write(np.ascontiguousarray(data).tobytes())
    out.flush()


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
        return read, ids if inner is None else _renamed(ids, inner, name), kept
    if hasattr(index, "refine_index"):
        return _reader(faiss, faiss.downcast_index(index.refine_index), name)
    if isinstance(index, faiss.IndexIVF) and not isinstance(index, faiss.IndexIVFFastScan):
        return _list_reader(faiss, index)
    return _row_reader(faiss, index, name), None, type(index).__name__


def _renamed(ids: NDArray[np.int64], inner: NDArray[np.int64], name: str) -> NDArray[np.int64]:
    """The ids of rows that an inverted index numbers itself.

    After ``remove_ids`` the inverted index has gaps in its numbers and the map of ids has none: faiss no longer knows
    which row has which id.
    """
    if not np.array_equal(np.sort(inner), np.arange(len(ids))):
        raise InputError(
            f"{name}: ids were removed from an IDMap over an inverted index, and faiss no longer knows which row has "
            f"which id: add the vectors to the inverted index itself with add_with_ids, or import them with their ids"
        )
    return ids[inner]


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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
