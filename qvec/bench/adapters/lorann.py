"""LoRANN: clusters whose scores are computed by reduced-rank regression."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from qvec.bench.adapters.base import Adapter, Calls, Options, Sweep, tree_bytes
from qvec.common.types import Float32Array


class Lorann(Adapter):
    """``lorann.LorannIndex``; ``clusters`` 0: four times the square root of n; ``global_dim`` 0: half of dim."""

    module = "lorann"
    package = "lorann"
    defaults: ClassVar[Options] = {"clusters": 0, "global_dim": 0, "rank": 32, "bits": 8}

    def build(self, base: Float32Array, threads: int) -> None:
        library, options = self.imported(), self.options
        clusters = options["clusters"] or max(8, round(4 * len(base) ** 0.5) // 8 * 8)
        global_dim = options["global_dim"] or max(32, min(256, self.dim // 2) // 32 * 32)
        self.index = library.LorannIndex(
            data=base,
            n_clusters=clusters,
            global_dim=global_dim,
            quantization_bits=options["bits"],
            rank=options["rank"],
            distance=library.IP if self.inner else library.L2,
        )
        self.index.build(training_queries=None, n_threads=threads)
        self.clusters = clusters

    def finish(self) -> int:
        path = self.folder / "index.lorann"
        self.index.save(str(path))
        size = tree_bytes(path)
        path.unlink()
        return size

    def sweep(self, k: int) -> Sweep:
        probes = [n for n in (4, 8, 16, 32, 64, 128, 256) if n <= self.clusters]
        return {"probes": probes, "rerank": (20 * k, 50 * k)}

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        search = partial(self.index.search, k=k, clusters_to_search=point["probes"], points_to_rerank=point["rerank"])
        return Calls(partial(search, n_threads=1), partial(search, n_threads=threads), lambda found: found)
