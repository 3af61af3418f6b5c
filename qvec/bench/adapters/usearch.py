"""usearch: HNSW over half-precision or 8-bit vectors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np

from qvec.bench.adapters.base import Adapter, Calls, Options, Sweep, widths
from qvec.common.types import Float32Array


class Usearch(Adapter):
    """``usearch.index.Index``; ``dtype`` "bf16", "f16", "f32" or "i8"."""

    module = "usearch.index"
    package = "usearch"
    defaults: ClassVar[Options] = {"connectivity": 16, "expansion_add": 128, "dtype": "bf16"}

    def build(self, base: Float32Array, threads: int) -> None:
        metric = {"cosine": "cos", "ip": "ip", "l2": "l2sq"}[self.metric]
        self.index = self.imported().Index(ndim=self.dim, metric=metric, **self.options)
        self.index.add(np.arange(len(base)), base, threads=threads)

    def finish(self) -> int:
        return self.saved_bytes(self.index.save)

    def sweep(self, k: int) -> Sweep:
        return {"ef": widths(k)}

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        self.index.expansion_search = point["ef"]
        search = partial(self.index.search, count=k)
        return Calls(partial(search, threads=1), partial(search, threads=threads), attrgetter("keys"))
