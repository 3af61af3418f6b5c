"""The codes with which rows are compared while they are linked into a graph.

Linking scores about a thousand rows for each added row. Originals (four bytes per dimension) and codes with local
centroids are slow to score. Large batches are therefore linked with temporary int8 copies that have a single center:
these rank neighbors in the same order and take half of the time (ADR 13).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qvec._kernels import Codec, Column
from qvec.codes.transforms import Transform
from qvec.common.parallel import map_parts
from qvec.common.types import Codes, Float32Array, NDArray
from qvec.index.base import CodeColumn, IndexInput
from qvec.schema.bitmaps import bitmap_of, read_bitmap, rows_in
from qvec.schema.layout import CODES, LINKED, NODES, VECTORS, column_in_memory, wide_column
from qvec.schema.quantizers import Quantizers
from qvec.schema.state import Rows

MIN_BATCH_ROWS = 1024  # smaller batches are linked without copies
MAX_COPIES_PER_ROW = 64  # copies are made if the graph has at most this many rows for each row of the batch
CENTER_SAMPLE_ROWS = 4096  # rows whose mean becomes the center
COPIED_ROWS_PER_STEP = 1024  # between two checks for Ctrl-C
ROTATION_SEED = 1  # the rotation spreads dimensions with a large range


def linking_codes(quantizers: Quantizers, columns: Mapping[str, Column]) -> CodeColumn:
    """Return the stored codes, or originals if the codes are too coarse for linking.

    Packed nodes always use the codes.
    """
    if quantizers.codes.coarse and quantizers.originals is not None and NODES not in columns:
        return CodeColumn(quantizers.originals.codec, columns[VECTORS])
    return CodeColumn(quantizers.codes.codec, columns[CODES])


def batch_codes(data: IndexInput, rows: Rows, threads: int) -> CodeColumn:
    """Return the codes for linking a batch: those of the input, or int8 copies of all rows of the resulting graph."""
    codes = data.codes
    slow = codes.column is data.columns.get(VECTORS) or codes.codec.n_centroids > 0
    if not slow or len(rows) < MIN_BATCH_ROWS:
        return codes
    graph_rows = rows_in(read_bitmap(data.columns[LINKED], data.n) | bitmap_of(rows, data.n))
    return _int8_copies(data, graph_rows, threads) if len(graph_rows) <= MAX_COPIES_PER_ROW * len(rows) else codes


def is_scaled_int8(codec: Codec) -> bool:
    """Whether codes are int8 with one scale per row, so that dot products of vectors follow from those of codes."""
    return codec.kind == "int8" and not codec.has_ranges


def partition_codes(data: IndexInput, rows: NDArray[np.int64], threads: int) -> CodeColumn:
    """Return the codes for a build from partitions: stored int8 codes with one scale per row, or int8 copies."""
    if is_scaled_int8(data.codes.codec):
        return data.codes
    return _int8_copies(data, rows, threads)


def _int8_copies(data: IndexInput, rows: NDArray[np.int64], threads: int) -> CodeColumn:
    """Make int8 codes of the rows in memory: rotated, centered (not under "ip"), of unit length under "cosine"."""
    metric = data.codes.codec.metric
    sample = data.read_vectors(rows[:: max(1, len(rows) // CENTER_SAMPLE_ROWS)])
    transform = _order_keeping_transform(sample, metric)
    codec = Codec("int8", "ip" if metric == "ip" else "l2", transform.padded)
    copies = column_in_memory("copies", wide_column(CODES, codec.stride), data.n)

    def encode(part: NDArray[np.int64]) -> Codes:
        return codec.encode(transform.apply(data.read_vectors(part)))

    parts = [rows[i : i + COPIED_ROWS_PER_STEP] for i in range(0, len(rows), COPIED_ROWS_PER_STEP)]
    for part, codes in zip(parts, map_parts(encode, parts, threads), strict=True):
        copies.put(part, codes)
    return CodeColumn(codec, copies)


def _order_keeping_transform(sample: Float32Array, metric: str) -> Transform:
    """Return a transform that preserves the order of neighbors: L2 orders unit vectors as cosine does, and ignores
    shifts."""
    dim, unit = sample.shape[1], metric == "cosine"
    if metric == "ip":
        return Transform(dim, False, None, ROTATION_SEED)
    plain = Transform(dim, unit, None, None).apply(sample)
    return Transform(dim, unit, plain.mean(axis=0, dtype=np.float64).astype(np.float32), ROTATION_SEED)
