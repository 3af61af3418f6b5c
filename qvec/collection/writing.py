"""The rows of one call of `add`, and the payloads of one call of `update_payloads`: checked, then written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, get_args

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import Missing, NDArray, OnConflict, Payload, check_choice, check_flag
from qvec.index import Progress
from qvec.rows.access import RowAccess
from qvec.rows.lookup import find_rows
from qvec.rows.reader import refuse_missing
from qvec.rows.results import AddResult
from qvec.rows.visibility import expired_among
from qvec.rows.writer import Writer, trained_on
from qvec.schema.config import Config
from qvec.schema.quantizers import Trained
from qvec.schema.validation import as_ids, as_originals, as_payloads, as_stored, check_unique, id_keys
from qvec.storage.store import Store, Transaction

TRAINED_EARLY = 4096  # rows


@dataclass(frozen=True)
class NewRows:
    """Vectors with their originals, ids and payloads; ``sparse``: by field, vectors that go into the payloads."""

    vectors: NDArray[Any]
    originals: NDArray[Any] | None
    ids: NDArray[Any] | list[str] | None
    payloads: list[dict[str, Any] | None]
    sparse: Mapping[str, Any] | None

    @classmethod
    def checked(
        cls, config: Config, vectors: Any, originals: Any, ids: Any, payloads: Any, sparse: Mapping[str, Any] | None
    ) -> Self:
        """Check the arguments of a call. Raises InputError or DuplicateIdError."""
        x = as_stored("vectors", vectors, config.dim, config.metric, config.form)
        exact = as_originals(originals, config, len(x))
        names = None if ids is None else as_ids(ids, config.ids)
        if names is not None:
            if len(names) != len(x):
                raise InputError(f"{len(names)} ids for {len(x)} vectors: give one a vector")
            check_unique(names)
        return cls(x, exact, names, as_payloads(payloads, len(x)), sparse)

    def with_sparse(self, txn: Transaction) -> NewRows:
        """The same rows with the sparse vectors in their payloads. Raises InputError."""
        if self.sparse is None:
            return self
        from qvec.text.sparse import with_sparse

        types = {name: field.type for name, field in txn.state.fields.items()}
        return replace(self, payloads=with_sparse(self.payloads, self.sparse, types), sparse=None)

    def write(self, writer: Writer, on_conflict: OnConflict, threads: int, progress: Progress | None) -> AddResult:
        """Write the rows; see :meth:`qvec.rows.writer.Writer.add`."""
        payloads = self.with_sparse(writer.txn).payloads
        return writer.add(self.vectors, self.originals, self.ids, payloads, on_conflict, threads, progress)


def train_early(store: Store, config: Config, x: NDArray[Any]) -> Trained | None:
    """Train the code on the first vectors before their transaction, which would otherwise exclude other writers for as
    long. None: there is a code already, or training takes little time. Raises InputError."""
    if len(x) < TRAINED_EARLY or store.in_transaction or store.mode == "r":
        return None
    with store.read() as snap:
        is_untrained = snap.state.active is None
    return trained_on(x, config) if is_untrained else None


def update_payloads(
    store: Store,
    access: RowAccess,
    ids: Any,
    payloads: Sequence[Payload | None] | Payload | None,
    merge: bool,
    missing: Missing,
) -> int:
    """See :meth:`qvec.Collection.update_payloads`."""
    check_flag("merge", merge)
    check_choice("missing", missing, get_args(Missing))
    wanted = as_ids(ids, access.config.ids)
    check_unique(wanted)
    one_for_all = payloads is None or isinstance(payloads, Mapping)
    checked = as_payloads([payloads], 1) * len(wanted) if one_for_all else as_payloads(payloads, len(wanted))
    from qvec.rows.payload_writer import PayloadWriter  # late: readers have no use for it

    with store.write() as txn:
        keys = id_keys(wanted)
        rows = find_rows(txn, keys)
        rows[expired_among(txn, rows)] = -1
        if missing == "error":
            refuse_missing(keys, rows, access.config)
        found = np.flatnonzero(rows >= 0)
        if len(found):
            PayloadWriter(txn).write_payloads(rows[found], [checked[i] for i in found], merge)
    return len(found)
