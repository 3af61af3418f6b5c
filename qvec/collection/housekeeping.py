"""The part of a collection that tells how the file is, and keeps it fit."""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from typing import TYPE_CHECKING

from qvec.collection.coding import Coding
from qvec.collection.handle import worker_threads
from qvec.common.errors import CorruptError, InputError, LockedError
from qvec.common.switch_interval import short_switch_interval
from qvec.common.types import Stats, check_flag
from qvec.index import Progress
from qvec.maintenance.stats import collect_stats

if TYPE_CHECKING:  # imported when it is called
    from qvec.maintenance.optimize import Maintenance


class Housekeeping(Coding):
    """What :class:`qvec.Collection` inherits of calls that look after the file."""

    def stats(self, *, graph: bool = False) -> Stats:
        """Counts and sizes as of the last commit. ``graph``: also the graph's degree and reach, by going through it."""
        check_flag("graph", graph)
        with self._store.read() as snap:
            shape = None
            if graph:
                from qvec.maintenance.verify import shape_of_graph

                shape = shape_of_graph(snap, self._config, self._quantizer(snap), self._originals(snap))
            return collect_stats(snap, self._store, self._config, shape)

    def verify(self, *, deep: bool = True) -> list[str]:
        """Check every block, record, id and edge of the last commit; the problems found, none when it is sound.

        deep: besides checksums, counts, the id map and whether a walk reaches every row, make anew what follows from
        originals and payloads (codes, packed nodes, entries of lists, indexes of fields), and compare.
        """
        from qvec.maintenance.verify import verify_snapshot

        check_flag("deep", deep)
        if self._store.in_transaction:
            raise InputError(
                "verify() checks what is in the file; inside a transaction that is not what it has written"
            )
        with self._store.read() as snap:
            return verify_snapshot(snap, self._config, self._quantizer, self._originals, deep)

    def repair(self, *, threads: int | None = None) -> list[str]:
        """Make anew what is damaged or wrong and follows from the rest; what that was, nothing where all is sound.

        That is: codes, the index, the id map or what it is made from, and the indexes of fields; codes of generations
        that are not in force are dropped. One transaction, which holds in memory what it makes.

        Raises CorruptError, and writes nothing, where originals, payloads, calibrations or LMDB's own pages are
        damaged: restore a :meth:`backup` then. ReadOnlyError; InputError inside a transaction.
        """
        from qvec.maintenance.repair import Repair
        from qvec.storage.pages import structure_problems

        workers = worker_threads(threads)
        if not self.verify():
            return []
        if problems := structure_problems(self._store.path):
            raise CorruptError(f"LMDB's own pages cannot be made anew: {problems[0]}. Restore a backup")
        with self._store.write() as txn:
            done = Repair(txn, self._writer(txn), workers).run()
        if problems := self.verify():
            raise CorruptError(f"this remains after the repair: {problems[0]}. Restore a backup")
        return done

    def optimize(self, *, threads: int | None = None, progress: Progress | None = None) -> int:
        """Take all that is deleted out of the index, and move vectors together, while searches and writes go on.

        Returns how many rows that were not in use it gave up.

        Where walks over the graph then find less than 95 % of what a scan of the codes finds, a new one is linked and
        takes its place: a generation of the same codes (:meth:`calibrations`).

        Works in transactions of a few hundred to 4,096 rows; a process that dies has done what it has done, and calling
        again goes on from there. :meth:`compact` then gives the pages back. Meanwhile threads of this process take
        turns in Python every tenth of a millisecond (``sys.setswitchinterval``), so that searches do not wait.
        threads: default one, and the others are left to searches. progress: called with (done, total) rows of one pass
        after the other: repairs of the index, moves, a new graph.

        Raises ReadOnlyError; InputError inside a transaction.
        """
        if self._store.in_transaction:
            raise InputError("optimize() makes transactions of its own; call it outside of one")
        workers = 1 if threads is None else worker_threads(threads)
        before = self._unused()
        with short_switch_interval():
            self._maintenance.settle(workers)
            for _ in range(2):  # moving leaves deleted rows behind
                self._maintenance.mend_all(workers, progress)
                self._maintenance.gather(workers, progress)
            if self._generations.relink_if_due(workers, progress):
                self._keep_tuned(threads)
        return max(before - self._unused(), 0)  # others may have deleted more meanwhile

    def compact(self) -> int:
        """Give pages that are not in use back to the file system; the bytes given back.

        A copy without them is written beside the file, checked, made durable, and put in its place at once: a process
        that dies leaves the old file or the new. Searches of this process go on and wait for the moment of the change.

        Raises LockedError where another process has the file open, or a snapshot of this one stays open; ReadOnlyError;
        InputError inside a transaction.
        """
        if self._store.in_transaction:
            raise InputError("compact() puts another file in the place of this one; call it outside of a transaction")
        before = os.stat(self._store.path).st_size
        self._store.compact()
        return before - os.stat(self._store.path).st_size

    def backup(self, dest: str | os.PathLike[str]) -> None:
        """Copy the last commit, without free pages, to a new file, while others read and write.

        ``dest`` appears when it is whole and durable, and is opened as any collection is. Raises ExistsError where it
        is there already, InputError inside a transaction.
        """
        if self._store.in_transaction:
            raise InputError("backup() copies the last commit; call it outside of a transaction")
        self._store.copy_to(dest)

    def _unused(self) -> int:
        with self._store.read() as snap:
            return int(snap.state["n"] - snap.state["live"])

    def _finish_erasure(self) -> None:
        """Go on with what a process that died was erasing; not while snapshots keep it, or a repair is due."""
        with self._store.read() as snap:
            erasing = snap.state["erasing"]
        if erasing:
            with contextlib.suppress(LockedError, CorruptError):
                self._maintenance.erase(worker_threads(None), None)

    @cached_property
    def _maintenance(self) -> Maintenance:
        from qvec.maintenance.optimize import Maintenance

        return Maintenance(self._store, self._writer)
