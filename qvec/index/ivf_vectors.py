"""The vectors that inverted lists are made from: originals, or the best substitutes if only coarse codes are stored.

A code of one bit per dimension is a poor substitute: lists that were made from decoded codes found fewer of the true
neighbors than the codes could distinguish (docs/adr/0006). A call that adds rows still has their vectors. Lists that
get new centroids are made from the entries of the lists that they replace. An entry encodes the difference from a
centroid only, and is therefore more exact than a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qvec._kernels import Lists
from qvec.common.types import Float32Array, NDArray
from qvec.index.base import IndexInput
from qvec.index.ivf_check import is_listed


@dataclass(frozen=True)
class ListedVectors:
    """Reads the vectors of rows as lists need them. ``former``: the lists that are replaced, and their input."""

    data: IndexInput
    former: tuple[Lists, IndexInput] | None = None

    def read(self, lists: Lists, rows: NDArray[Any]) -> tuple[Float32Array, Float32Array]:
        """Return float32 [n, dims], rotated, less the mean of ``lists``, and the squared errors that are known,
        float32 [n]."""
        rows = np.asarray(rows, np.uint32)
        losses = np.zeros(len(rows), np.float32)
        if self.former is None:
            return lists.vectors(self.data.read_vectors(rows)), losses
        replaced, before = self.former
        listed = self._are_listed(before, rows)
        out = np.empty((len(rows), lists.dims), np.float32)
        decoded, losses[listed] = replaced.decode(rows[listed])
        out[listed] = lists.center(decoded)
        out[~listed] = lists.vectors(self.data.read_vectors(rows[~listed]))
        return out, losses

    def _are_listed(self, before: IndexInput, rows: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Return for each row whether it is known from its entries only."""
        assert self.data.vectors is not None
        found, fresh = np.zeros(len(rows), bool), self.data.vectors.fresh
        earlier = np.flatnonzero(rows < before.n)
        found[earlier] = is_listed(before, rows[earlier])
        return found if fresh is None else found & ~fresh.contains(rows)
