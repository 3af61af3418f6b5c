"""Overwrite all bytes of the file with zeros that do not belong to the last commit.

LMDB does not clear freed space. Free pages, and the gaps inside the pages of LMDB's trees, keep their content until it
is replaced. All bytes that cannot be reached from the newest meta page are therefore zeroed in place. Two commits after
the last commit that used these bytes, the other meta page does not refer to them either.

Branch pages may contain deleted keys. All entries below such a key are deleted and put again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from qvec.common.errors import CorruptError, LockedError
from qvec.storage import keys
from qvec.storage.file_pair import PAUSE_FOR_OTHERS, users_of
from qvec.storage.pages import NO_PAGE, PAGE_HEADER, Pages
from qvec.storage.store import Store, Transaction

_PAGES_PER_WRITE = 256
WRITES = "has it open for writing, and its buffers may have deleted data"
_MAX_ROUNDS = 16  # attempts to rewrite branch pages; usually one suffices

KeyRange = tuple[bytes, bytes | None]


def zero_free_pages(store: Store, patience: float) -> int:
    """Overwrite all bytes with zeros that do not belong to the last commit. Returns how many were not zero before.

    Searches of this process wait. Raises LockedError if a snapshot of this process stays open. Raises LockedError if,
    for longer than ``patience`` seconds, another process has a snapshot of an earlier commit or has the file open for
    writing.
    """
    env = store.env
    env.pair.wait_for_others(patience, WRITES, env.pair.is_only_writer)
    with store.exclusive("erases"):
        env.reopen()
    pages = Pages(env.pair.data_fd, env.psize)
    _rewrite_branches(store, pages)
    with store.write():
        pass  # both meta pages now belong to commits that use no older pages
    deadline = time.monotonic() + patience
    while (done := _zeroed(store, pages, last=time.monotonic() >= deadline)) is None:
        time.sleep(PAUSE_FOR_OTHERS)
    return done


def _zeroed(store: Store, pages: Pages, last: bool) -> int | None:
    """Zero the pages. If another process prevents this, return None or, at the last attempt, raise LockedError."""
    env = store.env
    with store.exclusive("erases"), env.exclusive_map():
        newest = env.lmdb.info()["last_txnid"]
        behind = sum(commit < newest for commit in env.reader_commits())
        if env.pair.is_only_writer() and not behind:
            return PageEraser(pages).run()
        if last:
            what = f"reads {behind} earlier commits" if behind else WRITES
            raise LockedError(f"{store.path}: another process {what}{users_of(env.pair.data_fd)}")
    return None


# --- keys in branch pages ---


def _rewrite_branches(store: Store, pages: Pages) -> None:
    """Commit until branch pages contain no deleted keys."""
    for _ in range(_MAX_ROUNDS):
        with store.write() as txn:
            main_root = pages.roots()[1]
            stale = [span for key, span in _branch_keys(pages, main_root, (b"", None)) if _is_deleted(txn, key)]
            for start, stop in stale:
                txn.put_again(start, stop)
        if not stale:
            return
    raise CorruptError(f"{store.path}: LMDB's branch pages still contain deleted keys")


def _is_deleted(txn: Transaction, key: bytes) -> bool:
    return key >= keys.ENTRY and txn._get(key) is None  # other keys are numbers


def _branch_keys(pages: Pages, root: int, span: KeyRange) -> Iterator[tuple[bytes, KeyRange]]:
    """Yield the keys of branch pages, each with the range of keys below it."""
    page, _ = pages.tree_page(root)
    if not page.is_branch:
        return
    starts = [span[0], *(node.key for node in page.nodes[1:])]
    for node, start, stop in zip(page.nodes, starts, [*starts[1:], span[1]], strict=True):
        below = start, stop
        if node.key:
            yield node.key, below
        yield from _branch_keys(pages, node.page, below)


# --- pages ---


@dataclass
class PageEraser:
    """Zeroes unused bytes of a file. The caller excludes writers, and readers of older commits."""

    pages: Pages

    def run(self) -> int:
        """Zero all unused bytes. Returns how many were not zero."""
        fd, psize = self.pages.fd, self.pages.psize
        used = bytearray(-(-os.fstat(fd).st_size // psize))
        used[:2] = b"\1\1"
        done = sum(self._walk(root, used) for root in self.pages.roots() if root != NO_PAGE)
        for first, stop in _unused_runs(used):
            done += self._zero(first * psize, stop * psize)
        os.fsync(fd)
        return done

    def _walk(self, root: int, used: bytearray) -> int:
        """Mark the pages of a tree as used, and zero the gaps in these pages. Returns how many bytes were not zero."""
        pages, psize = self.pages, self.pages.psize
        waiting, done = [root], 0
        while waiting:
            number = waiting.pop()
            page, data = pages.tree_page(number)
            _mark(used, range(number, number + 1))
            if any(data[page.lower : page.upper]):
                done += self._zero(number * psize + page.lower, number * psize + page.upper)
            below = [node for node in page.nodes if node.page]
            if page.is_branch:
                waiting += [node.page for node in below]
                continue
            for node in below:
                value = pages.value_pages(node.page, node.size)
                _mark(used, value)
                done += self._zero(value.start * psize + PAGE_HEADER + node.size, value.stop * psize)
        return done

    def _zero(self, start: int, stop: int) -> int:
        """Zero bytes of the file. Returns how many were not zero."""
        done, step = 0, _PAGES_PER_WRITE * self.pages.psize
        for at in range(start, stop, step):
            old = os.pread(self.pages.fd, min(stop - at, step), at)
            filled = len(old) - old.count(0)
            if filled:
                os.pwrite(self.pages.fd, bytes(len(old)), at)
            done += filled
        return done


def _mark(used: bytearray, numbers: range) -> None:
    if any(used[numbers.start : numbers.stop]) or numbers.stop > len(used):
        raise CorruptError(
            f"LMDB's pages {numbers.start} to {numbers.stop - 1} are used twice, or are past the end of the file"
        )
    used[numbers.start : numbers.stop] = b"\1" * len(numbers)


def _unused_runs(used: bytearray) -> Iterator[tuple[int, int]]:
    """Yield the runs of unused pages: the first page, and the page after the last."""
    first = used.find(0)
    while first >= 0:
        stop = used.find(1, first)
        stop = len(used) if stop < 0 else stop
        yield first, stop
        first = used.find(0, stop)
