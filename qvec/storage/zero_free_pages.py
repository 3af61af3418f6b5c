"""Overwrite all bytes of the file with zeros that do not belong to the last commit.

LMDB does not clear freed space. Free pages, and the gaps inside the pages of LMDB's trees, keep their content until it
is replaced. All bytes that cannot be reached from the newest meta page are therefore zeroed in place. Two commits after
the last commit that used these bytes, the other meta page does not refer to them either.

Branch pages may contain deleted keys. All entries below such a key are deleted and put again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator

from qvec.common import system
from qvec.common.errors import CorruptError, LockedError
from qvec.storage import keys
from qvec.storage.file_pair import PAUSE_FOR_OTHERS, named_users
from qvec.storage.pages import NO_PAGE, PAGE_HEADER, Pages
from qvec.storage.store import Store, Transaction

_PAGES_PER_WRITE = 256
_STEP_SECONDS = 0.5  # one step holds the write lock this long
WRITES = "has it open for writing, and its buffers may have deleted data"
_MAX_ROUNDS = 16  # attempts to rewrite branch pages; usually one suffices

KeyRange = tuple[bytes, bytes | None]


def zero_free_pages(store: Store, patience: float) -> int:
    """Overwrite all bytes with zeros that do not belong to the last commit. Returns how many were not zero before.

    The trees of a commit are read in a snapshot, without the write lock. Free pages are then overwritten in steps that
    hold the lock for a short time, because a writer may use these pages.

    Raises LockedError if a snapshot of this process stays open. Raises LockedError if, for longer than ``patience``
    seconds, another process has a snapshot of an earlier commit or has the file open for writing.
    """
    env = store.env
    env.pair.wait_for_others(patience, WRITES, env.pair.is_only_writer)
    with store.exclusive("erases"):
        env.reopen()
    pages = Pages(env.pair.data_fd, env.psize)
    _rewrite_branches(store, pages)
    with store.write():
        pass  # both meta pages now belong to commits that use no older pages
    with contextlib.ExitStack() as stack:
        with store.exclusive("erases"):
            snap = stack.enter_context(store.read())
            eraser = PageEraser(pages, snap.view.txn_id)
        eraser.read_trees()
        _zero_in_steps(store, eraser, patience)
    system.flush_file(env.pair.data_fd)
    return eraser.done


def _zero_in_steps(store: Store, eraser: PageEraser, patience: float) -> None:
    """Zero the pages, also those that earlier snapshots use, when these have ended."""
    env, deadline = store.env, time.monotonic() + patience
    while True:
        with store.exclusive("erases"):
            if is_only_writer := env.pair.is_only_writer():
                earlier = [commit for commit in env.reader_commits() if commit < eraser.commit]
                ended = eraser.step(min(earlier, default=eraser.commit))
                if ended and not earlier:
                    return
        if is_only_writer and not ended:
            continue
        if time.monotonic() >= deadline:
            what = f"reads {len(earlier)} earlier commits" if is_only_writer else WRITES
            raise LockedError(f"{store.path}: another process {what}{named_users(env.pair.data_fd)}")
        time.sleep(PAUSE_FOR_OTHERS)


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


class PageEraser:
    """Zeroes unused bytes of a file.

    ``commit``: the last commit when this object was created. A snapshot of it is open until the eraser has ended, so
    that its pages do not change. ``done``: how many bytes were not zero before.
    """

    def __init__(self, pages: Pages, commit: int) -> None:
        """The caller excludes writers during this call."""
        self.pages, self.commit, self.done = pages, commit, 0
        self._roots, self._last = pages.roots(), pages.last_page()
        self._used = bytearray(self._last + 1)  # by the commit
        self._used[:2] = b"\1\1"
        self._zeroed = bytearray(self._last + 1)
        self._lost = bytearray()  # pages that are neither used nor free

    def read_trees(self) -> None:
        """Find the pages that the commit uses, and zero the gaps in them. Writers may commit meanwhile."""
        for root in self._roots:
            self._walk(root, self._used, None)
        self._lost = bytearray(1 - used for used in self._used)
        for _, free in self.pages.free_lists(self._roots[0]):
            for page in free:
                if page < len(self._lost):
                    self._lost[page] = 0

    def step(self, oldest: int) -> bool:
        """Zero free pages for half a second. Returns whether no others are left.

        ``oldest``: the oldest commit that a snapshot reads. Pages that later commits freed are not touched. The caller
        excludes writers.
        """
        stop = time.monotonic() + _STEP_SECONDS
        roots, last = self.pages.roots(), self.pages.last_page()
        changed = bytearray(last + 1)
        for root in roots:
            self._walk(root, changed, self._used)
        self._zero_lost(last)
        for freed_by, free in self.pages.free_lists(roots[0]):
            if freed_by > oldest:
                continue
            for first, end in _runs(page for page in free if not self._is_zeroed(page)):
                if any(self._used[first:end]) or any(changed[first:end]):
                    raise CorruptError(f"LMDB's pages {first} to {end - 1} are free and in use")
                self._zero(first * self.pages.psize, end * self.pages.psize)
                self._zeroed[first:end] = b"\1" * (end - first)
                if time.monotonic() > stop:
                    return False
        return True

    def _is_zeroed(self, page: int) -> bool:
        if page >= len(self._zeroed):
            self._zeroed.extend(bytes(page + 1 - len(self._zeroed)))
        return bool(self._zeroed[page])

    def _zero_lost(self, last: int) -> None:
        """Zero pages that no commit can use, and what an undone transaction has left behind the last page."""
        psize = self.pages.psize
        for first, end in _runs(i for i, lost in enumerate(self._lost) if lost):
            self._zero(first * psize, end * psize)
        self._lost = bytearray()
        self._zero((last + 1) * psize, os.fstat(self.pages.fd).st_size)

    def _walk(self, root: int, used: bytearray, before: bytearray | None) -> None:
        """Mark the pages of a tree as used, and zero the gaps in these pages; skip those that are used ``before``."""
        pages, psize = self.pages, self.pages.psize
        waiting = [] if root == NO_PAGE else [root]
        while waiting:
            number = waiting.pop()
            if before is not None and number < len(before) and before[number]:
                continue
            page, data = pages.tree_page(number)
            _mark(used, range(number, number + 1))
            if any(data[page.lower : page.upper]):
                self._zero(number * psize + page.lower, number * psize + page.upper)
            below = [node for node in page.nodes if node.page]
            if page.is_branch:
                waiting += [node.page for node in below]
                continue
            for node in below:
                if before is not None and node.page < len(before) and before[node.page]:
                    continue
                value = pages.value_pages(node.page, node.size)
                _mark(used, value)
                self._zero(value.start * psize + PAGE_HEADER + node.size, value.stop * psize)

    def _zero(self, start: int, stop: int) -> None:
        """Zero bytes of the file."""
        step = _PAGES_PER_WRITE * self.pages.psize
        for at in range(start, stop, step):
            old = system.read_at(self.pages.fd, min(stop - at, step), at)
            filled = len(old) - old.count(0)
            if filled:
                system.write_at(self.pages.fd, bytes(len(old)), at)
            self.done += filled


def _mark(used: bytearray, numbers: range) -> None:
    if numbers.stop > len(used) or any(used[numbers.start : numbers.stop]):
        raise CorruptError(
            f"LMDB's pages {numbers.start} to {numbers.stop - 1} are used twice, or are past the end of the file"
        )
    used[numbers.start : numbers.stop] = b"\1" * len(numbers)


def _runs(pages: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the runs of consecutive pages, of at most 256: the first page, and the page after the last."""
    first = stop = -1
    for page in sorted(pages):
        if page != stop or stop - first == _PAGES_PER_WRITE:
            if first >= 0:
                yield first, stop
            first = page
        stop = page + 1
    if first >= 0:
        yield first, stop
