"""Index files of faiss: vectors are reconstructed from the stored data of the index.

faiss ends the process on some files, such as ``IVF4,PQ4x4fs``; a child process reads them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qvec.common.errors import InputError
from qvec.common.extras import require
from qvec.common.types import IdKind
from qvec.interchange.base import Batch, Matrix, Source, checked_dim, int_ids, runs, slices

ROWS_PER_SAMPLE_CALL = 64
_EXACT = ("IndexFlat", "IndexIVFFlat", "IndexHNSWFlat", "IndexNSGFlat")


class FaissSource(Source):
    """An index of float vectors. If it stores codes (SQ, PQ), they are decoded, and ``note`` says so."""

    def __init__(self, path: Path) -> None:
        require("faiss")
        self.name = str(path)
        self._child = _Child(path)
        head = self._child.answer()
        self.dim, self.rows = checked_dim(head["dim"], self.name), head["rows"]
        self.metric = head["metric"]
        self._ids = self._child.array(self.rows, np.int64) if head["ids"] else None
        self.id_kind: IdKind | None = None if self._ids is None else "int64"
        stored: str = head["stored"]
        self.note = "" if stored.startswith(_EXACT) else f"vectors are decoded from the codes of {stored}"

    def batches(self, size: int) -> Iterator[Batch]:
        for part in slices(self.rows, size):
            ids = None if self._ids is None else int_ids(self._ids[part], self.name)
            yield Batch(self._read(part), ids, None)

    def sample(self, size: int) -> Matrix:
        parts = [self._read(part) for part in runs(self.rows, size, ROWS_PER_SAMPLE_CALL)]
        return np.concatenate(parts)[:size] if parts else np.empty((0, self.dim), np.float32)

    def _read(self, part: slice) -> Matrix:
        self._child.ask(f"{part.start} {part.stop}")
        return self._child.array((part.stop - part.start) * self.dim, np.float32).reshape(-1, self.dim)


class _Child:
    """The process that reads the file (qvec/interchange/faiss_child.py)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        paths = [str(Path(__file__).parents[2]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qvec.interchange.faiss_child", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        weakref.finalize(self, _end, self._process)

    def ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._crashed() from None
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The description that precedes data. InputError: what the child reports, or that it crashed."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._crashed()
        head: dict[str, Any] = json.loads(line)
        if "error" in head:
            raise InputError(head["error"])
        return head

    def array(self, size: int, dtype: Any) -> NDArray[Any]:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size * np.dtype(dtype).itemsize)
        if len(data) < size * np.dtype(dtype).itemsize:
            raise self._crashed()
        return np.frombuffer(data, dtype)

    def _crashed(self) -> InputError:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return InputError(
            f"{self._path}: faiss crashed while reading this file ({how}): it is damaged, or "
            f"faiss cannot reconstruct the vectors of its type (fast-scan codes need RFlat)"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # unsent bytes for a process that has ended
                pipe.close()
    process.wait()
