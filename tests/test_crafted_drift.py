"""Records of drift that were made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec.quality.drift_record import Evidence
from qvec.schema.layout import DRIFT
from qvec.storage.store import Store, Transaction

DIM = 8
X = clustered(np.random.default_rng(1), 60, DIM)
EVIDENCE = {field.name: 0.0 for field in fields(Evidence)} | {"shift_dim": 0, "vectors": 1, "psi": float("nan")}


def craft(path: Path, change: Callable[[Transaction], object]) -> None:
    with Store.open(path) as store, store.write() as txn:
        change(txn)


def with_drift(*at: str | int, value: Any) -> Callable[[Transaction], object]:
    """A change of the record of drift at a place."""

    def change(txn: Transaction) -> None:
        record = txn.record(DRIFT, 0)
        inner = record
        for key in at[:-1]:
            inner = inner[key]
        inner[at[-1]] = value
        txn.put_record(DRIFT, 0, record)

    return change


@pytest.mark.parametrize(("at", "value", "message"), [
    (("level",), "calm", "'level' must be one of none, warning, alarm"),
    (("n_checks",), 7, "'recent' must hold the last 4 of 7 checks"),
    (("evidence",), EVIDENCE, "'psi' must be a finite number"),
    (("reference", "base"), 0, "'base' must be an integer from 86"),
    (("reference", "edges"), b"", "'edges' must hold"),
    (("reference", "stats", "rows"), 0, "'rows' must be an integer from 1"),
    (("reference", "stats", "means"), b"1234", "'means' must hold 8 "),
    (("reference", "stats", "counts"), [1], "'counts' must hold 80 numbers"),
    (("reference", "stats", "recalls"), [], "'recalls' must hold 1"),
    (("reference", "stats", "recalls", 0), [1, 2.0, 0.0], "'mean' must be from 0.0 to 1.0"),
])  # fmt: skip
def test_a_record_of_drift_that_cannot_be_computed_with_is_an_error(
    path: Path, at: tuple[str | int, ...], value: Any, message: str
) -> None:
    sample = clustered(np.random.default_rng(1), 300, DIM)
    with qvec.create(path, DIM, metric="l2", code=qvec.Int8(scale="per_dim"), sample=sample) as db:
        db.add(X)
    craft(path, with_drift(*at, value=value))
    with qvec.open(path) as db:
        with pytest.raises(qvec.FormatError, match=message):
            db.drift()
        with pytest.raises(qvec.FormatError, match=message):
            db.add(clustered(np.random.default_rng(2), 600, DIM))
        assert message.split(" ")[0] in db.verify()[0]
        assert "drift was dropped" in db.repair()[0]
        db.add(clustered(np.random.default_rng(2), 1200, DIM))
        assert db.drift().level == "none"


def test_recall_is_measured_again_if_the_drift_record_has_none(path: Path) -> None:
    data = clustered(np.random.default_rng(1), 4000, DIM)
    with qvec.create(path, DIM, metric="l2", code=qvec.Int8(scale="per_dim"), sample=data[:300]) as db:
        db.add(data[300:2900])  # four checks

    def forget(txn: Transaction) -> None:
        record = txn.record(DRIFT, 0)
        for check in record["recent"]:
            check["recalls"] = []
        txn.put_record(DRIFT, 0, record | {"n_checks": 65_535})

    craft(path, forget)
    with qvec.open(path) as db:
        db.add(data[3000:3600])
        assert db.drift().n_checks == 65_536
