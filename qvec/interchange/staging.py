"""Files that appear together and complete, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from qvec.common import system
from qvec.common.errors import ExistsError, NotFoundError


class Staging:
    """Writes targets under temporary names, and renames them if the ``with`` block ends without an error."""

    def __init__(self, overwrite: bool) -> None:
        self._overwrite = overwrite
        self._parts: dict[Path, Path] = {}
        self._dropped: set[Path] = set()

    def part(self, target: Path) -> Path:
        """Return the temporary path of ``target``. Raises ExistsError, or NotFoundError if there is no directory."""
        if target.exists() and not self._overwrite:
            raise ExistsError(f"{target} exists already; overwrite replaces it")
        if not target.parent.is_dir():
            raise NotFoundError(f"{target.parent}: no such directory")
        self._parts[target] = target.with_name(f"{target.name}.part")
        return self._parts[target]

    def drop(self, target: Path) -> None:
        """Do not create ``target``, and remove an existing one."""
        self._dropped.add(target)

    @property
    def files(self) -> list[Path]:
        """The targets, in the order of :meth:`part`."""
        return [target for target in self._parts if target not in self._dropped]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for target, part in self._parts.items():
            if kind is None and target not in self._dropped:
                system.replace(part, target)
            else:
                part.unlink(missing_ok=True)
            if kind is None and target in self._dropped:
                target.unlink(missing_ok=True)  # a file of an earlier export would not match the other files


class NpyWriter:
    """Writes a .npy file whose number of rows is known at the end."""

    def __init__(self, file: BinaryIO, like: NDArray[Any]) -> None:
        """``like``: an array with the dtype and row shape of the file."""
        self._file, self._like, self._rows = file, like, 0
        self._write_header()

    def append(self, rows: NDArray[Any]) -> None:
        self._file.write(np.ascontiguousarray(rows, self._like.dtype).data)
        self._rows += len(rows)

    def finish(self) -> None:
        """Write the number of rows into the header, which has space for any number."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        descr = np.lib.format.dtype_to_descr(self._like.dtype)
        shape = (self._rows, *self._like.shape[1:])
        np.lib.format.write_array_header_1_0(self._file, {"descr": descr, "fortran_order": False, "shape": shape})


class LinesWriter:
    """Writes values to a file as JSON, one per line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def append(self, values: NDArray[Any]) -> None:
        self._file.writelines(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values.tolist())

    def finish(self) -> None:
        """Do nothing: the file is complete."""
