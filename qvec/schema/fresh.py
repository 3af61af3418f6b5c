"""The vectors of a call that has just stored them: more exact than coarse codes, if these are all that is stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qvec._kernels import Column
from qvec.common.types import Codes, Float32Array, NDArray


@dataclass(frozen=True)
class FreshRows:
    """Vectors ``x``, real numbers [n, dim], and the rows that contain their ``codes``: uint32[n], ascending."""

    x: NDArray[Any]
    rows: NDArray[np.uint32]
    codes: Codes

    def still_in(self, column: Column, size: int) -> FreshRows:
        """Return those whose codes, of ``size`` bytes, are still in their rows, which others may have reused."""
        held = np.flatnonzero(self.rows < column.n_rows)
        same = (column.read(self.rows[held])[:, :size] == self.codes[held, :size]).all(axis=1)
        return self if same.all() and len(held) == len(self.rows) else self._part(held[same])

    def _part(self, positions: NDArray[np.int64]) -> FreshRows:
        return replace(self, x=self.x[positions], rows=self.rows[positions], codes=self.codes[positions])

    def contains(self, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Return for each row whether its vector is known."""
        return np.isin(rows, self.rows, assume_unique=False)

    def read(self, rows: NDArray[Any]) -> Float32Array:
        """Return the vectors of rows that are known, float32 [n, dim]."""
        return np.ascontiguousarray(self.x[np.searchsorted(self.rows, rows)], dtype=np.float32)
