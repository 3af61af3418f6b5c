"""LanceDB: a table with an index of partitions, each a graph over 8-bit codes, refined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from qvec.bench.adapters.base import Adapter, Calls, Options, Sweep, tree_bytes
from qvec.common.extras import require
from qvec.common.types import Float32Array

BATCH = 65_536


class LancedbIvfHnswSq(Adapter):
    """``IVF_HNSW_SQ``; ``partitions`` 0: chosen by LanceDB. Threads are LanceDB's; only the processors limit them."""

    module = "lancedb"
    package = "lancedb"
    defaults: ClassVar[Options] = {"partitions": 0, "m": 20, "ef_construction": 300}

    def build(self, base: Float32Array, threads: int) -> None:
        options, arrow = self.options, require("pyarrow")
        schema = arrow.schema([("id", arrow.int64()), ("vector", arrow.list_(arrow.float32(), self.dim))])

        def batches() -> Any:
            for start in range(0, len(base), BATCH):
                rows = base[start : start + BATCH]
                vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.reshape(-1)), self.dim)
                ids = arrow.array(np.arange(start, start + len(rows)))
                yield arrow.RecordBatch.from_arrays([ids, vectors], schema=schema)

        database = self.imported().connect(str(self.folder / "lancedb"))
        self.table = database.create_table("bench", batches(), schema=schema)
        self.table.create_index(
            metric="dot" if self.inner else "l2",
            index_type="IVF_HNSW_SQ",
            num_partitions=options["partitions"] or None,
            m=options["m"],
            ef_construction=options["ef_construction"],
        )

    def finish(self) -> int:
        return tree_bytes(self.folder / "lancedb")

    def sweep(self, k: int) -> Sweep:
        return {"nprobe": (1, 4, 16), "ef": (4 * k, 16 * k), "refine": (2, 4)}

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        table = self.table

        def search(queries: Float32Array) -> Any:
            found = table.search(queries).select(["id", "_distance"]).limit(k)
            return found.nprobes(point["nprobe"]).ef(point["ef"]).refine_factor(point["refine"]).to_arrow()

        return Calls(search, None, lambda found: found["id"].to_numpy())
