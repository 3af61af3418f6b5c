"""zvec: a collection with HNSW over 8-bit codes, refined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from qvec.bench.adapters.base import Adapter, Calls, Options, Sweep, tree_bytes, widths
from qvec.common.types import Float32Array

BATCH = 1000  # documents per insert; the limit is 1024


class ZvecHnswInt8(Adapter):
    """``zvec.Collection`` with one vector field. There is no batch search; ids are strings."""

    module = "zvec"
    package = "zvec"
    defaults: ClassVar[Options] = {"m": 16, "ef_construction": 200}

    def build(self, base: Float32Array, threads: int) -> None:
        zvec = self.imported()
        zvec.init(log_level=zvec.LogLevel.ERROR, query_threads=1, optimize_threads=threads)
        metric = zvec.MetricType.IP if self.inner else zvec.MetricType.L2
        index = zvec.HnswIndexParam(metric, quantize_type=zvec.QuantizeType.INT8, **self.options)
        field = zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, self.dim, index)
        schema = zvec.CollectionSchema("bench", vectors=[field])
        self.collection = zvec.create_and_open(str(self.folder / "zvec"), schema)
        for start in range(0, len(base), BATCH):
            rows = base[start : start + BATCH].tolist()
            statuses = self.collection.insert(
                [zvec.Doc(id=str(row), vectors={"vector": values}) for row, values in enumerate(rows, start)]
            )
            if not all(status.ok() for status in statuses):
                raise RuntimeError(f"zvec did not take rows {start} to {start + len(rows) - 1}")
        self.collection.optimize(zvec.OptimizeOption(concurrency=threads))

    def finish(self) -> int:
        self.collection.flush()
        return tree_bytes(self.folder / "zvec")

    def sweep(self, k: int) -> Sweep:
        return {"ef": widths(k)}

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        zvec, collection = self.imported(), self.collection
        refined = zvec.HnswQueryParam(ef=point["ef"], is_using_refiner=True)

        def one(query: Float32Array) -> Any:
            return collection.query(zvec.Query("vector", vector=query, param=refined), topk=k, output_fields=[])

        return Calls(one, None, lambda found: [int(document.id) for document in found])
