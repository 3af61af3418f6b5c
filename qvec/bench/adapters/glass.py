"""Glass (pyglass): HNSW over 8-bit codes, re-ranked with finer ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from qvec.bench.adapters.base import Adapter, Calls, Options, Sweep, tree_bytes, widths
from qvec.common.types import Float32Array


class Glass(Adapter):
    """``glass.Searcher``. Its search returns ids alone, or ids and distances in later versions."""

    module = "glass"
    package = "pyglass-portable"
    defaults: ClassVar[Options] = {"R": 32, "L": 200, "build": "SQ8U", "search": "SQ8U", "refine": "FP16"}

    def build(self, base: Float32Array, threads: int) -> None:
        library, options = self.imported(), self.options
        library.set_num_threads(threads)
        metric = "IP" if self.inner else "L2"
        index = library.Index(index_type="HNSW", metric=metric, quant=options["build"], R=options["R"], L=options["L"])
        self.graph = index.build(base)
        self.index = library.Searcher(
            graph=self.graph, data=base, metric=metric, quantizer=options["search"], refine_quant=options["refine"]
        )
        self.index.optimize(threads)

    def finish(self) -> int:
        """Save the graph; the library does not save codes."""
        path = self.folder / "index.glass"
        self.graph.save(str(path))
        size = tree_bytes(path)
        path.unlink()
        return size

    def sweep(self, k: int) -> Sweep:
        return {"ef": widths(k)}

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        self.imported().set_num_threads(threads)
        self.index.set_ef(point["ef"])
        many = partial(self.index.batch_search, k=k, num_threads=threads)
        return Calls(partial(self.index.search, k=k), many, _ids)


def _ids(found: Any) -> Any:
    return found[0] if isinstance(found, tuple) else found
