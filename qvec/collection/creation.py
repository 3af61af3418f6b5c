"""Create the file of a collection."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from qvec.codes.registry import Quantizer
from qvec.common.types import Float32Array, NDArray
from qvec.common.workspace import DEFAULT_WORKSPACE
from qvec.maintenance.state_check import state_codec
from qvec.rows.access import RowAccess
from qvec.schema.config import Config
from qvec.schema.quantizers import Trained, train_code
from qvec.schema.state import FieldDeclaration, State, empty_state
from qvec.storage.store import ColumnSpec, Store


def new_store(
    path: str | os.PathLike[str],
    config: Config,
    sample: NDArray[Any] | None = None,
    queries: Float32Array | None = None,
    quantizer: Quantizer | None = None,
    fields: Mapping[str, FieldDeclaration] | None = None,
    expires: str | None = None,
    **options: Any,
) -> Store:
    """Create the file with a quantizer, or train one if a sample is given, and a projection also for queries.

    options: of :meth:`Store.create`.
    """
    trained = None
    if quantizer is not None:
        trained = Trained(quantizer, config.code, 0 if sample is None else len(sample), config.model)
    elif sample is not None:
        trained = train_code(sample, config.code, config, queries)
    state = empty_state(fields or {}, expires)
    store = Store.create(path, _field_columns(state), config.to_dict(), state=state, state_codec=state_codec, **options)
    try:
        if trained is not None:
            with store.write() as txn:
                number = RowAccess(config, DEFAULT_WORKSPACE).writer(txn).use(trained)
                if sample is not None:
                    from qvec.quality.drift import store_reference

                    store_reference(txn, number, trained, sample)
        return store
    except BaseException:
        store.close()
        raise


def _field_columns(state: State) -> dict[str, ColumnSpec]:
    if not state.fields:
        return {}
    from qvec.filters.maintain import field_columns

    return field_columns(state)
