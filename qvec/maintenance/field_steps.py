"""Fields that are added to or dropped from a large collection, in transactions of bounded size.

Until the last transaction, the field is one of the state's ``partial_fields``: searches do not use it, but writers
update its index for the rows that they write. After a crash, the same call continues, and dropping the field removes
it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice

from qvec.common.errors import InputError
from qvec.filters.maintain import FieldWriter
from qvec.filters.postings import all_names
from qvec.filters.schema import load_schema
from qvec.index import Progress
from qvec.rows.payload_writer import PayloadWriter
from qvec.schema.state import FieldDeclaration, State
from qvec.storage.store import Store

INDEXED_ROWS = 16_384  # one transaction reads the payloads of this many rows
DROPPED_ENTRIES = 65_536  # one transaction deletes this many entries


@dataclass(frozen=True)
class FieldSteps:
    """The fields of one collection."""

    store: Store

    def add(self, name: str, wanted: FieldDeclaration, progress: Progress | None) -> None:
        """Declare a field and index the values of all rows.

        In a block, or for few rows, this is one transaction. Otherwise an InputError withdraws the field; after another
        error, calling again continues.
        """
        with self.store.write() as txn:
            state: State = txn.state
            if not (name in state.partial_fields and _same(state.fields[name], wanted)):
                if self.store.in_transaction or state.n <= INDEXED_ROWS:
                    PayloadWriter(txn).add_fields({name: wanted}, progress)
                    return
                PayloadWriter(txn).fields.declare({name: wanted})
                txn.state = replace(txn.state, partial_fields={**state.partial_fields, name: 0})
        try:
            while not self._index_next_rows(name, progress):
                pass
        except InputError:
            with self.store.write() as txn:
                if name in txn.state.partial_fields:
                    FieldWriter(txn).drop(name)
            raise

    def _index_next_rows(self, name: str, progress: Progress | None) -> bool:
        """Run one transaction. Returns whether the field is complete."""
        with self.store.write() as txn:
            if name not in txn.state.fields:
                raise InputError(f"the field {name!r} was dropped before it was complete")
            if name not in txn.state.partial_fields:
                return True  # another process has continued
            done = PayloadWriter(txn).index_next_rows(name, INDEXED_ROWS)
            n, is_complete = txn.state.n, name not in txn.state.partial_fields
        if progress is not None:
            progress(done, n)
        return is_complete

    def drop(self, name: str) -> None:
        """Remove a field and its index."""
        while not self._drop_entries(name):
            pass

    def _drop_entries(self, name: str) -> bool:
        """Delete entries of a field in one transaction, and the field if no others are left; returns whether it is
        dropped."""
        with self.store.write(frees=True) as txn:
            state: State = txn.state
            field = load_schema(state).get(name)
            if name == state.expires:
                raise InputError(f"field {name!r} has the times at which rows expire, and cannot be dropped")
            if field is not None and field.has_postings and not self.store.in_transaction:
                first, last = all_names(field)
                behind = next(islice(txn.entries(first, last), DROPPED_ENTRIES, None), None)
                if behind is not None:
                    txn.delete_entries(first, behind[0])
                    txn.state = replace(state, partial_fields={**state.partial_fields, name: 0})
                    return False
            FieldWriter(txn).drop(name)
            return True


def _same(one: FieldDeclaration, other: FieldDeclaration) -> bool:
    """Whether two declarations have the same type and options."""
    options = [None if field.postings is None else field.postings.options for field in (one, other)]
    return one.type == other.type and options[0] == options[1]
