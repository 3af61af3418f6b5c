"""Named collections in one directory, each in a separate file."""

from __future__ import annotations

import builtins
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from weakref import WeakSet

from qvec.collection.collection import Collection
from qvec.collection.open import create, open
from qvec.common.errors import InputError, NotFoundError
from qvec.common.types import Mode
from qvec.storage.atomic_file import remove

SUFFIX = ".qvec"
MAX_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{MAX_NAME - 1}}}")


class Database:
    """A directory of collections. A collection is a file ``NAME.qvec``, which :func:`qvec.open` opens as well.

    Collections are independent: each has its own dimension, code, index, writer and transactions. Other files in the
    directory are ignored.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the directory, or create it. Raises NotFoundError if its parent is missing or the path is a file."""
        self.path = Path(path)
        try:
            self.path.mkdir(exist_ok=True)
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            raise NotFoundError(f"{self.path} is not a directory and cannot be created: {error}") from error
        self._opened: WeakSet[Collection] = WeakSet()  # a collection that is garbage-collected has closed itself

    def create(self, name: str, dim: int, **options: Any) -> Collection:
        """Create a collection and open it for writing. options: as of :func:`qvec.create`.

        name: 1 to 64 letters, digits, "_" and "-"; the first is a letter or a digit.
        Raises InputError, and ExistsError unless ``exist_ok=True``.
        """
        return self._remember(create(self._file(name), dim, **options))

    def open(self, name: str, mode: Mode = "rw", **options: Any) -> Collection:
        """Open a collection. options: as of :func:`qvec.open`. Raises NotFoundError, which lists the collections."""
        self._check_there(name)
        return self._remember(open(self._file(name), mode, **options))

    def list(self) -> builtins.list[str]:
        """The names of the collections, in alphabetical order."""
        files = (path for path in self.path.glob(f"*{SUFFIX}") if path.is_file())
        return sorted(path.stem for path in files if _NAME.fullmatch(path.stem))

    def drop(self, name: str) -> None:
        """Delete the file of a collection. Raises NotFoundError; LockedError while it is open for writing.

        Handles that are open for reading can still read the collection until they are closed.
        """
        self._check_there(name)
        remove(str(self._file(name)))

    def close(self) -> None:
        """Close the collections that were opened by this object."""
        for collection in list(self._opened):
            collection.close()
        self._opened.clear()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _NAME.fullmatch(name) is not None and self._file(name).is_file()

    def __iter__(self) -> Iterator[str]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self.list())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<qvec.Database {os.fspath(self.path)!r}: {', '.join(self.list()) or 'empty'}>"

    def _file(self, name: str) -> Path:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError(
                f"a collection's name is 1 to {MAX_NAME} letters, digits, '_' and '-' and begins with a letter or a "
                f"digit; got {name!r}"
            )
        return self.path / f"{name}{SUFFIX}"

    def _check_there(self, name: str) -> None:
        if not self._file(name).is_file():
            there = ", ".join(self.list()) or "none"
            raise NotFoundError(f"{self.path} has no collection {name!r}; there are: {there}")

    def _remember(self, collection: Collection) -> Collection:
        self._opened.add(collection)
        return collection
