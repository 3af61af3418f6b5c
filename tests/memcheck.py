"""The program of `make memcheck`: adds, deletes and searches of every kind of code and index under valgrind.

AddressSanitizer does not detect reads of uninitialized values; valgrind does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import qvec
from qvec.storage import environment

environment.MAP_SIZE = 1 << 28  # valgrind has no room for a tebibyte
DIM, N = 48, 600
KINDS: tuple[tuple[Any, Any], ...] = (
    *((code, qvec.HNSW()) for code in ("f32", "int8", "int4", "ternary", "binary", "rabitq1", "mixed")),
    *((code, qvec.HNSW(layout="packed")) for code in ("int8", "int4")),
    *((code, qvec.IVF()) for code in ("int8", "rabitq1")),
    *((code, qvec.Flat()) for code in ("f16", "int4", "binary", "rabitq1")),
)
WAYS: tuple[dict[str, Any], ...] = (
    {"k": 10}, {"k": 100}, {"exact": True}, {"where": {"a": {"$lt": 30}}}, {"where": {"a": {"$lt": 3}}},
    {"ef": 10}, {"ef": 90},
)  # fmt: skip


def run(path: Path, code: Any, index: Any) -> None:
    """Use one collection."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N + 10, DIM)).astype(np.float32)
    with qvec.create(path, DIM, metric="cosine", code=code, index=index, fields={"a": "int"}, map_size=1 << 28) as db:
        db.add(x[:N], payloads=[{"a": int(i)} for i in rng.integers(0, 100, N)], threads=1)
        db.delete(range(0, 100, 3))
        for row in x[N:]:
            db.add(row)
        for options in WAYS:
            if "ef" not in options or isinstance(index, qvec.HNSW):
                db.search(x[:12] + 0.1, threads=1, **options)
                for query in x[:12] + 0.1:
                    db.search(query, **options)


def main() -> None:
    for code, index in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder) / "a.qvec", code, index)


if __name__ == "__main__":
    main()
