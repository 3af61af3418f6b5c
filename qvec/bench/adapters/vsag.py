"""vsag: its graph over 8-bit codes, re-ranked with float32."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from qvec.bench.adapters.base import Adapter, Calls, Options, Sweep, first, widths
from qvec.common.types import Float32Array


class VsagHgraph(Adapter):
    """``pyvsag.Index("hgraph", ...)``. The Python interface has no batch search."""

    module = "pyvsag"
    package = "pyvsag"
    defaults: ClassVar[Options] = {"max_degree": 32, "ef_construction": 200, "code": "sq8", "precise": "fp32"}

    def build(self, base: Float32Array, threads: int) -> None:
        library, options = self.imported(), self.options
        library.set_logger_off()
        parameters = {
            "dtype": "float32",
            "metric_type": "ip" if self.inner else "l2",
            "dim": self.dim,
            "index_param": {
                "base_quantization_type": options["code"],
                "use_reorder": True,
                "precise_quantization_type": options["precise"],
                "max_degree": options["max_degree"],
                "ef_construction": options["ef_construction"],
                "build_thread_count": threads,
            },
        }
        self.index = library.Index("hgraph", json.dumps(parameters))
        self.index.build(base.reshape(-1), np.arange(len(base)), len(base), self.dim)

    def finish(self) -> int:
        return self.saved_bytes(self.index.save)

    def sweep(self, k: int) -> Sweep:
        return {"ef": widths(k)}

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        parameters = json.dumps({"hgraph": {"ef_search": point["ef"]}})
        return Calls(partial(self.index.knn_search, k=k, parameters=parameters), None, first)
