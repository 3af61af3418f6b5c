"""Read LMDB's pages without LMDB: two meta pages and two trees (MDB_meta, MDB_page, MDB_node, MDB_db in mdb.c).

liblmdb maps any given file. A truncated file then kills the process with SIGBUS, and a foreign file may fail an
assertion. Before a file is mapped, its pages are therefore checked with this module.
"""

from __future__ import annotations

import importlib
import os
import stat
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from qvec.common import system
from qvec.common.errors import CorruptError, FormatError, NotFoundError, ReadOnlyError

NO_PAGE = 0xFFFFFFFFFFFFFFFF
PAGE_HEADER = 16
_MAGIC = 0xBEEFC0DE
_DATA_VERSION = 1
_PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))
# page header | magic, version | address, map size | free pages' tree: page size, root | main tree: root | last page, id
_META = struct.Struct("<16x II 16x I 36x Q 40x Q QQ")
_HEADER = struct.Struct("<8x 2x H HH")  # flags | lower, upper: the gap between the nodes' offsets and the nodes
_NODE = struct.Struct("<HHHH")  # size or page number, low and middle | flags, or its high part | size of the key
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4  # flags of a page
_BIG = 1  # flag of a node: its value is on overflow pages


class Meta(NamedTuple):
    """A meta page: the page size, the roots of both trees (NO_PAGE: the tree is empty), and the last commit."""

    magic: int
    version: int
    psize: int
    free_root: int
    main_root: int
    last_page: int
    txn_id: int


_NO_META = Meta(0, 0, 0, 0, 0, 0, 0)


def inspect(path: str) -> tuple[Meta, int]:
    """Return the newest meta page of a file and the file's size in bytes.

    Raises NotFoundError; ReadOnlyError without permission to read; FormatError if it is no LMDB 0.9 file; CorruptError
    if its second meta page is cut off or damaged.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FormatError(f"{path} is a directory or device, not a qvec file")
        with open(path, "rb") as file:
            return _checked_meta(path, file.fileno())
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: there is no such file") from error
    except PermissionError as error:
        raise ReadOnlyError(f"there is no permission to read {path}") from error


def _checked_meta(path: str, fd: int) -> tuple[Meta, int]:
    first = _read_meta(fd, 0)
    if first.magic != _MAGIC or first.psize not in _PAGE_SIZES:
        raise FormatError(f"{path} is not a qvec file")
    if first.version != _DATA_VERSION:
        raise FormatError(f"{path} has LMDB data format {first.version}; this version reads {_DATA_VERSION}")
    second, size = _read_meta(fd, first.psize), os.fstat(fd).st_size
    if second.magic != _MAGIC or size < 2 * first.psize:
        raise CorruptError(f"{path} is truncated or damaged: its second meta page is incomplete")
    return max(first, second, key=lambda meta: meta.txn_id)._replace(psize=first.psize), size


def newest_commit(fd: int) -> int:
    """Return the transaction id of the last commit in an open file, whose first meta page must be valid."""
    first = _read_meta(fd, 0)
    return max(first.txn_id, _read_meta(fd, first.psize).txn_id)


def _read_meta(fd: int, at: int) -> Meta:
    page = system.read_at(fd, _META.size, at)
    return Meta(*_META.unpack(page)) if len(page) == _META.size else _NO_META


@dataclass(frozen=True)
class Node:
    """A node of a branch page has a key and a child page. A node of a leaf page has a key and a value.

    ``page``: the child page, or the first page of a value on overflow pages; 0 for other values. ``size``: the number
    of bytes of a value. ``at``: position of the value in the page if it is not on overflow pages.
    """

    key: bytes
    page: int
    size: int = 0
    at: int = 0


@dataclass(frozen=True)
class TreePage:
    """A page of a tree. Its gap, the unused bytes between offsets and nodes, goes from ``lower`` to ``upper``."""

    is_branch: bool
    lower: int
    upper: int
    nodes: list[Node]


@dataclass(frozen=True)
class Pages:
    """The pages of an open file. Nobody may commit while pages are read."""

    fd: int
    psize: int

    def roots(self) -> tuple[int, int]:
        """Return the roots of the tree of free pages and of the main tree in the last commit; NO_PAGE for an empty
        tree."""
        newest = max((_read_meta(self.fd, i * self.psize) for i in (0, 1)), key=lambda meta: meta.txn_id)
        return newest.free_root, newest.main_root

    def last_page(self) -> int:
        """Return the highest page that a commit has used."""
        return max((_read_meta(self.fd, i * self.psize) for i in (0, 1)), key=lambda meta: meta.txn_id).last_page

    def free_lists(self, root: int) -> Iterator[tuple[int, list[int]]]:
        """Yield transaction ids and the pages that each transaction freed and that are still free.

        ``root``: of the tree of free pages. Its values are 64-bit numbers: their count, then the pages.
        """
        waiting = [] if root == NO_PAGE else [root]
        while waiting:
            page, data = self.tree_page(waiting.pop())
            if page.is_branch:
                waiting += [node.page for node in page.nodes]
                continue
            for node in page.nodes:
                start = node.page * self.psize + PAGE_HEADER
                value = system.read_at(self.fd, node.size, start) if node.page else data[node.at : node.at + node.size]
                numbers = memoryview(value[: len(value) // 8 * 8]).cast("Q")
                yield int.from_bytes(node.key, sys.byteorder), numbers[1 : numbers[0] + 1].tolist()

    def tree_page(self, number: int) -> tuple[TreePage, bytes]:
        """Return a page of a tree and its bytes. Raises CorruptError if it is no page of a tree."""
        page = self._read(number)
        flags, lower, upper = _HEADER.unpack_from(page)
        if not flags & (_BRANCH | _LEAF) or not PAGE_HEADER <= lower <= upper <= self.psize:
            raise CorruptError(f"LMDB's page {number} is not a page of a tree")
        try:
            nodes = list(_nodes(page, lower, bool(flags & _BRANCH)))
        except struct.error as error:
            raise CorruptError(f"LMDB's page {number} is damaged: {error}") from error
        return TreePage(bool(flags & _BRANCH), lower, upper, nodes), page

    def value_pages(self, first: int, size: int) -> range:
        """Return the overflow pages of a value. Raises CorruptError if the first is not an overflow page."""
        if not _HEADER.unpack_from(self._read(first))[0] & _OVERFLOW:
            raise CorruptError(f"LMDB's page {first} is not a page of a value")
        return range(first, first - (PAGE_HEADER + size) // -self.psize)

    def last_used(self) -> int:
        """Return the highest page of both trees and of their values. The trees must be valid."""
        highest, waiting = 1, [root for root in self.roots() if root != NO_PAGE]
        while waiting:
            number = waiting.pop()
            page, _ = self.tree_page(number)
            highest = max(highest, number)
            if page.is_branch:
                waiting += [node.page for node in page.nodes]
            else:
                values = (self.value_pages(node.page, node.size) for node in page.nodes if node.page)
                highest = max([highest, *(value[-1] for value in values)])
        return highest

    def _read(self, number: int) -> bytes:
        page = system.read_at(self.fd, self.psize, number * self.psize) if number < 1 << 48 else b""
        if len(page) < self.psize:
            raise CorruptError(f"LMDB's page {number} is past the end of the file")
        return page


def _nodes(page: bytes, lower: int, branch: bool) -> Iterator[Node]:
    for offset in struct.unpack_from(f"<{(lower - PAGE_HEADER) // 2}H", page, PAGE_HEADER):
        low, middle, high, key_size = _NODE.unpack_from(page, offset)
        data = offset + _NODE.size + key_size
        key = page[data - key_size : data]
        if branch:
            yield Node(key, low | middle << 16 | high << 32)
        elif high & _BIG:
            (first,) = struct.unpack_from("<Q", page, data)
            yield Node(key, first, low | middle << 16)
        else:
            yield Node(key, 0, low | middle << 16, data)


def structure_problems(path: str) -> list[str]:
    """Return the problems that LMDB's verifier finds in the pages of a file. liblmdb is not used."""
    verifier = importlib.import_module("lmdb.verify")  # rarely needed, and untyped
    try:
        return list(verifier.verify(path, subdir=False))
    except verifier.VerifyError as error:
        return [str(error)]
