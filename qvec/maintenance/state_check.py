"""Whether what a commit says of itself holds together: each count, number and name, against the columns there are.

Every commit that a handle sees goes through it, before anything reads by it: a checksum finds an accident, not a file
that somebody made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qvec._kernels import Column
from qvec.codes.configs import HNSW, IVF, Flat
from qvec.codes.registry import code_from_dict
from qvec.common.errors import CorruptError, FormatError, InputError
from qvec.common.plain_state import State, take_int, take_state, take_str
from qvec.rows.access import RowAccess
from qvec.schema.bitmaps import words_for
from qvec.schema.config import Config
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
    in_force,
    may_be,
)  # fmt: skip
from qvec.schema.validation import MAX_ROWS
from qvec.storage.store import StateCodec

_MAX_NUMBER = 65_536  # generations, and fields: the keys of columns hold 16 bits of them
_MAX_ENTRIES = 4096
_LIST_FIELDS = ("dim", "metric", "seed", "n_lists", "clustered_at", "n_blocks", "n_free", "free_block")
Columns = Mapping[str, Column]
Sizes = dict[str, tuple[int, int | None]]
"""Rows of columns and their bytes, None: any."""


def state_codec(stored_config: Mapping[str, Any]) -> StateCodec:
    """How the state of a collection with this configuration is checked when a commit is read, and stored."""
    config = Config.from_dict(dict(stored_config))
    original_size = RowAccess(config).original_quantizer.code_size

    def decode(stored: dict[str, Any], columns: Mapping[str, Column]) -> dict[str, Any]:
        check_state(config, original_size, stored, columns)
        return stored

    return StateCodec(decode, dict)


def check_state(config: Config, vector_bytes: int, state: State, columns: Columns) -> None:
    """CorruptError naming what is wrong. ``vector_bytes``: of a stored original."""
    try:
        _check_counts(state)
        n = state["n"]
        generations = _check_generations(state, columns, config)
        _check_index(state["index"], config, n)
        if not isinstance(state["fields"], dict):
            raise FormatError("field 'fields' must map names to numbers and types")
        if state["fields"]:
            _check_fields(state, columns, n)
        if state["quantizer"] is None and n:
            raise FormatError(f"field 'quantizer' is nil, and {n} rows are stored")
        if state["quantizer"] is not None:
            size = _row_size(generations, state["quantizer"])
            named = _named(state["names"], columns)
            _check_columns(named, config, state["index"], n, size, vector_bytes)
        if config.ids == "str" and state["records"] != state["live"]:
            raise FormatError(f"field 'records' is {state['records']}: each of {state['live']} vectors has one, its id")
        _check_pending(state, generations, columns, config)
        _check_marks(state)
    except KeyError as error:
        raise CorruptError(f"the state of the collection is damaged: field {error} is missing") from error
    except (FormatError, InputError, TypeError, AttributeError) as error:
        raise CorruptError(f"the state of the collection is damaged: {error}") from error


def _check_counts(state: State) -> None:
    n = take_int(state, "n", 0, MAX_ROWS)
    live = take_int(state, "live", 0, n)
    take_int(state, "records", 0, live)
    take_int(state, "next_id", 0, 1 << 63)
    take_int(state, "next_generation", 0, _MAX_NUMBER)
    take_int(state, "next_field", 0, _MAX_NUMBER)
    take_int(state, "watched", 0, 1 << 62)


def _check_generations(state: State, columns: Columns, config: Config) -> dict[int, State]:
    found: dict[int, State] = {}
    for entry in state["generations"]:
        number = take_int(entry, "number", 0, state["next_generation"] - 1)
        take_str(entry, "id")
        take_str(entry, "created")
        take_int(entry, "code_size", 1, 1 << 20)
        take_int(entry, "n_samples", 0, 2**63 - 1)
        take_int(entry, "rows", 0, MAX_ROWS)
        take_int(entry, "linked", 0, state["n"])
        code_from_dict(entry["code"])
        _check_optional_name(entry["model"], "model")
        if not isinstance(entry["served"], bool):
            raise FormatError("field 'served' must be true or false")
        if entry["rows"]:
            _check_apart(entry, entry, columns, config, state["n"])
        found[number] = entry
    if len(found) != len(state["generations"]) or state["quantizer"] not in {None, *found}:
        raise FormatError("field 'generations' must name each once, field 'quantizer' one of them")
    return found


def _check_optional_name(value: object, field: str) -> None:
    if value is not None and not isinstance(value, str):
        raise FormatError(f"field {field!r} must be a name or nil")


def _named(names: Any, columns: Columns) -> dict[str, Column]:
    """Columns by their own names, where some are stored under other ones."""
    if not isinstance(names, dict):
        raise FormatError("field 'names' must map columns to the names that they are stored under")
    for own, stored in names.items():
        if not isinstance(own, str) or stored not in columns:
            raise FormatError(f"field 'names' names the column {stored!r}, which is not there")
    named = in_force(columns, names)
    for own, column in named.items():
        if not may_be(own, column):
            raise FormatError(f"field 'names' has {column.name!r} for {own!r}, which holds something else")
    return named


def _check_apart(codes: State, entry: State, columns: Columns, config: Config, n: int) -> None:
    """What is said of codes that are not in force: how many rows have one, and of a graph of their own."""
    named, rows = _named(codes["names"], columns), take_int(codes, "rows", 0, MAX_ROWS)
    column, size = named[CODES], entry["code_size"]
    if column.n_rows < rows or column.stride != size:
        raise FormatError(
            f"generation {entry['number']} has {rows} rows of {size} bytes,"
            f" its column {column.n_rows} of {column.stride}"
        )
    if codes["index"] is not None:
        _check_index(codes["index"], config, n)
        _check_room(named, {name: (0, stride) for name, (_, stride) in _of_index(config, codes["index"], n).items()}, n)


def _row_size(generations: Mapping[int, State], number: int) -> int:
    return int(generations[number]["code_size"])


def _check_columns(
    named: Mapping[str, Column], config: Config, index: State, n: int, code_size: int, vector_bytes: int
) -> None:
    """Whether the columns that rows are in are there, and have room for n of them, of the right size."""
    wanted: Sizes = {CODES: (n, code_size), DELETED: (words_for(n), 8), **_of_index(config, index, n)}
    optional: Sizes = {NODES: (n, None)} if ADJACENCY in wanted else {}
    (wanted if config.keeps_originals else optional)[VECTORS] = n, vector_bytes
    if config.ids == "int64":
        wanted[IDS] = n, 8
    elif IDS in named:
        raise FormatError(f"ids are strings, which column {IDS!r} does not hold")
    _check_room(named, wanted | {name: size for name, size in optional.items() if name in named}, n)


def _of_index(config: Config, index: State, n: int) -> Sizes:
    """The columns that an index needs; packed nodes say themselves whether they fit its codes."""
    if index["kind"] == HNSW.kind and index.get("indexed"):
        degree = 2 * (config.index if isinstance(config.index, HNSW) else HNSW()).m
        return {ADJACENCY: (n, 4 * degree), LINKED: (words_for(n), 8), REMOVING: (words_for(n), 8)}
    if isinstance(config.index, IVF) and index.get("lists"):
        return {SLOTS: (n, 4 * config.index.copies), LISTS: (0, None), LIST_BLOCKS: (0, None), CENTROIDS: (0, None)}
    return {}


def _check_room(named: Mapping[str, Column], wanted: Sizes, n: int) -> None:
    for name, (rows, stride) in wanted.items():
        column = named[name]
        if column.n_rows < rows or stride not in (None, column.stride):
            raise FormatError(f"column {name!r} holds {column.n_rows} rows of {column.stride} bytes for {n} vectors")


def _check_index(index: State, config: Config, n: int) -> None:
    kinds = (Flat.kind, HNSW.kind) if config.index is None else (Flat.kind, config.index.kind)
    if index["kind"] not in kinds:
        raise FormatError(f"field 'kind' of the index must be one of {', '.join(kinds)}; got {index['kind']!r}")
    if index["kind"] == HNSW.kind and index.get("indexed"):
        _check_graph(index, n)
    elif index["kind"] == IVF.kind and index.get("lists"):
        _check_lists(index["lists"], config, n)
    elif "tombstones" in index:
        take_int(index, "tombstones", 0, n)


def _check_graph(graph: State, n: int) -> None:
    linked = take_int(graph, "indexed", 1, n)
    take_int(graph, "tombstones", 0, linked)
    take_int(graph, "root", 0, n - 1)
    take_int(graph, "entries_chosen_at", 0, MAX_ROWS)
    if graph["repair_cursor"] is not None:
        take_int(graph, "repair_cursor", 0, n)
    _check_rows(graph, "entries", 1, n)
    _check_rows(graph, "pending_rows", 0, MAX_ROWS)
    take_int(graph, "pending_in_sweep", 0, len(graph["pending_rows"]) // 4)
    take_int(graph, "reverse_edge_cursor", 0, MAX_ROWS)


def _check_rows(graph: State, name: str, least: int, n: int) -> None:
    """A field of rows below n."""
    rows = graph[name]
    if not isinstance(rows, bytes) or len(rows) % 4 or not 4 * least <= len(rows) <= 4 * _MAX_ENTRIES:
        raise FormatError(f"field {name!r} must hold {least} to {_MAX_ENTRIES} rows of 4 bytes")
    if max(memoryview(rows).cast("I"), default=0) >= n:
        raise FormatError(f"field {name!r} names a row that is not below {n}")


def _check_lists(lists: State, config: Config, n: int) -> None:
    take_state(lists, "lists", _LIST_FIELDS)
    if (lists["dim"], lists["metric"]) != (config.dim, config.metric):
        raise FormatError(f"lists are of {lists['dim']!r} dimensions under {lists['metric']!r}")
    take_int(lists, "seed", 0, 2**64 - 1)
    take_int(lists, "n_lists", 1, MAX_ROWS)
    take_int(lists, "clustered_at", 0, MAX_ROWS)
    n_blocks = take_int(lists, "n_blocks", 1, MAX_ROWS)
    take_int(lists, "n_free", 0, n_blocks)
    take_int(lists, "free_block", 0, 2**32 - 1)


def _check_fields(state: State, columns: Columns, n: int) -> None:
    from qvec.filters.schema import check_name, load_schema  # late: many collections have no fields
    from qvec.filters.values import column_name

    numbers = set()
    for field in load_schema(state).values():
        check_name(field.name)
        if field.number >= state["next_field"]:
            raise FormatError(f"field {field.name!r} has the number {field.number}, which was never given out")
        numbers.add(field.number)
        if field.has_column:
            column = columns[column_name(field)]
            if column.stride != 512 or column.n_rows < words_for(n):
                raise FormatError(f"column {column.name!r} holds too little of {n} rows")
    if len(numbers) < len(state["fields"]):
        raise FormatError("field 'fields' gives one number twice")


def _check_pending(state: State, generations: Mapping[int, State], columns: Columns, config: Config) -> None:
    pending = state["pending"]
    if pending is None:
        return
    if pending["number"] not in generations or pending["number"] == state["quantizer"]:
        raise FormatError(f"field 'pending' is of generation {pending['number']!r}")
    take_int(pending, "linked", 0, MAX_ROWS)
    if pending["relink"] not in (True, False, "auto"):
        raise FormatError(f"field 'relink' is {pending['relink']!r}")
    code_from_dict(pending["code"])
    _check_apart(pending, generations[pending["number"]], columns, config, state["n"])


def _check_marks(state: State) -> None:
    """What was measured, what searches go by, and what is still to be done."""
    if not isinstance(state["erasing"], bool):
        raise FormatError("field 'erasing' must be true or false")
    if (chosen := state["oversample"]) is not None:
        take_int(chosen, "generation", 0, _MAX_NUMBER)
        take_int(chosen, "factor", 1, MAX_ROWS)
    if (tuned := state["tuned"]) is not None:
        take_int(tuned, "generation", 0, _MAX_NUMBER)
        take_int(tuned, "n", 0, MAX_ROWS)
        take_str(tuned, "index")
