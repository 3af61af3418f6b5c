"""faiss: HNSW and IVF over codes, refined with float32; and a flat scan."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from qvec.bench.adapters.base import NPROBES, Adapter, Calls, Options, Sweep, second, widths
from qvec.common.types import Float32Array

TRAIN_ROWS = 64  # per list


class Faiss(Adapter):
    """An index of faiss: trained on a sample, then filled in one call."""

    module = "faiss"
    package = "faiss-cpu"
    query_rank = 2

    @abstractmethod
    def make(self, faiss: Any, metric: int, n: int) -> Any:
        """Create an empty index for ``n`` rows."""

    @abstractmethod
    def parameters(self, point: Mapping[str, Any]) -> Any:
        """Search parameters of a point, or None."""

    def build(self, base: Float32Array, threads: int) -> None:
        faiss = self.imported()
        faiss.omp_set_num_threads(threads)
        self.index = self.make(faiss, faiss.METRIC_INNER_PRODUCT if self.inner else faiss.METRIC_L2, len(base))
        if not self.index.is_trained:
            rows = min(len(base), max(20_000, TRAIN_ROWS * nlist_of(self.options, len(base))))
            self.index.train(base[np.sort(np.random.default_rng(0).choice(len(base), rows, replace=False))])
        self.index.add(base)

    def finish(self) -> int:
        return self.saved_bytes(lambda path: self.imported().write_index(self.index, path))

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        faiss = self.imported()
        faiss.omp_set_num_threads(1)
        search = partial(self.index.search, k=k, params=self.parameters(point))

        def many(queries: Float32Array) -> Any:
            faiss.omp_set_num_threads(threads)
            try:
                return search(queries)
            finally:
                faiss.omp_set_num_threads(1)

        return Calls(search, many, second)

    def refined(self, coded: Any) -> Any:
        """Add the float32 vectors to an index, for re-ranking."""
        return self.imported().IndexRefineFlat(coded)

    def refining(self, point: Mapping[str, Any], inner: Any) -> Any:
        """Parameters of both halves of a refined index."""
        return self.imported().IndexRefineSearchParameters(k_factor=point["refine"], base_index_params=inner)


class FaissFlat(Faiss):
    """Exact float32."""

    def make(self, faiss: Any, metric: int, n: int) -> Any:
        return faiss.IndexFlat(self.dim, metric)

    def parameters(self, point: Mapping[str, Any]) -> Any:
        return None

    def sweep(self, k: int) -> Sweep:
        return {}


class FaissHnswSq8(Faiss):
    """HNSW over 8-bit scalar codes, refined."""

    defaults: ClassVar[Options] = {"M": 32, "ef_construction": 200}

    def make(self, faiss: Any, metric: int, n: int) -> Any:
        graph = faiss.IndexHNSWSQ(self.dim, faiss.ScalarQuantizer.QT_8bit, self.options["M"], metric)
        graph.hnsw.efConstruction = self.options["ef_construction"]
        return self.refined(graph)

    def parameters(self, point: Mapping[str, Any]) -> Any:
        return self.refining(point, self.imported().SearchParametersHNSW(efSearch=point["ef"]))

    def sweep(self, k: int) -> Sweep:
        return {"ef": widths(k), "refine": (1.5,)}


class FaissIvfPqFastScan(Faiss):
    """IVF with 4-bit product codes of two dimensions each, scanned in registers, refined."""

    defaults: ClassVar[Options] = {"nlist": 0}

    def make(self, faiss: Any, metric: int, n: int) -> Any:
        nlist = nlist_of(self.options, n)
        coded = faiss.index_factory(self.dim, f"IVF{nlist},PQ{self.dim // 2}x4fs", metric)
        return self.refined(coded)

    def parameters(self, point: Mapping[str, Any]) -> Any:
        return self.refining(point, self.imported().SearchParametersIVF(nprobe=point["nprobe"]))

    def sweep(self, k: int) -> Sweep:
        return {"nprobe": NPROBES, "refine": (4.0, 10.0)}


class FaissIvfRabitq(Faiss):
    """IVF with 1-bit RaBitQ codes, refined."""

    defaults: ClassVar[Options] = {"nlist": 0, "query_bits": 4}

    def make(self, faiss: Any, metric: int, n: int) -> Any:
        return self.refined(faiss.index_factory(self.dim, f"RR,IVF{nlist_of(self.options, n)},RaBitQfs", metric))

    def parameters(self, point: Mapping[str, Any]) -> Any:
        faiss = self.imported()
        lists = faiss.IVFRaBitQSearchParameters(nprobe=point["nprobe"])
        lists.qb = self.options["query_bits"]
        return self.refining(point, faiss.SearchParametersPreTransform(index_params=lists))

    def sweep(self, k: int) -> Sweep:
        return {"nprobe": NPROBES, "refine": (4.0, 10.0, 20.0)}


def nlist_of(options: Mapping[str, Any], n: int) -> int:
    """Number of lists: as given, or four times the square root of the rows."""
    return int(options.get("nlist") or max(1, round(4 * n**0.5)))
