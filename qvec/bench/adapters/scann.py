"""ScaNN: a tree of partitions, asymmetric hashing, reordering with float32."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from qvec.bench.adapters.base import NPROBES, Adapter, Calls, Options, Sweep, first, tree_bytes
from qvec.common.types import Float32Array


class Scann(Adapter):
    """The index that ScaNN's documentation recommends; ``leaves`` 0: four times the square root of n."""

    module = "scann.scann_ops.py.scann_ops_pybind"
    package = "scann"
    defaults: ClassVar[Options] = {"leaves": 0, "block": 2, "threshold": 0.2}

    def build(self, base: Float32Array, threads: int) -> None:
        options = self.options
        leaves = options["leaves"] or max(1, min(len(base) // 8, round(4 * len(base) ** 0.5)))
        builder = self.imported().builder(base, 10, "dot_product" if self.inner else "squared_l2")
        builder = builder.set_n_training_threads(threads).tree(
            num_leaves=leaves, num_leaves_to_search=leaves // 10 + 1, training_sample_size=min(len(base), 250_000)
        )
        hashing = {"anisotropic_quantization_threshold": options["threshold"]} if self.inner else {}
        self.index = builder.score_ah(options["block"], **hashing).reorder(100).build()

    def finish(self) -> int:
        folder = self.folder / "scann"
        folder.mkdir()
        self.index.serialize(str(folder))
        return tree_bytes(folder)

    def sweep(self, k: int) -> Sweep:
        return {"nprobe": NPROBES, "reorder": (4 * k, 15 * k)}

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        found = {
            "final_num_neighbors": k,
            "pre_reorder_num_neighbors": point["reorder"],
            "leaves_to_search": point["nprobe"],
        }
        self.index.set_num_threads(threads)
        many = self.index.search_batched if threads == 1 else self.index.search_batched_parallel
        return Calls(partial(self.index.search, **found), partial(many, **found), first)
