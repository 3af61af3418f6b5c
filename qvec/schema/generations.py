"""State of generations: which generation is active, which is being built, and which columns each generation has.

A generation's ``column_names`` map the own name of a column to the name under which it is stored; other columns are
stored under their own names. Graph columns that generations share are updated with the active generation.

If a row is reused for another vector, its code is wrong in every generation except the active one. Therefore rows are
not reused while a generation is being built, and an inactive generation that includes a reused row loses its codes. Its
quantizer is kept, and activating the generation encodes all vectors again. The same is true of graphs. A graph that
inactive generations share contains the rows that existed when the graph became inactive (``indexed_rows``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from qvec.codes.configs import code_name
from qvec.common.errors import InputError
from qvec.schema.layout import CODES, INDEX_COLUMNS, QUANTIZER, VECTORS
from qvec.schema.quantizers import Trained
from qvec.schema.state import (
    MAX_GENERATIONS,
    GenerationRecord,
    InactiveCodes,
    IndexState,
    PendingGeneration,
    State,
)
from qvec.storage.store import Transaction

Names = Mapping[str, str]
GROWTH_NUMBERS = range(MAX_GENERATIONS - 256, MAX_GENERATIONS)
"""The numbers in the keys of the columns of an index that was built from a snapshot; no generation has them."""


def column_key_name(name: str, generation: int) -> str:
    """Return the name under which a column of a generation is stored."""
    return f"{name}.{generation}"


def graph_names(names: Names) -> dict[str, str]:
    """Return the part of ``column_names`` that belongs to the index."""
    return {name: stored for name, stored in names.items() if name not in (CODES, VECTORS)}


@dataclass(frozen=True, slots=True, repr=False)
class Generation:
    """A trained quantizer, and the codes made with it.

    ``number``: identifies the generation in this collection; never reused. ``id``: 16 hex digits of a hash of the
    quantizer; equal ids give equal codes. ``n_samples``: size of the training sample. ``rows``: rows that have a code.
    An inactive generation may have fewer than are stored; 0 if it was never active or its codes were discarded.
    ``active``: searches use its codes.
    """

    number: int
    code: str
    id: str
    code_size: int
    method: str | None
    model: str | None
    created: str
    n_samples: int
    rows: int
    active: bool

    def __repr__(self) -> str:
        state = "active" if self.active else "not active"
        size = f"{self.code_size} bytes a vector"
        return f"<qvec.Generation {self.number}: {self.code}, {size}, {self.rows:,} rows, {state}>"


def register(txn: Transaction, trained: Trained) -> int:
    """Store a quantizer as a new generation without codes. Returns the number of the generation."""
    quantizer, number = trained.quantizer, reserve_number(txn)
    txn.put_record(QUANTIZER, number, quantizer.state())
    record = GenerationRecord(
        number=number,
        code=trained.code,
        id=trained.id,
        code_size=quantizer.code_size,
        model=trained.model,
        created=trained.created or datetime.now(UTC).isoformat(timespec="seconds"),
        n_samples=trained.n_samples,
    )
    txn.state = replace(txn.state, generations=(*txn.state.generations, record))
    return number


def reserve_number(txn: Transaction) -> int:
    """Return a number that no generation and no column of one has had."""
    state: State = txn.state
    number = state.next_generation
    if number >= GROWTH_NUMBERS[0]:
        raise InputError(f"the collection has had {number} generations; the limit is {GROWTH_NUMBERS[0]}")
    txn.state = replace(state, next_generation=number + 1)
    return number


def list_generations(state: State) -> list[Generation]:
    """Return all generations, oldest first."""
    return [_listed(state, record) for record in state.generations]


def _listed(state: State, record: GenerationRecord) -> Generation:
    active, pending = record.number == state.active, state.pending
    building = pending is not None and pending.number == record.number
    return Generation(
        number=record.number,
        code=code_name(record.code),
        id=record.id,
        code_size=record.code_size,
        method=getattr(record.code, "method", None),
        model=record.model,
        created=record.created,
        n_samples=record.n_samples,
        rows=state.n if active else pending.built.rows if pending and building else record.inactive.rows,
        active=active,
    )


def pending_generation(state: State, number: int) -> PendingGeneration:
    """Return the generation under construction. InputError if it is no longer ``number``."""
    if state.pending is None or state.pending.number != number:
        raise InputError(f"generation {number} was discarded by another call while it was being built")
    return state.pending


def resume_inactive(state: State, number: int) -> PendingGeneration:
    """Continue an inactive generation that has codes: encode the rows that were added since."""
    inactive = state.generation(number).inactive
    if graph_names(inactive.column_names) != graph_names(state.column_names):
        return PendingGeneration(number, True, inactive)
    return PendingGeneration(number, False, replace(inactive, index=None, indexed_rows=0))


def activate_pending(state: State) -> State:
    """Return the state in which the pending generation is active. The generation that was active keeps its codes.

    The state itself names the columns and the graph of the active generation, so those of the pending generation move
    there from ``pending``. If no graph was built for the pending generation, it continues to use the active graph.
    """
    assert state.pending is not None
    pending, built = state.pending.number, state.pending.built
    old_graph = graph_names(state.column_names)
    names = built.column_names if built.index is not None else {**built.column_names, **old_graph}

    def changed(record: GenerationRecord) -> GenerationRecord:
        inactive, was_active = record.inactive, record.was_active
        if record.number == state.active:
            inactive, was_active = InactiveCodes(state.n, state.column_names, own_index=state.own_index), True
        elif record.number == pending:
            inactive = InactiveCodes()
        graph = graph_names(inactive.column_names)
        if inactive.rows and graph == graph_names(names):  # shares the graph that is active now
            inactive = replace(inactive, index=None, indexed_rows=0)
        elif inactive.rows and graph == old_graph:  # nothing extends the replaced graph from now on
            inactive = replace(inactive, index=state.index, indexed_rows=state.n)
        return replace(record, inactive=inactive, was_active=was_active)

    return replace(
        state,
        active=pending,
        column_names=names,
        index=state.index if built.index is None else built.index,
        own_index=state.own_index if built.index is None else built.own_index,
        generations=tuple(map(changed, state.generations)),
        pending=None,
    )


def may_reuse_rows(txn: Transaction, count: int) -> bool:
    """Whether new vectors may reuse some of ``count`` unused rows.

    They may not while a generation or an index is being built, because its construction would have to start again. They
    may if otherwise a quarter of all rows would be unused.
    """
    state: State = txn.state
    builds_codes = state.pending is not None and state.pending.built.rows > 0
    if not builds_codes and not state.indexing:
        return True
    if count <= state.n // 4:
        return False
    txn.state = state = replace(state, indexing=False)
    if state.pending is None or not builds_codes:
        return True
    built = state.pending.built
    if state.generation(state.pending.number).inactive.rows:
        discard_pending(txn)
        return True
    graph = {} if built.index is None else graph_names(built.column_names)
    for stored in filter(None, graph.values()):
        txn.drop_column(stored)
    names = {name: stored for name, stored in built.column_names.items() if name not in graph}
    kept = InactiveCodes(column_names=names, own_index=built.own_index)
    txn.state = replace(state, pending=replace(state.pending, built=kept))
    return True


def discard_pending(txn: Transaction) -> None:
    """Discard the generation or the index under construction, if there is one. The quantizer is kept."""
    pending = txn.state.pending
    txn.state = replace(txn.state, pending=None, indexing=False)
    if pending is not None and not txn.state.generation(pending.number).inactive.rows:
        drop_columns(txn, pending.built.column_names)
    drop_unused_index_columns(txn)


def discard_codes_from(txn: Transaction, row: int) -> None:
    """Discard inactive codes and graphs that include ``row`` or later rows, because other vectors will reuse these
    rows."""
    for record in txn.state.generations:
        if row < max(record.inactive.rows, record.inactive.indexed_rows):
            discard_codes(txn, record)


def discard_codes(txn: Transaction, record: GenerationRecord) -> None:
    """Discard the codes of an inactive generation. Its quantizer is kept."""
    txn.state = txn.state.with_generation(replace(record, inactive=InactiveCodes()))
    drop_columns(txn, record.inactive.column_names)


def replace_index(txn: Transaction, names: Names, index: IndexState) -> None:
    """Replace the active index, also for the generations that share it, and remove the columns of the old one."""
    state: State = txn.state
    old, new = graph_names(state.column_names), graph_names(names)

    def changed(record: GenerationRecord) -> GenerationRecord:
        own = record.inactive.column_names
        if not record.inactive.rows or graph_names(own) != old:
            return record
        codes = {name: stored for name, stored in own.items() if name not in old}
        return replace(record, inactive=replace(record.inactive, column_names={**codes, **new}))

    generations = tuple(map(changed, state.generations))
    txn.state = replace(state, column_names=names, index=index, indexing=False, generations=generations)
    in_use = {used.get(name, name) for used in _names_in_use(txn.state) for name in INDEX_COLUMNS}
    for stored in [old.get(name, name) for name in INDEX_COLUMNS]:
        if stored in txn.columns and stored not in in_use:
            txn.drop_column(stored)


def drop_unused_index_columns(txn: Transaction) -> None:
    """Remove the columns of an index that was being stored (:mod:`qvec.maintenance.index_aside`)."""
    used = {stored for names in _names_in_use(txn.state) for stored in names.values()}
    for stored in [name for name in txn.columns if "." in name and name not in used]:
        if stored.partition(".")[0] in INDEX_COLUMNS:
            txn.drop_column(stored)


def _names_in_use(state: State) -> list[Names]:
    """The column names of all generations that have columns."""
    used = [state.column_names, *(r.inactive.column_names for r in state.generations if r.inactive.rows)]
    return used if state.pending is None else [*used, state.pending.built.column_names]


def drop_columns(txn: Transaction, names: Names) -> None:
    """Remove the columns of discarded codes, except columns that another generation uses."""
    used = _names_in_use(txn.state)
    own_names = {stored.partition(".")[0] for stored in txn.columns}
    in_use = {other.get(name, name) for other in used for name in own_names}
    in_use |= {stored for other in used for stored in other.values()}  # f32 codes that serve as originals
    for stored in {names.get(name, name) for name in own_names} & txn.columns.keys() - in_use:
        txn.drop_column(stored)
