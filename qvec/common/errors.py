"""Exceptions of qvec: one per situation of the caller, each also the built-in that Python users expect."""

from __future__ import annotations


class QvecError(Exception):
    """Base of every error that qvec raises on purpose."""


class InputError(QvecError, ValueError):
    """An argument is wrong: its shape, type, value or combination. Nothing was written."""


class DuplicateIdError(InputError):
    """An id is twice in a batch, or is already stored and ``on_conflict`` is ``"error"``."""


class MissingIdError(QvecError, KeyError):
    """No live vector has this id."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class NotFoundError(QvecError, FileNotFoundError):
    """There is no file at this path."""


class ExistsError(QvecError, FileExistsError):
    """A file is already at this path."""


class FormatError(QvecError, ValueError):
    """The file is not a qvec file, or is of a newer format than this version reads."""


class CorruptError(QvecError, OSError):
    """The file is damaged: truncated, or a block or record fails its checksum."""


class LockedError(QvecError, BlockingIOError):
    """Another handle or process holds the collection open for writing."""


class ReadOnlyError(QvecError, PermissionError):
    """The handle was opened with ``mode="r"``, or the file cannot be written."""


class ClosedError(QvecError, ValueError):
    """The handle was closed."""


class AbortedError(QvecError, RuntimeError):
    """A call failed half-way inside a ``transaction()``; nothing more can be done in it, and all of it is undone."""


class ForkedError(QvecError, RuntimeError):
    """A transaction that was open across a fork was used in the child process."""


class MapFullError(QvecError, OSError):
    """The memory map cannot grow any further (address space or the ``map_size`` limit)."""


class DiskFullError(QvecError, OSError):
    """The disk, or the process's file-size limit, has no room for the commit; the state before it stands."""


class DriftError(InputError):
    """A batch that raises the drift alarm was refused, as ``on_drift="raise"`` asks. Nothing was written."""


class DriftWarning(UserWarning):
    """The code in force loses recall on the vectors that are added now."""


class MissingExtraError(QvecError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""
