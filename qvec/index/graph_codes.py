"""What a graph is linked by: codes, originals where codes are too coarse or too slow, and for a large batch copies.

Linking scores a thousand rows for each that is added. Originals are four bytes a dimension, and a row of codes with
centroids is held against all of these; int8 codes around one center tell the same neighbors from one another in
half of the time, and are gone when the batch is linked (docs/adr/0013).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from qvec._kernels import Codec, Column
from qvec.codes.registry import Quantizer
from qvec.codes.transforms import Transform
from qvec.common.parallel import mapped
from qvec.common.types import Codes, Float32Array, NDArray
from qvec.index.base import CodeColumn, IndexInput, Rows
from qvec.schema.bitmaps import bitmap_of, read_bitmap, rows_in
from qvec.schema.layout import CODES, LINKED, NODES, VECTORS, wide_column
from qvec.storage.store import block_geometry

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

PAGE = 4096
SEED = 1  # of the rotation, which takes dimensions of great range apart
SAMPLE = 4096  # rows whose mean is the center
STEP = 1024  # rows copied between two looks for Ctrl-C
MIN_ROWS = 1024  # of a batch that copies are made for,
COPIED_PER_ROW = 8  # and for each of its rows, rows that are copied at most


def linking_codes(
    quantizer: Quantizer, original_quantizer: Quantizer | None, columns: Mapping[str, Column]
) -> CodeColumn:
    """What rows are scored by while their index changes. Packed nodes are made of the codes, whatever these are."""
    if quantizer.coarse and original_quantizer is not None and NODES not in columns:
        return CodeColumn(original_quantizer.codec, columns[VECTORS])
    return CodeColumn(quantizer.codec, columns[CODES])


def batch_codes(data: IndexInput, rows: Rows, threads: int, pool: ThreadPoolExecutor) -> CodeColumn:
    """What to link a batch of rows by: what the data names, or copies of all that the graph will hold."""
    codes = data.codes
    slow = codes.column is data.columns.get(VECTORS) or codes.codec.n_centroids > 0
    if not slow or len(rows) < MIN_ROWS:
        return codes
    held = rows_in(read_bitmap(data.columns[LINKED], data.n) | bitmap_of(rows, data.n))
    if len(held) > COPIED_PER_ROW * len(rows):
        return codes
    return _copied(data, held, threads, pool)


def _copied(data: IndexInput, rows: NDArray[np.int64], threads: int, pool: ThreadPoolExecutor) -> CodeColumn:
    """int8 codes of rows, rotated, and where the metric allows for it of unit length and around their mean."""
    metric = data.codes.codec.metric
    transform = _transform(data.read_vectors(_some(rows)), metric)
    codec = Codec("int8", "ip" if metric == "ip" else "l2", transform.padded)
    spec = wide_column(CODES, codec.stride)
    geometry = block_geometry(spec.stride, PAGE, spec.min_pages, spec.max_pages)
    copies = Column("copies", spec.id, 0, spec.stride, *geometry, PAGE, writable=True)
    copies.resize(data.n)

    def copy(part: NDArray[np.int64]) -> Codes:
        return codec.encode(transform.apply(data.read_vectors(part)))

    parts = [rows[i : i + STEP] for i in range(0, len(rows), STEP)]
    for part, codes in zip(parts, mapped(copy, parts, threads, pool), strict=True):
        copies.put(part, codes)
    return CodeColumn(codec, copies)


def _transform(sample: Float32Array, metric: str) -> Transform:
    """Neighbors stay in order: unit vectors are as far apart as their cosines say, and a shift changes nothing."""
    dim, unit = sample.shape[1], metric == "cosine"
    if metric == "ip":
        return Transform(dim, False, None, SEED)
    plain = Transform(dim, unit, None, None).apply(sample)
    return Transform(dim, unit, plain.mean(axis=0, dtype=np.float64).astype(np.float32), SEED)


def _some(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[:: max(1, len(rows) // SAMPLE)]
