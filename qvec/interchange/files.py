"""Files of vectors, with ids and payloads in separate files, as :mod:`qvec.datasets` loads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qvec.common.errors import InputError
from qvec.common.types import IdKind, Metric
from qvec.datasets import hdf5_metric, load_ids, load_payloads, load_vectors
from qvec.datasets.vectors import HDF5_SUFFIXES
from qvec.interchange.base import Batch, Matrix, Source, checked_dim, slices, spread


class FileSource(Source):
    """Rows of a file of vectors. ``ids``, ``payloads``: files with one entry per row; their lengths are checked."""

    def __init__(
        self, path: Path, *, key: str | None = None, ids: Path | None = None, payloads: Path | None = None
    ) -> None:
        self.name = str(path)
        self._vectors = load_vectors(path, key)
        self._ids = None if ids is None else load_ids(ids)
        self._payloads = None if payloads is None else load_payloads(payloads)
        self.rows, self.dim = len(self._vectors), checked_dim(self._vectors.shape[1], self.name)
        for other, column in ((ids, self._ids), (payloads, self._payloads)):
            if column is not None and len(column) != self.rows:
                raise InputError(f"{other} has {len(column)} rows, {path} has {self.rows}")
        self.metric: Metric | None = hdf5_metric(path) if path.suffix.lower() in HDF5_SUFFIXES else None
        self.id_kind: IdKind | None = None
        if self._ids is not None:
            self.id_kind = "int64" if isinstance(self._ids, np.ndarray) else "str"

    def batches(self, size: int) -> Iterator[Batch]:
        for part in slices(self.rows, size):
            ids = None if self._ids is None else self._ids[part]
            yield Batch(np.asarray(self._vectors[part]), ids, None if self._payloads is None else self._payloads[part])

    def sample(self, size: int) -> Matrix:
        return np.asarray(self._vectors[spread(self.rows, size)])
