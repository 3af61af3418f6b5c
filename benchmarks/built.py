"""A collection built as `qvec bench` builds it, for the length of a ``with`` block."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qvec.bench.adapters.own import Own
from qvec.bench.contestants import parse
from qvec.datasets import Workload


@contextmanager
def built(data: Workload, code: str, index: str, threads: int) -> Iterator[Own]:
    """``index``: as in qvec bench, with its options. The file is closed."""
    kind, options = parse(index)
    with tempfile.TemporaryDirectory() as folder:
        own = Own(data.metric, data.base.shape[1], Path(folder), {"code": code, "index": kind, **options})
        own.build(data.base, threads)
        yield own
