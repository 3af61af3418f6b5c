"""Cross-check a commit's state against its configuration and columns.

Every commit is checked before a handle uses its state, because a crafted file can have valid checksums. The decoder
(qvec/schema/state.py) checks types and ranges of single fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qvec._kernels import Column
from qvec.codes.configs import HNSW, IVF, Flat, IndexConfig
from qvec.common.errors import CorruptError, FormatError, InputError
from qvec.common.plain_state import encode
from qvec.schema.bitmaps import words_for
from qvec.schema.config import Config
from qvec.schema.fusion import check_fusions
from qvec.schema.layout import (
    ADJACENCY,
    CENTROIDS,
    CODES,
    DELETED,
    IDS,
    LINKED,
    LIST_BLOCKS,
    LISTS,
    NODES,
    REMOVING,
    SLOTS,
    VECTORS,
    active_columns,
    may_be,
)  # fmt: skip
from qvec.schema.quantizers import original_quantizer
from qvec.schema.state import (
    GenerationRecord,
    GraphState,
    InactiveCodes,
    IndexState,
    ListsState,
    State,
    damaged,
    decode_state,
)
from qvec.storage.store import StateCodec

Columns = Mapping[str, Column]
Sizes = dict[str, tuple[int, int | None]]
"""The least number of rows of each column, and its bytes per row (None: any)."""


def state_codec(stored_config: Mapping[str, Any]) -> StateCodec:
    """Return the codec for the states of a collection with this configuration."""
    config = Config.from_dict(dict(stored_config))
    vector_bytes = original_quantizer(config).code_size

    def decode(stored: dict[str, Any], columns: Columns) -> State:
        state = decode_state(stored)
        check_state(config, vector_bytes, state, columns)
        return state

    return StateCodec(decode, encode)


def check_state(config: Config, vector_bytes: int, state: State, columns: Columns) -> None:
    """Raise CorruptError, which names the wrong value. ``vector_bytes``: bytes of a stored original."""
    try:
        _check_numbers(state)
        check_fusions(state.fusions)
        _check_index(state.index, state.own_index or config.index, config, state.n)
        if state.unindexed < 0:
            raise FormatError(f"the index has {state.live - state.unindexed} live rows of {state.live}")
        for record in state.generations:
            if record.inactive.rows:
                _check_inactive(record.inactive, record, columns, config, state.n)
        if state.pending is not None:
            _check_inactive(state.pending.built, state.generation(state.pending.number), columns, config, state.n)
        if state.fields or state.partial_fields:
            _check_fields(state, columns)
        if state.expires is not None and getattr(state.fields.get(state.expires), "type", None) != "datetime":
            raise FormatError(f"field 'expires' is {state.expires!r}, which is no field of datetimes")
        if state.active is not None:
            code_size = state.generation(state.active).code_size
            _check_columns(_named(state.column_names, columns), config, state, code_size, vector_bytes)
        if config.ids == "str" and state.records != state.live:
            raise FormatError(f"field 'records' is {state.records}: each of {state.live} vectors has one, its id")
    except KeyError as error:
        raise CorruptError(f"the state of the collection is damaged: column {error} is missing") from error
    except (FormatError, InputError) as error:
        raise damaged(error) from error


def _check_numbers(state: State) -> None:
    numbers = {record.number for record in state.generations}
    if len(numbers) < len(state.generations) or max(numbers, default=-1) >= state.next_generation:
        raise FormatError(f"field 'generations' must have numbers below {state.next_generation}, each once")
    if state.active is None and state.n:
        raise FormatError(f"field 'active' is nil, and {state.n} rows are stored")
    if state.active not in {None, *numbers}:
        raise FormatError(f"field 'active' is {state.active}, which is no generation")
    if state.pending is not None and (state.pending.number not in numbers or state.pending.number == state.active):
        raise FormatError(f"field 'pending' is of generation {state.pending.number}")


def _named(names: Mapping[str, str], columns: Columns) -> dict[str, Column]:
    """Return columns under their own names.

    ``names``: the stored names of columns that are stored under other names.
    """
    for stored in names.values():
        if stored and stored not in columns:
            raise FormatError(f"field 'column_names' names the column {stored!r}, which is not there")
    named = active_columns(columns, names)
    for own, column in named.items():
        if not may_be(own, column):
            raise FormatError(f"field 'column_names' has {column.name!r} for {own!r}, which holds something else")
    return named


def _check_inactive(codes: InactiveCodes, record: GenerationRecord, columns: Columns, config: Config, n: int) -> None:
    named = _named(codes.column_names, columns)
    column, size = named[CODES], record.code_size
    if column.n_rows < codes.rows or column.stride != size:
        raise FormatError(
            f"generation {record.number} has {codes.rows} rows of {size} bytes,"
            f" its column {column.n_rows} of {column.stride}"
        )
    if codes.index is not None:
        index_config = codes.own_index or config.index
        _check_index(codes.index, index_config, config, n)
        wanted = _of_index(index_config, codes.index, n)
        _check_room(named, {name: (0, stride) for name, (_, stride) in wanted.items()}, n)


def _check_columns(
    named: Mapping[str, Column], config: Config, state: State, code_size: int, vector_bytes: int
) -> None:
    """Check that the active columns exist, and have room for n rows of the right size."""
    n, index_config = state.n, state.own_index or config.index
    wanted: Sizes = {
        CODES: (n, code_size),
        DELETED: (words_for(n), 8),
        **_of_index(index_config, state.index, n),
    }
    optional: Sizes = {NODES: (0, None)} if ADJACENCY in wanted else {}
    (wanted if config.keeps_originals else optional)[VECTORS] = n, vector_bytes
    if config.ids == "int64":
        wanted[IDS] = n, 8
    elif IDS in named:
        raise FormatError(f"ids are strings, which column {IDS!r} does not hold")
    _check_room(named, wanted | {name: size for name, size in optional.items() if name in named}, n)


def _of_index(config: IndexConfig | None, index: IndexState, n: int) -> Sizes:
    """The columns that an index needs; whether packed nodes fit its codes is checked where they are read."""
    if isinstance(index, GraphState) and index.indexed:
        degree = 2 * (config if isinstance(config, HNSW) else HNSW()).m
        return {ADJACENCY: (n, 4 * degree), LINKED: (words_for(n), 8), REMOVING: (words_for(n), 8)}
    if isinstance(config, IVF) and isinstance(index, ListsState) and index.lists is not None:
        return {SLOTS: (n, 4 * config.copies), LISTS: (0, None), LIST_BLOCKS: (0, None), CENTROIDS: (0, None)}
    return {}


def _check_room(named: Mapping[str, Column], wanted: Sizes, n: int) -> None:
    for name, (rows, stride) in wanted.items():
        column = named[name]
        if column.n_rows < rows or stride not in (None, column.stride):
            raise FormatError(f"column {name!r} holds {column.n_rows} rows of {column.stride} bytes for {n} vectors")


def _check_index(index: IndexState, index_config: IndexConfig | None, config: Config, n: int) -> None:
    kinds = (Flat.kind, HNSW.kind) if index_config is None else (Flat.kind, index_config.kind)
    if index.kind not in kinds:
        raise FormatError(f"field 'kind' of the index must be one of {', '.join(kinds)}; got {index.kind!r}")
    if isinstance(index, GraphState) and index.indexed:
        if index.root >= n:
            raise FormatError(f"field 'root' must be an integer from 0 to {n - 1}, got {index.root}")
        if not len(index.entries):
            raise FormatError("field 'entries' must hold one row or more")
    lists = index.lists if isinstance(index, ListsState) else None
    if lists is not None and (lists.dim, lists.metric) != (config.dim, config.metric):
        raise FormatError(f"lists are of {lists.dim} dimensions under {lists.metric!r}")


def _check_fields(state: State, columns: Columns) -> None:
    from qvec.filters.schema import check_name, load_schema  # late: many collections have no fields
    from qvec.filters.values import column_name

    numbers = set()
    for field in load_schema(state).values():
        check_name(field.name)
        if field.number >= state.next_field:
            raise FormatError(f"field {field.name!r} has the number {field.number}, which was never given out")
        numbers.add(field.number)
        _check_postings(field.name, state, columns)
        if field.has_column:
            column = columns[column_name(field)]
            if column.stride != 512 or column.n_rows < words_for(state.n):
                raise FormatError(f"column {column.name!r} holds too little of {state.n} rows")
    if unknown := state.partial_fields.keys() - state.fields.keys():
        raise FormatError(f"field 'partial_fields' names {min(unknown)!r}, which is not declared")
    if len(numbers) < len(state.fields):
        raise FormatError("field 'fields' gives one number twice")
    held = [segment.number for field in state.fields.values() if field.postings for segment in field.postings.segments]
    if len(set(held)) < len(held):
        raise FormatError("field 'fields' names one segment twice")


def _check_postings(name: str, state: State, columns: Columns) -> None:
    """Check the posting lists of a field, and that their columns have room for n rows."""
    from qvec.text.segments import all_columns, lengths_column

    field = state.fields[name]
    if (field.postings is None) != (field.type not in ("text", "sparse")):
        raise FormatError(f"field {name!r} of type {field.type} has the wrong posting lists")
    if field.postings is None:
        return
    postings = field.postings
    if postings.options.kind != field.type:
        raise FormatError(f"field {name!r} of type {field.type} has posting lists of another kind")
    if postings.docs != sum(segment.docs for segment in postings.segments) or postings.docs > state.live:
        raise FormatError(f"field {name!r} has {postings.docs} rows, not those of its segments")
    if any(segment.first % 64 for segment in postings.segments):
        raise FormatError(f"field {name!r} has a segment that does not begin at a multiple of 64 rows")
    for column_name, stride in all_columns(field.number, postings).items():
        column = columns[column_name]
        rows = words_for(state.n) if column_name == lengths_column(field.number) else 1
        if column.stride != stride or column.n_rows < rows:
            raise FormatError(f"column {column_name!r} holds {column.n_rows} rows of {column.stride} bytes")
