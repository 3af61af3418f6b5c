"""Standard input in place of a file."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

STANDARD_INPUT = "-"
SUFFIXES = {"vectors": ".npy", "hnswlib": ".bin"}


@contextlib.contextmanager
def as_file(path: Path, format: str = "jsonl") -> Iterator[Path]:
    """The path, or a temporary file with all of standard input if the path is ``-``."""
    if str(path) != STANDARD_INPUT:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"stdin{SUFFIXES.get(format, f'.{format}')}"
        with file.open("wb") as out:
            shutil.copyfileobj(sys.stdin.buffer, out)
        yield file
