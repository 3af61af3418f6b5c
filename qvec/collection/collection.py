"""The public object of a collection: one file of vectors, codes, an index and payloads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, Unpack, get_args

from qvec.codes.configs import CodeConfig
from qvec.collection.handle import PRESENT
from qvec.collection.measurable import MeasurableCollection
from qvec.collection.writing import NewRows, train_early, update_payloads
from qvec.common.console import as_progress
from qvec.common.errors import InputError
from qvec.common.findings import Finding, damages
from qvec.common.switch_interval import short_switch_interval
from qvec.common.types import (
    ArrayLike,
    FieldType,
    Memory,
    Missing,
    OnConflict,
    Payload,
    Stats,
    Where,
    check_choice,
    check_flag,
)
from qvec.index import Progress
from qvec.maintenance.state_check import state_codec
from qvec.rows.results import AddResult
from qvec.rows.visibility import Visibility
from qvec.rows.writer import is_growth_due
from qvec.schema.generations import Generation, list_generations
from qvec.schema.payloads import table_parts
from qvec.schema.quantizer_export import Transfer
from qvec.schema.validation import (
    as_id_set,
    id_keys,
    worker_threads,
)
from qvec.search.curves import outdated
from qvec.storage.store import Store

if TYPE_CHECKING:  # imported by the calls that need them, to keep `import qvec` fast
    from qvec.codes.adapters import Adapter
    from qvec.collection.embedding import Embed
    from qvec.collection.reembedding import ReembedKeywords
    from qvec.collection.second_file import WithoutText
    from qvec.maintenance.deletion import Deletion
    from qvec.maintenance.field_steps import FieldSteps
    from qvec.maintenance.optimize import Maintenance
    from qvec.maintenance.requantize import Relink
    from qvec.quality.drift import OnDrift
    from qvec.quality.drift_alarm import DriftAlarm
    from qvec.text.options import Sparse, Text


class Collection(MeasurableCollection):
    """Vectors of one dimension under one metric, in one file. Made by :func:`qvec.create` and :func:`qvec.open`.

    Any number of threads and processes search and write. Writers wait for each other, one transaction at a time. A
    search sees the whole last commit.
    """

    def __init__(
        self,
        store: Store,
        on_drift: OnDrift = None,
        build_memory: int | None = None,
        visibility: Visibility = PRESENT,
    ) -> None:
        super().__init__(store, build_memory, visibility)
        self._on_drift = on_drift

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path and the memory mode. Unpickling opens the file for reading."""
        return reopened, (os.path.abspath(self._store.path), self._store.memory)

    # --- writing ---

    def add(
        self,
        vectors: ArrayLike | None = None,
        ids: Any = None,
        payloads: Sequence[Payload | None] | Payload | None = None,
        *,
        texts: Sequence[str] | None = None,
        originals: ArrayLike | None = None,
        on_conflict: OnConflict = "error",
        progress: Progress | bool | None = None,
        threads: int | None = None,
        model: str | None = None,
        vector: str | None = None,
        id: str | None = None,
        sparse: Mapping[str, Any] | None = None,
    ) -> AddResult:
        """Store a batch of vectors, all or none of them. The batch is durable when the call returns.

        The rows are written in one transaction, which excludes other writers in proportion to their number: about two
        seconds for 80,000 vectors of 384 dimensions. Batches of 10,000 to 50,000 load fast.

        vectors: array-like [n, dim] or [dim] of finite real numbers, with norms up to 1e18 (docs/inputs.md lists what
        is array-like). A collection of :class:`qvec.Prequantized` codes takes integers in that form.
        ids: n integers in [0, 2^63) or n strings, as chosen at creation; None: the next n integers.
        payloads: a dict (or None) for each vector, of msgpack-able values; for one vector, a dict.
        texts: in place of vectors, if the collection was opened with ``embed=``: they are embedded, and stored in the
        payloads under the name of the only text field, or else under "text".
        originals: for a collection that was created with originals="int8" or "uint8", the vectors in this form.
        on_conflict: for an id that is already stored, "error", "skip" the vector or "replace" the stored one.
        progress: called with (done, total) rows while the index is built; True: show a bar. Many rows are indexed after
        their commit: an exception of ``progress``, or Ctrl-C, then leaves them stored, and searches scan them.
        threads: default, one for each core.
        model: the tag of the vectors' embedding model, refused if it is not the collection's.
        vector, id: if ``vectors`` is a table (of pandas, polars or Arrow), the names of its columns of vectors and of
        ids; ``originals`` is then the name of a column, too. The other columns are the payloads.
        sparse: by sparse field, the vectors of all rows: a SciPy CSR matrix, or a list of dicts of ids and weights,
        pairs of arrays, or None. They are stored in the payloads.

        Raises InputError (also a ValueError) naming the row and the limit, DuplicateIdError, ReadOnlyError or
        DiskFullError; nothing was written then.
        """
        self._check_model(model)
        if texts is not None or vectors is None:
            from qvec.collection.embedding import rows_of_texts

            both = vectors is not None or vector is not None
            vectors, payloads = rows_of_texts(self._embedding, self.fields, None if both else texts, payloads)
        if vector is not None or id is not None:
            if ids is not None or payloads is not None:
                raise InputError("a table brings ids and payloads itself: give vector and id, or ids and payloads")
            vectors, originals, ids, payloads = table_parts(vectors, vector, id, originals)
        check_choice("on_conflict", on_conflict, get_args(OnConflict))
        rows = NewRows.checked(self._config, vectors, originals, ids, payloads, sparse)
        workers, report = worker_threads(threads), as_progress(progress, "index")
        trained = train_early(self._store, self._config, rows.vectors)
        with self._store.write() as txn:
            writer = self._access.writer(txn)
            writer.trained, untrained = trained, writer.is_untrained
            result = rows.write(writer, on_conflict, workers, report)
            drift = self._alarm.check(txn, rows.vectors, untrained)
            replaced = result.replaced if txn.state.expires is None else len(rows.vectors)  # also rows that expired
            repair_due, untuned = replaced > 0 and writer.repair_due, outdated(txn.state)
            growth_due = is_growth_due(txn.state)
        if repair_due:
            self._maintenance.repair_index(replaced, workers)
        if growth_due and not self._store.in_transaction:
            self._maintenance.grow_index(workers, report, fresh=writer.fresh)
        self._alarm.announce(drift)
        if untuned:
            self._measurements.refresh_curves(workers)
        return result

    def upsert(
        self,
        vectors: ArrayLike | None = None,
        ids: Any = None,
        payloads: Sequence[Payload | None] | Payload | None = None,
        *,
        texts: Sequence[str] | None = None,
        originals: ArrayLike | None = None,
        progress: Progress | bool | None = None,
        threads: int | None = None,
        model: str | None = None,
        vector: str | None = None,
        id: str | None = None,
        sparse: Mapping[str, Any] | None = None,
    ) -> AddResult:
        """Add vectors and replace those whose ids are already stored; see :meth:`add`. Ids are required."""
        if ids is None and id is None:
            raise InputError("upsert replaces by id: give ids, or the name of a table's column of ids as id")
        options: dict[str, Any] = {"progress": progress, "threads": threads, "model": model, "sparse": sparse}
        options |= {"vector": vector, "id": id, "originals": originals, "texts": texts}
        return self.add(vectors, ids, payloads, on_conflict="replace", **options)

    def update_payloads(
        self,
        ids: Any,
        payloads: Sequence[Payload | None] | Payload | None,
        *,
        merge: bool = True,
        missing: Missing = "error",
    ) -> int:
        """Change payloads of stored vectors, all or none of them. Returns the number of vectors that were found.

        payloads: a list with one payload for each id, or one dict (or None) for all ids. merge: change the keys that a
        payload contains and remove those that are None in it; otherwise replace the whole payload. missing: "error"
        raises MissingIdError for an id that is not stored, "ignore" skips it.

        Raises InputError naming the wrong value, MissingIdError, or DuplicateIdError for an id that occurs twice.
        """
        return update_payloads(self._store, self._access, ids, payloads, merge, missing)

    def delete(
        self,
        ids: Any = None,
        *,
        where: Where | None = None,
        missing: Missing = "ignore",
        threads: int | None = None,
    ) -> int:
        """Delete vectors by id or by a filter, all or none of them. Returns the number of vectors that were stored.

        where: a filter as in :meth:`search`, not empty. If ids are also given, only vectors that match both are
        deleted.
        missing: "error" raises MissingIdError for an id that is not stored. threads: default, one for each core.

        Works on a full disk, with the space that the file reserves for this. A large delete may need more than that.
        """
        from qvec.maintenance.deletion import delete

        return delete(self._store, self._maintenance, self._deletion(ids, where, missing, threads))

    def erase(
        self,
        ids: Any = None,
        *,
        where: Where | None = None,
        missing: Missing = "ignore",
        expired: bool = False,
        threads: int | None = None,
        progress: Progress | bool | None = None,
    ) -> int:
        """Delete as :meth:`delete` does, and overwrite everything in the file that was ever deleted.

        expired: also delete the vectors that have expired (:func:`qvec.create`, ``expires``), and count them; ids and a
        filter are then not needed.

        Returns the number of vectors that were stored. When the call returns, no byte of the file contains deleted
        vectors, codes, edges, payloads, ids or field entries; free pages and gaps between records are zeroed. Codes of
        inactive generations are also removed. Values that were computed from many vectors (calibrations, centroids) are
        not removed, nor are backups, other copies, and copies that the storage medium keeps. The call repairs the index
        and reads the whole file: erase many vectors at a time. progress: called with (done, total) rows of the repair.

        After a crash half-way the vectors are deleted, and the next open for writing overwrites them. Raises
        MissingIdError; InputError inside a transaction; LockedError if open snapshots still use the data. In that case
        the vectors are deleted, and the next call (``erase([])`` too) or the next open for writing overwrites them.
        """
        self._outside_transaction("erase() consists of several transactions; call it outside of a transaction")
        from qvec.maintenance.deletion import erase

        check_flag("expired", expired)
        deletion = self._deletion([] if expired and ids is None and where is None else ids, where, missing, threads)
        with self._store.job("erases"):
            return erase(self._store, self._maintenance, deletion, as_progress(progress, "erase"), expired)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Self]:
        """Make all changes of this task or thread in the ``with`` block visible together at its end, or none of them.

        An exception that leaves the block undoes everything, and so does the death of the process. Reads and searches
        inside the block see its changes. Other tasks, threads and processes see the last commit, and wait if they want
        to write. A nested block is part of the outer block. Changes are kept in memory until the end.

        Raises ReadOnlyError. Raises LockedError if other writers do not end within the handle's timeout, or at once if
        the writer is another task of the same thread, which cannot continue while this one waits. Raises AbortedError,
        and undoes everything, if the block caught an exception of a call or of a nested block that had failed half-way.
        """
        with self._store.transaction():
            yield self

    # --- fields ---

    def add_field(self, name: str, type: FieldType | Text | Sparse, *, progress: Progress | bool | None = None) -> None:
        """Declare a field, and index the values that stored payloads have under its name.

        type: "keyword", "int", "float", "bool" or "datetime" (a datetime, or a string in ISO 8601), or a list of these:
        "keyword[]" and so on; "text" or :class:`qvec.Text`, "sparse" or :class:`qvec.Sparse`. progress: called
        with (done, total) rows.

        Outside of a transaction, a large collection is indexed in transactions of 16,384 rows. Searches may use the
        field when the call returns. After a crash, calling again continues, and :meth:`drop_field` removes the field.

        Raises InputError for a name or type that is not allowed, a field that is already declared, or a stored payload
        with a value of another type (the message names it); the field is not declared then.
        """
        from qvec.filters.schema import check_fields

        for checked, declared in check_fields({name: type}).items():
            self._field_steps.add(checked, declared, as_progress(progress, "add_field"))

    def drop_field(self, name: str) -> None:
        """Remove a field and its index. Payloads do not change."""
        self._field_steps.drop(name)

    # --- codes ---

    def generations(self) -> list[Generation]:
        """Return all generations, oldest first, with the number of rows that each has encoded."""
        with self._store.read() as snap:
            return list_generations(snap.state)

    def calibrate(
        self,
        sample: ArrayLike,
        *,
        queries: ArrayLike | None = None,
        method: str | None = None,
        code: str | CodeConfig | None = None,
        activate: bool = True,
        threads: int | None = None,
        progress: Progress | bool | None = None,
    ) -> Generation:
        """Train a code on float32 [n, dim], store it as a generation and, by default, encode every row with it.

        queries: queries [m, dim] that a projection is learned for, too (``Int8(projection=...)``).
        code: the code to train; default, the active one. method: how to find ranges, for codes that have ranges.
        activate: requantize now; otherwise call :meth:`requantize` with ``generation=`` later.

        Raises InputError if the sample is too small (the message says how many vectors are needed), if the code learns
        nothing from a sample, or if there are no originals to encode.
        """
        return self._measurements.calibrate(sample, queries, method, code, activate, threads, progress)

    def export_calibration(self, generation: int | None = None, format: Transfer = "json") -> str | bytes:
        """Return a trained code, by default the active one, as JSON text or msgpack bytes for
        :meth:`import_calibration`."""
        return self._measurements.export_calibration(generation, format)

    def import_calibration(self, data: str | bytes, *, activate: bool = False) -> Generation:
        """Store what :meth:`export_calibration` returned as a generation; ``activate``: encode every row with it.

        Raises FormatError if the data is damaged or not a calibration, and InputError if the dimension, metric or
        model differs.
        """
        return self._measurements.import_calibration(data, activate)

    def requantize(
        self,
        code: str | CodeConfig | None = None,
        *,
        generation: int | None = None,
        adapter: Adapter | None = None,
        relink: Relink = "auto",
        threads: int | None = None,
        progress: Progress | bool | None = None,
    ) -> Generation:
        """Encode every row again from the stored originals, while searches and writes continue, then activate the new
        codes.

        code: the new code, trained on stored vectors; default, the active code, trained again. generation: instead of
        a code, the number of a stored generation. adapter: a learned map that is applied to vectors and queries before
        they are encoded (:mod:`qvec.qat`); the default code is the one that the adapter was trained for. relink:
        whether to build a new graph; "auto": only if walks over the old graph no longer find what a scan of the new
        codes finds. progress: called with (done, total) rows.

        Works in transactions of 8,192 rows. If the process dies, the old generation stays active. Calling again
        continues the unfinished generation; requesting another code discards it. The old codes stay for
        :meth:`rollback` until :meth:`drop_generation`, or until one of their rows is reused for another vector.

        Raises InputError if there are no originals, if the collection is empty, or if the code cannot be trained on it.
        """
        return self._measurements.requantize(code, generation, adapter, relink, threads, progress)

    def rollback(
        self, generation: int, *, threads: int | None = None, progress: Progress | bool | None = None
    ) -> Generation:
        """Activate an earlier generation.

        First encode the rows added since then, or all rows if its codes were discarded.
        """
        return self._measurements.rollback(generation, threads, progress)

    def drop_generation(self, generation: int) -> None:
        """Remove a generation and its codes. The generation may be unfinished, but not active."""
        self._measurements.generations.drop(generation)

    # --- another embedding model ---

    def reembed(
        self,
        function: Embed,
        *,
        dim: int,
        model: str | None = None,
        field: str | None = None,
        missing: WithoutText = "error",
        batch: int = 256,
        restart: bool = False,
        progress: Progress | bool | None = None,
        **options: Unpack[ReembedKeywords],
    ) -> None:
        """Embed every text again with another model, while searches and writes continue, then switch to its vectors.

        function: returns the vectors, array-like [n, dim], of a list of at most ``batch`` texts; as ``embed=`` of
        :func:`qvec.create`, which later calls of this handle use it for. model: its tag; default, ``function.model``.
        field: the key of payloads that holds the text; default, the only text field, or else "text". missing: "error"
        refuses payloads without text before anything is written, "skip" leaves their vectors out.
        metric, code, index, originals: of the new collection; default, those of this one.
        progress: called with (done, total) vectors.

        A new file is filled next to this one, 2,048 vectors at a time, and then takes its name in one step: at any time
        the path refers to one of the two, complete. Ids, payloads and fields stay. The handle continues with the new
        file. Other handles can read the old one; their next write raises ReplacedError, and :meth:`reopen` moves them.
        If the process dies, calling again continues; restart=True begins again. Afterwards :meth:`undo_reembed`
        switches back, until :meth:`discard_reembed` removes the old file. The last changed texts, at most 64, are
        embedded while writers wait.

        Raises InputError for a payload without text (naming its id), for vectors of another dimension, for other
        options than those of the unfinished call, or inside a transaction. Raises ReadOnlyError or LockedError.
        """
        from qvec.collection.reembedding import Request, reembed

        self._outside_transaction("reembed() replaces the file; call it outside of a transaction")
        report = as_progress(progress, "reembed")
        request = Request(function, dim, model, field, missing, batch, restart, report, options)
        with self._store.job("re-embeds"):
            reembed(self._store, self._config, self._of, request)
        self.reopen(function)

    def undo_reembed(self, function: Embed | None = None) -> None:
        """Switch back to the collection that :meth:`reembed` replaced, in one step, with all changes made since.

        function: embeds the texts that were added or changed since, with the model of that collection; needed if there
        are any, and later calls of this handle use it. The vectors of the newer model are removed.

        Raises InputError if nothing was replaced, or without a function that is needed. Raises LockedError while
        another process still has the old file open.
        """
        from qvec.collection.reembedding import undo

        self._outside_transaction("undo_reembed() replaces the file; call it outside of a transaction")
        with self._store.job("re-embeds"):
            undo(self._store, self._config, self._of, function)
        self.reopen(function)

    def discard_reembed(self) -> bool:
        """Remove the collection that :meth:`reembed` replaced, or has not completed. Returns whether there was one.

        Raises LockedError while another process has it open for writing.
        """
        from qvec.collection.reembedding import discard

        self._outside_transaction("discard_reembed() removes a file; call it outside of a transaction")
        with self._store.job("re-embeds"):
            return discard(self._store)

    def reopen(self, embed: Embed | None = None) -> bool:
        """Continue with the file that the path refers to now. Returns False if that is the file that is open.

        After :meth:`reembed` by another handle, or when the file was replaced. Snapshots stay valid. Calls of other
        threads that are running with this handle end with the old file, or raise ReplacedError or CorruptError.
        embed: the function for texts, if the model is another one; otherwise the handle keeps its function, unless that
        has the tag of another model.

        Raises NotFoundError, LockedError, or InputError for a function of another model or inside a transaction.
        """
        from qvec.collection.reembedding import reopened

        self._outside_transaction("reopen() leaves the file; call it outside of a transaction")
        store, embedding = reopened(self._store, self._embedding, embed)
        self._embedding = embedding
        if store is None:
            return False
        fresh = self._of(store)
        kept = {"_finalizer": self._finalizer, "_embedding": embedding}
        for name in [name for name in self.__dict__ if name not in fresh.__dict__]:
            del self.__dict__[name]  # what was computed from the old file
        self.__dict__.update(fresh.__dict__, **kept)
        self._searches = self._new_searches()
        return True

    def _of(self, store: Store) -> Collection:
        """Another collection with the options of this handle."""
        return Collection(store, self._on_drift, self._access.workspace.memory, self._visibility)

    # --- maintenance ---

    def stats(self, *, graph: bool = False) -> Stats:
        """Return counts and sizes of the last commit.

        ``graph``: also walk the graph to find its degree and reachable rows.
        """
        check_flag("graph", graph)
        from qvec.maintenance.stats import collect_stats

        with self._store.read() as snap:
            visible = self._visibility.of(snap).state.live
            return collect_stats(snap, self._store, self._access, graph, visible)

    def verify(self, *, deep: bool = True) -> list[Finding]:
        """Check every block, record, id and edge of the last commit. Returns what was found.

        A finding is a string with a ``kind``: "damage" for data that is wrong, "advice" for sound data that
        :meth:`optimize` would improve.

        deep: in addition to checksums, counts, the id map and reachability in the graph, recompute everything that
        follows from originals and payloads (codes, packed nodes, list entries, field indexes), and compare; and look
        for a graph that many equal vectors have spoiled.
        """
        from qvec.maintenance.verify import verify_snapshot

        check_flag("deep", deep)
        self._outside_transaction("verify() checks the file, which lacks the changes of this transaction so far")
        with self._store.read() as snap:
            return verify_snapshot(snap, self._access, deep)

    def repair(self, *, threads: int | None = None) -> list[str]:
        """Rebuild damaged or wrong data that follows from valid data. Returns what was rebuilt.

        Codes, the index, the id map or its source, and field indexes can be rebuilt. Codes of inactive generations are
        discarded. The repair is one transaction, which keeps all rebuilt data in memory.

        Raises CorruptError, and writes nothing, if originals, payloads, calibrations or LMDB's own pages are
        damaged: restore a :meth:`backup` then. Raises ReadOnlyError, or InputError inside a transaction.
        """
        from qvec.maintenance.repair import repair

        workers = worker_threads(threads)

        def problems() -> list[Finding]:
            return damages(self.verify())

        return repair(self._store, self._access.writer, problems, workers) if problems() else []

    def optimize(self, *, threads: int | None = None, progress: Progress | bool | None = None) -> int:
        """Remove deleted rows from the index and move rows into unused rows, while searches and writes continue.

        Returns the number of unused rows that were removed; :meth:`compact` then returns their pages to the file
        system. If walks over the graph then find less than 95 % of what a scan of the codes finds, a new graph replaces
        the old one, in a new generation with the same codes (:meth:`generations`).

        Works in transactions of a few hundred to 4,096 rows. After a crash, calling again continues. During the call,
        Python switches between threads of this process every tenth of a millisecond (``sys.setswitchinterval``), so
        that searches do not wait. threads: default 1, which leaves the other cores to searches. progress: called with
        (done, total) rows of each pass: repairs of the index, moves, a new graph.

        Raises ReadOnlyError; InputError inside a transaction; LockedError if another optimize() runs, or if the write
        lock is taken for longer than the handle's timeout; DiskFullError. What was done before then stays done.
        """
        self._outside_transaction("optimize() consists of several transactions; call it outside of a transaction")
        workers, report = 1 if threads is None else worker_threads(threads), as_progress(progress, "optimize")
        with self._store.job("optimizes"), short_switch_interval():
            released = self._maintenance.optimize(workers, report)
            self._measurements.relink_if_due(workers, report, worker_threads(threads))
        return released

    def compact(self) -> int:
        """Return free pages to the file system. Returns the number of bytes by which the file has shrunk.

        A copy without free pages is written next to the file, checked and made durable, and then replaces the file
        atomically: after a crash, either the old or the new file exists. Searches and writes of this process continue
        and wait only for the replacement.

        Raises LockedError if another process has the file open for longer than the handle's timeout, or if a snapshot
        of this process stays open. Raises ReadOnlyError, or InputError inside a transaction.
        """
        self._outside_transaction("compact() replaces the file; call it outside of a transaction")
        from qvec.storage.copies import compact

        return compact(self._store)

    def backup(self, dest: str | os.PathLike[str]) -> None:
        """Copy the last commit, without free pages, to a new file, while others read and write.

        ``dest`` appears when it is complete and durable, and can be opened as any collection. Raises ExistsError if
        ``dest`` exists, InputError inside a transaction.
        """
        self._outside_transaction("backup() copies the last commit; call it outside of a transaction")
        from qvec.storage.copies import copy_to

        copy_to(self._store, dest)

    # --- parts ---

    def _check_model(self, model: str | None) -> None:
        if model is not None and model != self._config.model:
            raise InputError(f"the vectors are of model {model!r}, but the collection of {self._config.model!r}")

    def _deletion(self, ids: Any, where: Where | None, missing: Missing, threads: int | None) -> Deletion:
        from qvec.maintenance.deletion import Deletion

        check_choice("missing", missing, get_args(Missing))
        keys = None if ids is None else id_keys(as_id_set(ids, self._config.ids))
        return Deletion(self._access, keys, where, missing, worker_threads(threads))

    @cached_property
    def _field_steps(self) -> FieldSteps:
        from qvec.maintenance.field_steps import FieldSteps

        return FieldSteps(self._store)

    @cached_property
    def _maintenance(self) -> Maintenance:
        from qvec.maintenance.optimize import Maintenance

        return Maintenance(self._store, self._access, self._access.writer)

    @cached_property
    def _alarm(self) -> DriftAlarm:
        from qvec.quality.drift_alarm import DriftAlarm

        return DriftAlarm(self._access, self._on_drift)


def reopened(path: str, memory: Memory) -> Collection:
    """Open the collection that was pickled, for reading."""
    return Collection(Store.open(path, "r", memory=memory, state_codec=state_codec))
