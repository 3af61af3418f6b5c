"""Updates of the field indexes in a write transaction."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import numpy as np

from qvec.common.errors import CorruptError, InputError
from qvec.common.types import Payload
from qvec.filters.postings import Changes, all_names, changed_entries, entry_name, new_versions, stem
from qvec.filters.schema import MAX_FIELDS, MAX_NUMBER, Field, Key, Keys, load_schema, payload_keys
from qvec.filters.values import column_name, column_spec, write_values
from qvec.schema.bitmaps import words_for
from qvec.schema.state import FieldDeclaration, State
from qvec.storage.store import ColumnSpec, Transaction
from qvec.text.segments import lengths_column, lengths_spec
from qvec.text.sparse import stored_value
from qvec.text.writer import PostingsWriter

RowKeys = Sequence[Keys | None]
"""The keys of one row in each field, in the order of the fields. None: no value."""

_MAX_CACHED_STEMS = 65_536


class FieldWriter:
    """The declared fields of a collection inside one write transaction."""

    def __init__(self, txn: Transaction, names: Container[str] | None = None) -> None:
        """``names``: restricts the writer to these fields; default: all fields."""
        self.txn = txn
        stored = load_schema(txn.state)
        self.fields: list[Field] = [field for name, field in stored.items() if names is None or name in names]

    # --- rows ---

    def read(self, payloads: Sequence[Payload | None], names: Sequence[str] | None = None) -> list[RowKeys]:
        """The keys of payloads. Raises InputError naming a value that is not of its field's type."""
        if not self.fields:
            return []
        named = (f"payload[{i}]" for i in range(len(payloads))) if names is None else names
        return [payload_keys(self.fields, payload, name) for payload, name in zip(payloads, named, strict=True)]

    def stored_form(self, payloads: Sequence[Payload | None], label: str = "payload") -> Sequence[Payload | None]:
        """Payloads with the values of sparse fields as they are stored. Raises InputError naming a wrong value."""
        changed = list(payloads)
        for name, originals in self._sparse.items():
            for i, payload in enumerate(changed):
                if payload is not None and payload.get(name) is not None:
                    value = stored_value(payload[name], originals, f"{label}[{i}][{name!r}]")
                    changed[i] = {**payload, name: value}
        return changed if self._sparse else payloads

    @property
    def _sparse(self) -> dict[str, str]:
        """The sparse fields, and how their weights are kept."""
        declared = self.txn.state.fields
        fields = (
            (field.name, declared[field.name].postings.options) for field in self.fields if field.type == "sparse"
        )
        return {name: options.originals for name, options in fields}

    def read_stored(self, payloads: Sequence[Payload | None]) -> list[RowKeys]:
        """The keys of stored payloads. Raises CorruptError: payloads are checked before they are stored."""
        try:
            return self.read(payloads)
        except InputError as error:
            if not self.txn.state.partial_fields:
                raise CorruptError(f"a stored payload does not match its fields: {error}") from error
        return [[self._stored_keys(field, payload) for field in self.fields] for payload in payloads]

    def _stored_keys(self, field: Field, payload: Payload | None) -> Keys | None:
        """The keys of a stored payload in one field. None for a wrong value in a field that is being added."""
        try:
            return payload_keys((field,), payload, "payload")[0]
        except InputError as error:
            if field.name in self.txn.state.partial_fields:
                return None
            raise CorruptError(f"a stored payload does not match its fields: {error}") from error

    def resize(self, n: int) -> None:
        """Make room for n rows."""
        for field in self.fields:
            if field.has_column:
                self.txn.columns[column_name(field)].resize(words_for(n))
            if field.is_searched:
                PostingsWriter(self.txn, field.name).resize(n)

    def change(self, rows: Sequence[int], old: Sequence[RowKeys], new: Sequence[RowKeys]) -> None:
        """Replace the keys ``old`` of ascending rows by ``new``. An empty list: no keys."""
        for place, field in enumerate(self.fields):
            before = [keys[place] for keys in old] or [None] * len(rows)
            after = [keys[place] for keys in new] or [None] * len(rows)
            self._change_field(field, rows, before, after)

    def _change_field(
        self, field: Field, rows: Sequence[int], before: Sequence[Keys | None], after: Sequence[Keys | None]
    ) -> None:
        if field.is_searched:
            PostingsWriter(self.txn, field.name).change(rows, before, after)
            return
        if field.has_postings:
            changes = posted(field, rows, before, after)
            self.txn.put_entries(changed_entries(self.txn, changes))
            self.txn.put_entries(new_versions(field, changes))
        if field.has_column:
            moved = [i for i in range(len(rows)) if before[i] != after[i]]
            if moved:
                keys = [0 if (new := after[i]) is None else new[0] for i in moved]
                write_values(self.txn.columns[column_name(field)], np.array(rows, np.int64)[moved], keys)

    def merge_postings(self, invalid_only: bool) -> bool:
        """Merge posting lists, or only remove those of deleted rows, in one step; False if nothing is left to do."""
        writers = [PostingsWriter(self.txn, field.name) for field in self.fields if field.is_searched]
        return any(writer.merge_step(invalid_only) for writer in writers)

    # --- fields ---

    def declare(self, fields: Mapping[str, FieldDeclaration]) -> None:
        """Declare fields, for which no row has a value yet."""
        declared = len(self.txn.state.fields) + len(fields)
        if declared > MAX_FIELDS:
            raise InputError(f"the collection would have {declared} fields; the limit is {MAX_FIELDS}")
        for name, wanted in fields.items():
            state: State = self.txn.state
            if name in state.fields:
                raise InputError(f"field {name!r} is declared already, as {state.fields[name].type}")
            if state.next_field > MAX_NUMBER:
                raise InputError(f"the collection has had {MAX_NUMBER + 1} fields, which is the limit")
            field = Field(name, state.next_field, wanted.type)
            declarations = {**state.fields, name: replace(wanted, number=field.number)}
            self.txn.state = replace(state, fields=declarations, next_field=field.number + 1)
            if field.has_column:
                self.txn.add_column(column_name(field), column_spec(field)).resize(words_for(state.n))
            if field.is_searched:
                PostingsWriter(self.txn, name).create()
        self.fields = list(load_schema(self.txn.state).values())

    def drop(self, name: str) -> None:
        """Remove a field and its indexes. Payloads are not changed."""
        state = self.txn.state
        schema = load_schema(state)
        if name not in schema:
            raise InputError(f"there is no field {name!r}; declared are: {', '.join(schema) or 'none'}")
        field = schema[name]
        if field.has_column:
            self.txn.drop_column(column_name(field))
        if field.is_searched:
            PostingsWriter(self.txn, name).drop()
        if field.has_postings:
            self.txn.delete_entries(*all_names(field))
        self.txn.state = replace(
            state,
            fields={other: of for other, of in state.fields.items() if other != name},
            partial_fields={other: rows for other, rows in state.partial_fields.items() if other != name},
        )
        self.fields = list(load_schema(self.txn.state).values())


def field_columns(state: State) -> dict[str, ColumnSpec]:
    """The columns of the fields that a state declares."""
    fields = load_schema(state).values()
    columns = {column_name(field): column_spec(field) for field in fields if field.has_column}
    lengths = {lengths_column(field.number): lengths_spec(field.number) for field in fields if field.type == "text"}
    return columns | lengths


def posted(field: Field, rows: Sequence[int], before: Sequence[Keys | None], after: Sequence[Keys | None]) -> Changes:
    """The rows to add to and to remove from each entry."""
    changes: Changes = {}
    stems: dict[Key | None, bytes] = {}
    for row, old, new in zip(rows, before, after, strict=True):
        if old == new:
            continue
        gone, come = _held(old) - _held(new), _held(new) - _held(old)
        for key, side in [*((key, 1) for key in gone), *((key, 0) for key in come)]:
            name = stems.get(key)
            if name is None:
                if len(stems) >= _MAX_CACHED_STEMS:
                    stems.clear()
                name = stems[key] = stem(field, key)
            changes.setdefault(entry_name(name, row), ([], []))[side].append(row)
    return changes


def _held(keys: Keys | None) -> set[Key | None]:
    """The keys, and None for the entry of rows that have any value."""
    return set() if keys is None else {None, *keys}
