"""Exceptions of qvec: one for each situation of the caller. Each is also a built-in exception."""

from __future__ import annotations


class QvecError(Exception):
    """Base of every error that qvec raises on purpose."""


class InputError(QvecError, ValueError):
    """An argument is wrong: its shape, type, value or combination. Nothing was written."""


class DuplicateIdError(InputError):
    """An id occurs twice in a batch, or is already stored and ``on_conflict`` is ``"error"``."""


class MissingIdError(QvecError, KeyError):
    """No live vector has this id."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class NotFoundError(QvecError, FileNotFoundError):
    """There is no file at this path."""


class ReplacedError(QvecError, OSError):
    """The path of an open file now refers to another file, or to none. Nothing was written."""


class ExistsError(QvecError, FileExistsError):
    """A file is already at this path."""


class FormatError(QvecError, ValueError):
    """The file is not a qvec file, or has a newer format than this version reads."""


class CorruptError(QvecError, OSError):
    """The file is damaged: truncated, or a block or record fails its checksum."""


class SearchTimeoutError(QvecError, TimeoutError):
    """A search did not end within its ``timeout``."""


class LockedError(QvecError, BlockingIOError):
    """Another task, handle or process writes, does the same job, or uses the file in a way that excludes the call."""


class ReadOnlyError(QvecError, PermissionError):
    """The handle was opened with ``mode="r"``, or the file cannot be written."""


class ClosedError(QvecError, ValueError):
    """The handle was closed."""


class AbortedError(QvecError, RuntimeError):
    """A call failed half-way inside a ``transaction()``: the transaction accepts no more calls and is rolled back."""


class ForkedError(QvecError, RuntimeError):
    """A transaction that was open across a fork was used in the child process."""


class MapFullError(QvecError, OSError):
    """The memory map cannot grow any further (address space or the ``map_size`` limit)."""


class DiskFullError(QvecError, OSError):
    """The disk or the process's file-size limit has no room for the commit. The state before the commit is kept."""


class MissingShardError(QvecError, RuntimeError):
    """Shards did not answer a search: they are missing, damaged or too slow. ``shards``: their names."""

    def __init__(self, message: str, shards: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.shards = shards


class DriftError(InputError):
    """A batch raised the drift level to alarm and was refused (``on_drift="raise"``). Nothing was written."""


class DriftWarning(UserWarning):
    """The drift level is alarm: searches by the active codes lose recall (``on_drift="warn"``)."""


class MissingExtraError(QvecError, ImportError):
    """An optional dependency is not installed. The message names the extra that installs it."""
