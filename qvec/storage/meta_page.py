"""What LMDB's two meta pages say about a file, read without LMDB.

liblmdb maps whatever the file's name leads to: a truncated file then kills the process with SIGBUS, a foreign
one may fail an assertion. So the meta pages (struct MDB_meta of LMDB 0.9, mdb.c) are read plainly first.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass

from qvec.common.errors import CorruptError, FormatError, NotFoundError, ReadOnlyError

_MAGIC = 0xBEEFC0DE
_DATA_VERSION = 1
_PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))
# page header 16 | magic, version | address, map size | free db: page size, 44 more | main db | last page, id
_META = struct.Struct("<16x II 16x I 44x 48x QQ")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The newest meta page: page size in bytes, pages in use, id of the last commit; and the file's bytes."""

    psize: int
    n_pages: int
    txn_id: int
    size: int

    @property
    def is_truncated(self) -> bool:
        return self.size < self.n_pages * self.psize


def inspect(path: str) -> FileFacts:
    """Read the facts.

    NotFoundError; ReadOnlyError: it may not be read; FormatError: no LMDB 0.9 file; CorruptError: cut short.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FormatError(f"{path} is a directory or device, not a qvec file")
        with open(path, "rb") as file:
            return _read(path, file.fileno())
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: there is no such file") from error
    except PermissionError as error:
        raise ReadOnlyError(f"{path} may not be read") from error


def _read(path: str, fd: int) -> FileFacts:
    magic, version, psize, *first = _meta(os.pread(fd, _META.size, 0))
    if magic != _MAGIC or psize not in _PAGE_SIZES:
        raise FormatError(f"{path} is not a qvec file")
    if version != _DATA_VERSION:
        raise FormatError(f"{path} has LMDB data format {version}; this version reads {_DATA_VERSION}")
    magic, _, _, *second = _meta(os.pread(fd, _META.size, psize))
    size = os.fstat(fd).st_size
    if magic != _MAGIC or size < 2 * psize:
        raise CorruptError(f"{path} is truncated or damaged: its second meta page is not whole")
    txn_id, last_pgno = max((first[1], first[0]), (second[1], second[0]))
    return FileFacts(psize, last_pgno + 1, txn_id, size)


def _meta(page: bytes) -> tuple[int, ...]:
    return _META.unpack(page) if len(page) == _META.size else (0, 0, 0, 0, 0)
