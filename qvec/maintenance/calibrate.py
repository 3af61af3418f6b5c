"""Train a code on a sample, or import a trained one, and store it as a generation."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from qvec.codes.configs import CodeConfig
from qvec.codes.registry import make_config
from qvec.common.errors import InputError
from qvec.common.types import Float32Array
from qvec.quality.drift import store_reference
from qvec.rows.access import RowAccess
from qvec.schema.generations import register
from qvec.schema.quantizers import Trained, check_enough, train_code
from qvec.storage.store import Store


def train_on(
    store: Store,
    access: RowAccess,
    sample: Float32Array,
    code: str | CodeConfig | None,
    method: str | None,
    queries: Float32Array | None = None,
) -> Trained:
    """Train a code, by default the active one, on float32 [n, dim], and a projection also for queries [m, dim]."""
    config = access.config
    if code is None:
        with store.read() as snap:
            active = snap.state.active
            chosen = config.code if active is None else snap.state.generation(active).code
    else:
        chosen = make_config(code)
    chosen = _with_method(chosen, method)
    check_enough(chosen, len(sample))
    return train_code(sample, chosen, config, queries)


def store_trained(
    store: Store, access: RowAccess, trained: Trained, sample: Float32Array | None = None
) -> tuple[int, bool]:
    """Store a trained code as a generation. Returns its number and whether it is now active, as the first generation.

    sample: the vectors that it was trained on; drift is measured relative to them.
    """
    with store.write() as txn:
        first = txn.state.active is None
        if not first:
            number = register(txn, trained)
        elif trained.code != access.config.code:
            raise InputError(f"the collection is empty and was created for {access.config.code}, not {trained.code}")
        else:
            number = access.writer(txn).use(trained)
        if sample is not None:
            store_reference(txn, number, trained, sample)
    return number, first


def _with_method(code: CodeConfig, method: str | None) -> CodeConfig:
    """The code with another calibration method. Raises InputError if the code has no methods or learns nothing from a
    sample."""
    if method is not None:
        if "method" not in {field.name for field in fields(code)}:
            raise InputError(f"{code.kind} codes have no calibration method; got {method!r}")
        static: dict[str, Any] = {"scale": "per_dim"} if hasattr(code, "scale") else {}
        code = replace(code, method=method, **static)  # type: ignore[arg-type]
    if code.min_samples == 0:
        raise InputError(f"{code} learns nothing from a sample; give a method, or a code that is trained")
    return code
