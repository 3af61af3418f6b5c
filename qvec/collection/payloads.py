"""The part of a collection that looks after payloads: their declared fields, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from qvec._kernels import bits_rows
from qvec.collection.housekeeping import Housekeeping
from qvec.common.types import FieldType, Missing, NDArray, Payload, Where, check_choice, check_flag
from qvec.index import Progress
from qvec.rows.lookup import find_rows
from qvec.rows.reader import refuse_missing
from qvec.schema.validation import as_ids, as_payloads, check_unique, id_keys
from qvec.storage.store import Snapshot, Transaction

if TYPE_CHECKING:
    from qvec.search.row_selection import Selected


class Payloads(Housekeeping):
    """What :class:`qvec.Collection` inherits of calls on payloads."""

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The declared fields: name -> type. They are what ``where=`` can ask for."""
        with self._store.read() as snap:
            return MappingProxyType({name: kind for name, (_, kind) in snap.state["fields"].items()})

    def add_field(self, name: str, type: FieldType, *, progress: Progress | None = None) -> None:
        """Declare a field, and index what the stored payloads hold under its name.

        type: "keyword", "int", "float", "bool" or "datetime" (a datetime, or a string in ISO 8601), or a list of these:
        "keyword[]" and so on. progress: called with (done, total) rows.

        Raises InputError: the name or the type is none, the field is declared already, or a stored payload holds
        something else under the name (it says which); nothing has changed then.
        """
        from qvec.filters.schema import check_fields

        fields = check_fields({name: type})
        with self._store.write() as txn:
            self._writer(txn).add_fields(fields, progress)

    def drop_field(self, name: str) -> None:
        """Forget a field and its index; payloads keep what they hold."""
        from qvec.filters.maintain import FieldWriter

        with self._store.write() as txn:
            FieldWriter(txn).drop(name)

    def update_payload(
        self,
        ids: Any,
        payload: Sequence[Payload | None] | Payload | None,
        *,
        merge: bool = True,
        missing: Missing = "error",
    ) -> int:
        """Change the payloads of stored vectors, all or nothing; how many were stored.

        payload: one for all ids, or one each. merge: change the keys that are named, and remove those named with None;
        else the payload takes the place of what was there. missing: what to do with an id that is not stored.

        Raises InputError naming the wrong value, MissingIdError, DuplicateIdError (an id that is named twice).
        """
        check_flag("merge", merge)
        check_choice("missing", missing, get_args(Missing))
        wanted = as_ids(ids, self._config.ids)
        check_unique(wanted)
        one_for_all = payload is None or isinstance(payload, Mapping)
        payloads = as_payloads([payload], 1) * len(wanted) if one_for_all else as_payloads(payload, len(wanted))
        with self._store.write() as txn:
            keys = id_keys(wanted)
            rows = find_rows(txn, keys)
            if missing == "error":
                refuse_missing(keys, rows, self._config)
            found = np.flatnonzero(rows >= 0)
            if len(found):
                writer = self._writer(txn)
                writer.update_payload(rows[found], [payloads[i] for i in found], merge)
        return len(found)

    def count(self, where: Where | None = None) -> int:
        """How many vectors are stored, or fulfil a filter; see :meth:`Collection.search` for ``where``."""
        with self._store.read() as snap:
            if where is None:
                return int(snap.state["live"])
            from qvec.search.row_selection import selector_of

            return selector_of(snap).select(snap, where, None, self._config.ids).count

    def _matching_rows(self, reading: Snapshot, where: Where | None) -> NDArray[np.int64]:
        """Live rows that fulfil a filter, ascending; all of them where there is none."""
        from qvec.search.row_selection import Selector, selector_of

        # what is remembered of a transaction may be older than its last change
        selector = Selector(reading) if isinstance(reading, Transaction) else selector_of(reading)
        bits = selector.live if where is None else selector.matching(reading, where)
        return bits_rows(bits).astype(np.int64)

    def _select(self, snap: Snapshot, where: Where | None, ids_in: Any, name: str = "where") -> Selected:
        """The rows that a search may find; ``name``: what errors call the filter."""
        from qvec.search.row_selection import selector_of

        return selector_of(snap).select(snap, where, ids_in, self._config.ids, name)
