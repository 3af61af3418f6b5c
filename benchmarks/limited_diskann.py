"""DiskANN's index on disk (diskannpy-rust), for `bench_limited.py`: reads of single sectors around the page cache."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

DEGREE, BUILD_COMPLEXITY, COMPLEXITY, CODE_BYTES, BEAM = 32, 64, 80, 96, 8
Float32 = npt.NDArray[np.float32]


def build(base: Float32, folder: Path) -> dict[str, float]:
    """Build an index of unit vectors by squared distance, which orders them as the cosine does."""
    import diskannpy

    folder.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    with tempfile.TemporaryDirectory(dir=folder) as data:
        path = os.path.join(data, "base.bin")
        diskannpy.vectors_to_file(path, np.ascontiguousarray(base, np.float32))
        diskannpy.build_disk_index(
            path, "l2", str(folder), BUILD_COMPLEXITY, DEGREE, 4.0, 1,
            num_of_pq_chunks=CODE_BYTES, vector_dtype=np.float32,
        )  # fmt: skip
    files = [file for file in folder.iterdir() if file.is_file()]
    return {"bytes": sum(file.stat().st_size for file in files), "seconds": time.process_time() - began}


def searcher(folder: Path, k: int) -> Callable[[Float32], npt.NDArray[np.int64]]:
    """Open an index. Returns the function that searches it."""
    import diskannpy

    index = diskannpy.StaticDiskIndex(str(folder), 1, BEAM)
    return lambda query: np.asarray(index.search(query, k, COMPLEXITY).identifiers, np.int64)
