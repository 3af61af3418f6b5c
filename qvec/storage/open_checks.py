"""Check a file before it is mapped: that it exists, is an LMDB file, is complete and, on request, is valid."""

from __future__ import annotations

from qvec.common.errors import CorruptError, LockedError
from qvec.storage.pages import Pages, inspect, structure_problems

_TRIES = 5  # attempts to read a file between two commits


def check(path: str) -> None:
    """Raise an error for a file that is missing, foreign or truncated."""
    meta, size = inspect(path)
    needed = (meta.last_page + 1) * meta.psize
    if size >= needed:
        return
    # Pages at the end of the file that a commit allocated and freed again may never have been written. LMDB's verifier
    # checks the first page of a value only, hence the second condition.
    if structure_problems(path) or _last_used(path, meta.psize) >= size // meta.psize:
        raise CorruptError(f"{path} is truncated: {size} bytes of {needed}")


def _last_used(path: str, psize: int) -> int:
    with open(path, "rb") as file:
        return Pages(file.fileno(), psize).last_used()


def check_structure(path: str) -> None:
    """Raise CorruptError if pages of the file could crash LMDB, LockedError if others write to the file."""
    for _ in range(_TRIES):
        before = inspect(path)
        problems = structure_problems(path)
        if inspect(path) == before:
            break
    else:
        raise LockedError(f"{path} changes while it is checked: with untrusted=True, nobody may write to the file")
    if problems:
        raise CorruptError(f"{path} is damaged: {problems[0]}; {len(problems)} problems in all")
