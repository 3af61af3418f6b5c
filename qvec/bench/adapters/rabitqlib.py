"""rabitqlib: SymphonyQG, and HNSW and IVF over RaBitQ codes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from qvec.bench.adapters.base import NPROBES, Adapter, Calls, Options, Sweep, first, widths
from qvec.common.types import Float32Array, NDArray


class Rabitqlib(Adapter):
    """Base class of the three indexes."""

    module = "rabitqlib"
    package = "rabitqlib"
    query_rank = 2

    @property
    def metric_name(self) -> str:
        return "ip" if self.inner else "l2"

    def finish(self) -> int:
        return self.saved_bytes(self.index.save)

    def cluster(self, base: Float32Array, clusters: int, threads: int) -> tuple[Float32Array, NDArray[np.uint32]]:
        """Centroids [clusters, dim] and the cluster of each row, by the library's k-means."""
        kmeans = self.imported().RaBitQKMeans(self.dim, clusters, num_threads=threads, spherical=self.inner)
        kmeans.train(base)
        return np.asarray(kmeans.centroids, np.float32), np.asarray(kmeans.assignments, np.uint32)

    index: Any


class RabitqlibSymqg(Rabitqlib):
    """SymphonyQG: a graph whose nodes store 1-bit codes of their neighbors."""

    defaults: ClassVar[Options] = {"degree": 32, "ef_construction": 200}

    def build(self, base: Float32Array, threads: int) -> None:
        self.index = self.imported().SymqgIndex(self.dim, self.options["degree"], self.metric_name)
        self.index.build(base, self.options["ef_construction"], threads)

    def sweep(self, k: int) -> Sweep:
        return {"ef": widths(k)}

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        one, many = (
            partial(search, k=k, ef=point["ef"], num_threads=count)
            for search, count in ((self.index.search, 1), (self.index.search_batch, threads))
        )
        return Calls(one, many, first)


class RabitqlibHnsw(Rabitqlib):
    """HNSW over RaBitQ codes."""

    defaults: ClassVar[Options] = {"M": 16, "ef_construction": 200, "bits": 8, "clusters": 16}

    def build(self, base: Float32Array, threads: int) -> None:
        options = self.options
        centroids, own = self.cluster(base, options["clusters"], threads)
        self.index = self.imported().HnswIndex(
            self.dim, len(base), options["M"], options["ef_construction"], options["bits"], self.metric_name
        )
        self.index.build(base, centroids, own, threads, True)

    def sweep(self, k: int) -> Sweep:
        return {"ef": widths(k)}

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        search = partial(self.index.search, k=k, ef=point["ef"])
        return Calls(partial(search, num_threads=1), partial(search, num_threads=threads), first)


class RabitqlibIvf(Rabitqlib):
    """IVF over RaBitQ codes; 32 bits: 1-bit codes re-ranked with the vectors."""

    defaults: ClassVar[Options] = {"nlist": 0, "bits": 32}

    def build(self, base: Float32Array, threads: int) -> None:
        nlist = self.options["nlist"] or max(1, round(4 * len(base) ** 0.5))
        centroids, own = self.cluster(base, nlist, threads)
        self.index = self.imported().IvfIndex(self.dim, len(base), nlist, self.options["bits"], self.metric_name)
        self.index.build(base, centroids, own, threads, True)

    def sweep(self, k: int) -> Sweep:
        return {"nprobe": NPROBES}

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        search = partial(self.index.search, k=k, nprobe=point["nprobe"])
        return Calls(partial(search, num_threads=1), partial(search, num_threads=threads), first)
