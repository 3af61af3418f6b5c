"""The columns of a collection: their names, their ids in the file, and their shapes, which depend on the codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qvec._kernels import Codec, Column
from qvec.codes.registry import Quantizer
from qvec.schema.bitmaps import WORD_BYTES
from qvec.storage.store import ColumnSpec, block_geometry

CODES = "codes"
VECTORS = "vectors"
IDS = "ids"
DELETED = "deleted"
ADJACENCY = "adjacency"
NODES = "nodes"
LINKED = "linked"  # bitmap: rows that adjacency lists may contain
REMOVING = "removing"  # bitmap: linked rows that a repair is removing
LIST_BLOCKS = "list_blocks"  # inverted lists: entries in blocks of 32, lists, centroids, entries of each row
LISTS = "lists"
CENTROIDS = "centroids"
SLOTS = "slots"
FIELD = "field"  # one for each field with ordered values; its generation is the field's number
POSTINGS = "postings"  # of text and sparse fields: segments of posting lists, and bitmaps of their rows
SEGMENT_ROWS = "segment_rows"
LENGTHS = "lengths"  # of text fields: the number of tokens of each row
FIELD_COLUMNS = FIELD, POSTINGS, SEGMENT_ROWS, LENGTHS

QUANTIZER = 1  # record kinds: a quantizer's state, by generation; a row's payload and string id, by row
ROW = 2
DRIFT = 3  # statistics of added vectors since training, by generation
TUNING = 4  # number 0: recall curves; 1 and up: the queries that they are measured on
CHANGES = 5  # a list of keys of ids that have changed during a re-embedding

_COLUMN_IDS = {
    CODES: 1, VECTORS: 2, IDS: 3, DELETED: 4, ADJACENCY: 5, NODES: 6, FIELD: 15, LINKED: 16, REMOVING: 17,
    LIST_BLOCKS: 20, LISTS: 21, CENTROIDS: 22, SLOTS: 23, POSTINGS: 24, SEGMENT_ROWS: 25, LENGTHS: 26,
}  # fmt: skip
INDEX_COLUMNS = (ADJACENCY, NODES, LINKED, REMOVING, LIST_BLOCKS, LISTS, CENTROIDS, SLOTS)  # of any index
_ID_BYTES = 8
ROW_SUM_BYTES = 4
COPIED_ROWS = 8192  # at a time
PAGE_BYTES = 4096  # assumed if no file is known


def wide_column(name: str, stride: int) -> ColumnSpec:
    """Return a column whose rows are read in large numbers. Blocks have 4 to 16 pages: the number that wastes least."""
    return ColumnSpec(_COLUMN_IDS[name], stride, min_pages=4, max_pages=16)


def code_column(name: str, codec: Codec) -> ColumnSpec:
    """Return a column of rows of a codec. A row whose padding has room for a checksum can be read alone."""
    return replace(wide_column(name, codec.stride), row_sums=codec.spare_bytes >= ROW_SUM_BYTES)


def block_column(name: str, stride: int) -> ColumnSpec:
    """Return a column of entries that are read in runs and changed singly.

    A change rewrites one block, at most 32 KiB.
    """
    pages = -(-(stride + 64) // PAGE_BYTES)
    return ColumnSpec(_COLUMN_IDS[name], stride, min_pages=pages, max_pages=max(pages, 8))


def narrow_column(name: str, stride: int, generation: int = 0) -> ColumnSpec:
    """Return a column whose rows are changed singly. Blocks have one page, so that a change rewrites little."""
    return ColumnSpec(_COLUMN_IDS[name], stride, min_pages=1, max_pages=1, generation=generation)


def column_of(name: str, stride: int, pages: int, generation: int) -> ColumnSpec:
    """Column with blocks of a number of pages."""
    return ColumnSpec(_COLUMN_IDS[name], stride, min_pages=pages, max_pages=pages, generation=generation)


def bitmap_column(name: str) -> ColumnSpec:
    """Return a column with one bit per row of the collection. A row of the column is one word of 64 bits."""
    return narrow_column(name, WORD_BYTES)


def column_in_memory(name: str, spec: ColumnSpec, n_rows: int = 0) -> Column:
    """A writable column that belongs to no file."""
    geometry = block_geometry(spec.stride, PAGE_BYTES, spec.min_pages, spec.max_pages)
    column = Column(name, spec.id, 0, spec.stride, *geometry, PAGE_BYTES, writable=True)
    column.resize(n_rows)
    return column


def copy_rows(source: Column, target: Column) -> None:
    """Copy all rows of a column to another of the same stride."""
    target.resize(source.n_rows)
    for start in range(0, source.n_rows, COPIED_ROWS):
        target.write(start, source.read_range(start, min(start + COPIED_ROWS, source.n_rows)))


def may_be(name: str, column: Column) -> bool:
    """Whether a column can be of the kind with this name. Originals can be f32 codes."""
    return name not in _COLUMN_IDS or column.id in (_COLUMN_IDS[name], _COLUMN_IDS[CODES] if name == VECTORS else -1)


def active_columns(columns: Mapping[str, Column], names: Mapping[str, str]) -> dict[str, Column]:
    """Columns under their own names. ``names``: the stored names of columns that are stored under another name; "": the
    generation has no such column."""
    named = {**columns, **{name: columns[stored] for name, stored in names.items() if stored}}
    return {name: column for name, column in named.items() if names.get(name) != ""}


def row_columns(quantizer: Quantizer, original_quantizer: Quantizer | None, int_ids: bool) -> dict[str, ColumnSpec]:
    """Return the columns that every vector has, with any index."""
    columns = {CODES: code_column(CODES, quantizer.codec), DELETED: bitmap_column(DELETED)}
    if original_quantizer is not None:
        columns[VECTORS] = code_column(VECTORS, original_quantizer.codec)
    if int_ids:
        columns[IDS] = narrow_column(IDS, _ID_BYTES)
    return columns
