"""Recall of searches: the share of the true nearest vectors that are found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

import qvec


def recall(found: Iterable[Any], true: Iterable[Any]) -> float:
    """Mean over the queries of the share of the true ids (a row of ``true``) among the found ones."""
    return float(np.mean([np.isin(t, f).mean() for f, t in zip(found, true, strict=True)]))


def search_recall(db: qvec.Collection, queries: npt.NDArray[Any], k: int = 10, **options: Any) -> float:
    """Recall of a search for k, compared with an exact search of the same collection."""
    return recall(db.search(queries, k, **options).ids, db.search(queries, k, exact=True).ids)
