"""Bytes of the file that the last commit does not use, overwritten with zeros.

LMDB never clears what it frees: pages keep what was on them until others are written over them, and so do the gaps
inside pages of its trees. All that cannot be reached from the newest meta page is zeroed, in place; once two commits
have followed the last one that used it, it cannot be reached from the other meta page either.

Branch pages name keys that may have been deleted since: what is below such a key is put again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from qvec.common.errors import CorruptError, LockedError
from qvec.storage import keys
from qvec.storage.pages import NO_PAGE, PAGE_HEADER, Pages
from qvec.storage.store import Store, Transaction

_RUN = 256  # pages zeroed at a time
_ROUNDS = 16  # of putting again; one is usual

Range = tuple[bytes, bytes | None]


def scrub(store: Store) -> int:
    """Overwrite with zeros what is in the file and not in the last commit; how many bytes of it were not zero.

    Searches wait. LockedError while snapshots, of this process or another, read an earlier commit.
    """
    env = store._env
    with store.exclusive():
        env.renew()
    with _opened(store) as pages:
        _put_again(store, pages)
    with store.write():
        pass  # both meta pages are now of commits that use nothing older
    with store.exclusive(), env.alone(), _opened(store) as pages:
        newest = env.lmdb.info()["last_txnid"]
        behind = [commit for commit in env.reader_commits() if commit < newest]
        if behind:
            raise LockedError(f"{store.path}: snapshots of other processes keep {len(behind)} earlier commits")
        return Scrubber(pages).run()


@contextlib.contextmanager
def _opened(store: Store) -> Iterator[Pages]:
    fd = os.open(store.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield Pages(fd, store._env.psize)
    finally:
        os.close(fd)


# --- keys in branch pages ---


def _put_again(store: Store, pages: Pages) -> None:
    """Commit until branch pages name no deleted keys."""
    for _ in range(_ROUNDS):
        with store.write() as txn:
            stale = [span for key, span in _named(pages, *pages.roots()[1:], (b"", None)) if _is_deleted(txn, key)]
            for start, stop in stale:
                txn.put_again(start, stop)
        if not stale:
            return
    raise CorruptError(f"{store.path}: LMDB's branch pages keep deleted keys")


def _is_deleted(txn: Transaction, key: bytes) -> bool:
    return key >= keys.ENTRY and txn._get(key) is None  # other keys are numbers


def _named(pages: Pages, root: int, span: Range) -> Iterator[tuple[bytes, Range]]:
    """The keys of branch pages, and what lies below each of them."""
    page, _ = pages.tree_page(root)
    if not page.is_branch:
        return
    starts = [span[0], *(node.key for node in page.nodes[1:])]
    for node, start, stop in zip(page.nodes, starts, [*starts[1:], span[1]], strict=True):
        below = start, stop
        if node.key:
            yield node.key, below
        yield from _named(pages, node.page, below)


# --- pages ---


@dataclass
class Scrubber:
    """The caller sees to it that nobody writes, or reads an older commit."""

    pages: Pages

    def run(self) -> int:
        """Overwrite; how many bytes were not zero."""
        fd, psize = self.pages.fd, self.pages.psize
        used = bytearray(-(-os.fstat(fd).st_size // psize))
        used[:2] = b"\1\1"
        done = sum(self._walk(root, used) for root in self.pages.roots() if root != NO_PAGE)
        for first, stop in _runs(used):
            done += self._zero(first * psize, stop * psize)
        os.fsync(fd)
        return done

    def _walk(self, root: int, used: bytearray) -> int:
        """Mark the pages of a tree as used, and zero the gaps of those that have any."""
        pages, psize = self.pages, self.pages.psize
        waiting, done = [root], 0
        while waiting:
            number = waiting.pop()
            page, data = pages.tree_page(number)
            _use(used, range(number, number + 1))
            if any(data[page.lower : page.upper]):
                done += self._zero(number * psize + page.lower, number * psize + page.upper)
            below = [node for node in page.nodes if node.page]
            if page.is_branch:
                waiting += [node.page for node in below]
                continue
            for node in below:
                own = pages.pages_of(node.page, node.size)
                _use(used, own)
                done += self._zero(own.start * psize + PAGE_HEADER + node.size, own.stop * psize)
        return done

    def _zero(self, start: int, stop: int) -> int:
        """Zero bytes of the file; how many were not."""
        done, step = 0, _RUN * self.pages.psize
        for at in range(start, stop, step):
            old = os.pread(self.pages.fd, min(stop - at, step), at)
            filled = len(old) - old.count(0)
            if filled:
                os.pwrite(self.pages.fd, bytes(len(old)), at)
            done += filled
        return done


def _use(used: bytearray, numbers: range) -> None:
    if any(used[numbers.start : numbers.stop]) or numbers.stop > len(used):
        raise CorruptError(f"LMDB's pages {numbers.start} to {numbers.stop - 1} are used twice, or beyond the file")
    used[numbers.start : numbers.stop] = b"\1" * len(numbers)


def _runs(used: bytearray) -> Iterator[tuple[int, int]]:
    """Where pages lie that are not used: (first, the one behind the last)."""
    first = used.find(0)
    while first >= 0:
        stop = used.find(1, first)
        stop = len(used) if stop < 0 else stop
        yield first, stop
        first = used.find(0, stop)
