"""LMDB's pages read plainly: its two trees, from the newest meta page on (struct MDB_page, MDB_node, MDB_db; mdb.c)."""

from __future__ import annotations

import importlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from qvec.common.errors import CorruptError

NO_PAGE = 0xFFFFFFFFFFFFFFFF
PAGE_HEADER = 16
_ROOTS = 16 + 24 + 40, 16 + 24 + 48 + 40  # in a meta page: of the free pages' tree, of the main one
_META_TXN = slice(144, 152)
_HEADER = struct.Struct("<8x 2x H HH")  # flags | lower, upper: the gap between the nodes' offsets and the nodes
_NODE = struct.Struct("<HHHH")  # size or page number, low and middle | flags, or its high part | size of the key
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4  # flags of a page
_BIG = 1  # flag of a node: its value is on pages of its own


@dataclass(frozen=True)
class Node:
    """Of a branch: a key, and the page below it. Of a leaf: a key, and where its value has pages of its own, the first.

    ``page`` is 0 where there is none; ``size``: the value's bytes.
    """

    key: bytes
    page: int
    size: int = 0


@dataclass(frozen=True)
class TreePage:
    """``lower``, ``upper``: where its gap begins and ends."""

    is_branch: bool
    lower: int
    upper: int
    nodes: list[Node]


@dataclass(frozen=True)
class Pages:
    """The pages of an open file; nobody may commit while they are read."""

    fd: int
    psize: int

    def roots(self) -> tuple[int, int]:
        """Of the free pages' tree and of the main one, in the last commit; NO_PAGE: the tree is empty."""
        metas = [os.pread(self.fd, self.psize, i * self.psize) for i in (0, 1)]
        newest = max(metas, key=lambda meta: int.from_bytes(meta[_META_TXN], "little"))
        free, main = (int.from_bytes(newest[at : at + 8], "little") for at in _ROOTS)
        return free, main

    def tree_page(self, number: int) -> tuple[TreePage, bytes]:
        """A page of a tree and its bytes; CorruptError where it is none."""
        page = self._read(number)
        flags, lower, upper = _HEADER.unpack_from(page)
        if not flags & (_BRANCH | _LEAF) or not PAGE_HEADER <= lower <= upper <= self.psize:
            raise CorruptError(f"LMDB's page {number} is no page of a tree")
        try:
            nodes = list(_nodes(page, lower, bool(flags & _BRANCH)))
        except struct.error as error:
            raise CorruptError(f"LMDB's page {number} is damaged: {error}") from error
        return TreePage(bool(flags & _BRANCH), lower, upper, nodes), page

    def pages_of(self, first: int, size: int) -> range:
        """The pages of a value of its own pages; CorruptError where they are none."""
        if not _HEADER.unpack_from(self._read(first))[0] & _OVERFLOW:
            raise CorruptError(f"LMDB's page {first} is no page of a value")
        return range(first, first - (PAGE_HEADER + size) // -self.psize)

    def last_used(self) -> int:
        """The highest page of the trees, which are sound, and of their values."""
        highest, waiting = 1, [root for root in self.roots() if root != NO_PAGE]
        while waiting:
            number = waiting.pop()
            page, _ = self.tree_page(number)
            highest = max(highest, number)
            if page.is_branch:
                waiting += [node.page for node in page.nodes]
            else:
                highest = max([highest, *(self.pages_of(node.page, node.size)[-1] for node in page.nodes if node.page)])
        return highest

    def _read(self, number: int) -> bytes:
        page = os.pread(self.fd, self.psize, number * self.psize) if number < 1 << 48 else b""
        if len(page) < self.psize:
            raise CorruptError(f"LMDB's page {number} is beyond the end of the file")
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
            yield Node(key, 0)


def structure_problems(path: str) -> list[str]:
    """What is wrong with LMDB's pages, read without liblmdb."""
    verifier = importlib.import_module("lmdb.verify")  # seldom needed, and has no types
    try:
        return list(verifier.verify(path, subdir=False))
    except verifier.VerifyError as error:
        return [str(error)]
