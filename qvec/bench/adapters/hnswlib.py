"""hnswlib: HNSW over float32."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from qvec.bench.adapters.base import Adapter, Calls, Options, Sweep, first, widths
from qvec.common.types import Float32Array


class Hnswlib(Adapter):
    """``hnswlib.Index``."""

    module = "hnswlib"
    package = "hnswlib"
    defaults: ClassVar[Options] = {"M": 16, "ef_construction": 200}

    def build(self, base: Float32Array, threads: int) -> None:
        self.index = self.imported().Index("ip" if self.inner else "l2", self.dim)
        self.index.init_index(len(base), **self.options)
        self.index.add_items(base, np.arange(len(base)), num_threads=threads)

    def finish(self) -> int:
        return self.saved_bytes(self.index.save_index)

    def sweep(self, k: int) -> Sweep:
        return {"ef": widths(k)}

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        self.index.set_ef(point["ef"])
        search = partial(self.index.knn_query, k=k)
        return Calls(partial(search, num_threads=1), partial(search, num_threads=threads), first)
