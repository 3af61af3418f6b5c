"""qvec for https://github.com/erikbern/ann-benchmarks: copy this folder to its ``ann_benchmarks/algorithms/qvec``.

cp -r benchmarks/annbenchmarks ../ann-benchmarks/ann_benchmarks/algorithms/qvec
cd ../ann-benchmarks && python install.py --algorithm qvec && python run.py --algorithm qvec-int8-hnsw
"""

from __future__ import annotations

from qvec.bench.external import External

from ..base.module import BaseANN  # noqa: TID252  (there is no other way to name it)


class Qvec(External, BaseANN):
    """An algorithm of ann-benchmarks: the metric's name and the options of the collection."""

    metrics = {"angular": "cosine", "euclidean": "l2", "ip": "ip"}  # noqa: RUF012  (a ClassVar of the base)
