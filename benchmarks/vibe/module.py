"""qvec for VIBE, https://github.com/vector-index-bench/vibe: copy this folder to its ``vibe/algorithms/qvec``.

python -m build --sdist && cp dist/qvec-*.tar.gz ../vibe/qvec.tar.gz
cp -r benchmarks/vibe ../vibe/vibe/algorithms/qvec
cd ../vibe && ./install.sh --algorithm qvec && python3 run.py --module qvec --dataset agnews-mxbai-1024-euclidean

The configuration has the data sets of type float. Under "normalized", all vectors have length 1.
"""

from __future__ import annotations

from qvec.bench.external import External

from ..base.module import BaseANN  # noqa: TID252  (there is no other way to name it)


class Qvec(External, BaseANN):
    """An algorithm of VIBE: the metric's name and the options of the collection."""

    metrics = {"cosine": "cosine", "normalized": "cosine", "euclidean": "l2", "ip": "ip"}  # noqa: RUF012
