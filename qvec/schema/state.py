"""The state of a collection, which every commit stores: typed records with their limits (docs/format.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from qvec.codes.configs import CodeConfig, IndexConfig
from qvec.codes.registry import code_from_dict, code_to_dict, index_from_dict, index_to_dict
from qvec.common.errors import CorruptError, FormatError, InputError
from qvec.common.plain_state import Between, Coder, RowNumbers, decode
from qvec.common.types import FieldType, NDArray
from qvec.schema.fusion import MAX_FUSIONS, TunedFusion
from qvec.schema.postings import PostingsState
from qvec.schema.validation import MAX_ROWS

MAX_GENERATIONS = 65_536  # the keys of blocks hold 16 bits of a generation, and of a field's number
MAX_CODE_BYTES = 1 << 20
RECLUSTER_GROWTH = 4  # centroids are trained again when the number of vectors has grown by this factor
MAX_CHANGES = (1 << 32) - 1  # numbers of records
MAX_LISTED_ROWS = 4096  # limit of an array of rows in the state
NO_ROWS = np.zeros(0, np.uint32)

Rows = NDArray[np.uint32]
Count = Annotated[int, Between(0, MAX_ROWS)]
Number = Annotated[int, Between(0, MAX_GENERATIONS - 1)]
Text = Annotated[str, Between(0, 1024)]
ColumnNames = Mapping[str, Text]
"""Columns that are stored under another name than their own: own name -> stored name; "": there is no such column."""
OwnIndex = Annotated[IndexConfig, Coder(index_from_dict, index_to_dict)] | None
"""The options of an index that was chosen after creation; None: those of the configuration."""


@dataclass(frozen=True, slots=True)
class FlatState:
    """The state of a flat index, which is empty."""

    kind: Literal["flat"] = "flat"
    tombstones: ClassVar[int] = 0

    def contains(self, live: int) -> int:
        """How many of ``live`` live rows the index contains."""
        return live


@dataclass(frozen=True, slots=True, eq=False)
class GraphState:
    """The state of a graph: everything except its adjacency lists.

    ``indexed``: number of rows in the graph. ``tombstones``: how many of these are deleted. ``root``: root of the
    spanning tree. ``entries``: rows where walks start, including the root; ``entries_chosen_at``: ``indexed`` when they
    were chosen. ``repair_cursor``: the next row that the unfinished repair visits, or None. ``pending_rows``: rows with
    pending reverse edges, in the order of insertion; ``pending_in_sweep``: how many of them were pending when the
    current sweep over all lists began; ``reverse_edge_cursor``: the row at which the next step of the sweep begins.
    """

    kind: Literal["hnsw"] = "hnsw"
    indexed: Annotated[int, Between(0, "n")] = 0
    tombstones: Annotated[int, Between(0, "indexed")] = 0
    root: Count = 0
    entries: Annotated[Rows, RowNumbers("n", MAX_LISTED_ROWS)] = field(default_factory=lambda: NO_ROWS)
    entries_chosen_at: Count = 0
    repair_cursor: Annotated[int, Between(0, "n")] | None = None
    pending_rows: Annotated[Rows, RowNumbers(MAX_ROWS, MAX_LISTED_ROWS)] = field(default_factory=lambda: NO_ROWS)
    pending_in_sweep: Annotated[int, Between(0, "pending_rows")] = 0
    reverse_edge_cursor: Count = 0

    def contains(self, live: int) -> int:
        """How many of the live rows are linked."""
        return self.indexed - self.tombstones


@dataclass(frozen=True, slots=True)
class ListLayout:
    """The state of inverted lists: everything except their columns.

    ``seed``: seed of the rotation. ``clustered_at``: number of vectors when the centroids were trained.
    ``listed``: number of rows that are in lists. ``n_blocks``: number of blocks; ``n_free`` of them are in the chain of
    free blocks, which begins at ``free_block``.
    """

    dim: Annotated[int, Between(1, 1 << 16)]
    metric: Literal["cosine", "ip", "l2"]
    seed: Annotated[int, Between(0, (1 << 64) - 1)]
    n_lists: Annotated[int, Between(1, MAX_ROWS)]
    clustered_at: Count
    listed: Annotated[int, Between(0, "n")]
    n_blocks: Annotated[int, Between(1, MAX_ROWS)]
    n_free: Annotated[int, Between(0, "n_blocks")] = 0
    free_block: Annotated[int, Between(0, 0xFFFFFFFF)] = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ListsState:
    """The state of inverted lists. ``lists``: None before the first vectors are indexed."""

    kind: Literal["ivf"] = "ivf"
    lists: ListLayout | None = None
    tombstones: ClassVar[int] = 0

    def contains(self, live: int) -> int:
        """How many of the live rows are in lists."""
        return 0 if self.lists is None else self.lists.listed

    def is_outgrown(self, live: int) -> bool:
        """Whether ``live`` rows are too many for the centroids."""
        return self.lists is not None and live >= RECLUSTER_GROWTH * self.lists.clustered_at


IndexState = FlatState | GraphState | ListsState


@dataclass(frozen=True, slots=True)
class InactiveCodes:
    """The codes and the graph of an inactive generation.

    ``rows``: rows 0 to ``rows - 1`` have a code; 0: the codes were discarded or never made. ``index``: the state of
    its graph, None if it shares the active graph; that graph covers rows 0 to ``indexed_rows - 1``. ``own_index``: the
    options of its index.
    """

    rows: Count = 0
    column_names: ColumnNames = field(default_factory=dict)
    index: IndexState | None = None
    indexed_rows: Annotated[int, Between(0, "n")] = 0
    own_index: OwnIndex = None


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """A trained quantizer with a number, which is never reused, and the codes made with it.

    ``id``: hash of the quantizer. ``n_samples``: size of the training sample. ``was_active``: whether it has ever been
    the active generation. ``inactive``: its codes; None for the active generation, whose codes :class:`State`
    describes.
    """

    number: Number
    code: Annotated[CodeConfig, Coder(code_from_dict, code_to_dict)]
    id: Text
    code_size: Annotated[int, Between(1, MAX_CODE_BYTES)]
    model: Text | None
    created: Text
    n_samples: Annotated[int, Between(0, (1 << 63) - 1)]
    was_active: bool = False
    inactive: InactiveCodes = field(default_factory=InactiveCodes)


@dataclass(frozen=True, slots=True)
class PendingGeneration:
    """The generation that is being built. ``relink``: whether it gets a new graph; "auto": not yet decided."""

    number: Number
    relink: Literal[True, False, "auto"]
    built: InactiveCodes


@dataclass(frozen=True, slots=True)
class Oversample:
    """Default number of candidates that searches re-rank per hit while ``generation`` is active."""

    generation: Number
    factor: Annotated[int, Between(1, MAX_ROWS)]


@dataclass(frozen=True, slots=True)
class Tuned:
    """Conditions of the measurement of recall curves: the generation, the kind of index, and the number of rows."""

    generation: Number
    index: Text
    n: Count


@dataclass(frozen=True, slots=True)
class FieldDeclaration:
    """A declared field of payloads. ``number`` identifies it in the file; ``postings``: of text and sparse fields."""

    number: Number
    type: FieldType
    postings: PostingsState | None = None


@dataclass(frozen=True, slots=True)
class Reembedding:
    """A second collection next to this one, for another embedding model.

    ``stage``: "copying" while it is built; "replaced" if this one has replaced it. ``field``: the payload key of the
    texts. ``copied``: the key of the last id that was copied, in hexadecimal. Records ``first_change`` to
    ``next_change - 1`` hold the ids that have changed since the copy began, or since the replacement.
    """

    stage: Literal["copying", "replaced"]
    field: Text
    copied: Text = ""
    next_change: Annotated[int, Between(0, MAX_CHANGES)] = 0
    first_change: Annotated[int, Between(0, "next_change")] = 0


@dataclass(frozen=True, slots=True)
class State:
    """The state of a collection. The default values are those of an empty collection.

    ``n``: number of rows, including unused rows; ``live``: rows that are not deleted; ``records``: live rows with a
    record (payload or string id). ``next_id``: the first integer id that was never assigned. ``active``: the number of
    the active generation, None before the first vectors; ``column_names``: of its columns; ``own_index``: options of
    its index.
    ``pending``: the generation that is being built. ``small_batches``: counts batches that are too small to be checked
    for drift alone. ``next_field``: the first number that no field ever had. ``partial_fields``: fields that are being
    added or dropped; their indexes cover the rows below a number, and searches do not use them. ``fusions``: how the
    lists of several inputs are joined by default. ``erasing``: deleted data must still be overwritten
    (Collection.erase). ``expires``: the field of datetimes at which rows expire; None: they do not. ``indexing``: an
    index of all rows is being built from a snapshot; until it is stored, rows are not reused.
    ``reembedding``: the collection for another embedding model next to this one.
    """

    n: Count = 0
    live: Annotated[int, Between(0, "n")] = 0
    records: Annotated[int, Between(0, "live")] = 0
    next_id: Annotated[int, Between(0, 1 << 63)] = 0
    active: Number | None = None
    column_names: ColumnNames = field(default_factory=dict)
    next_generation: Annotated[int, Between(0, MAX_GENERATIONS)] = 0
    generations: tuple[GenerationRecord, ...] = ()
    pending: PendingGeneration | None = None
    index: IndexState = field(default_factory=FlatState)
    own_index: OwnIndex = None
    oversample: Oversample | None = None
    tuned: Tuned | None = None
    small_batches: Annotated[int, Between(0, 1 << 62)] = 0
    next_field: Annotated[int, Between(0, MAX_GENERATIONS)] = 0
    fields: Mapping[str, FieldDeclaration] = field(default_factory=dict)
    partial_fields: Mapping[str, Count] = field(default_factory=dict)
    fusions: Annotated[tuple[TunedFusion, ...], Between(0, MAX_FUSIONS)] = ()
    erasing: bool = False
    expires: Text | None = None
    indexing: bool = False
    reembedding: Reembedding | None = None

    @property
    def unindexed(self) -> int:
        """The number of live rows that the index does not contain yet. Searches score all of them."""
        return self.live - self.index.contains(self.live)

    @property
    def complete_fields(self) -> dict[str, FieldDeclaration]:
        """The declared fields that cover every row."""
        return {name: one for name, one in self.fields.items() if name not in self.partial_fields}

    def generation(self, number: object) -> GenerationRecord:
        """Return the record of a generation. InputError lists the existing numbers."""
        for record in self.generations:
            if record.number == number:
                return record
        numbers = ", ".join(str(record.number) for record in self.generations) or "none"
        raise InputError(f"there is no generation {number!r}; the collection has: {numbers}")

    def with_generation(self, changed: GenerationRecord) -> State:
        """Return the state with another record for one of its generations."""
        records = [changed if record.number == changed.number else record for record in self.generations]
        return replace(self, generations=tuple(records))


def empty_state(fields: Mapping[str, FieldDeclaration], expires: str | None = None) -> State:
    """Return the state of an empty collection with declared fields."""
    return State(fields=dict(fields), next_field=len(fields), expires=expires)


def decode_state(stored: dict[str, Any]) -> State:
    """Decode the state that a commit stored. CorruptError names the wrong field."""
    try:
        return decode(State, stored, "state")
    except (FormatError, InputError) as error:
        raise damaged(error) from error


def damaged(error: Exception) -> CorruptError:
    """Return the error to raise for an invalid state."""
    return CorruptError(f"the state of the collection is damaged: {error}")
