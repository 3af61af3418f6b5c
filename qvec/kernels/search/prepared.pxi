# cython: language_level=3
# Reads of the last commit, and prepared searches for options that were used before. Most of the time that a search for
# one query spends outside the kernels is spent here: a walk of an index evicts the interpreter's data from the caches.
# Relies on Searcher, SearchParams and Selection (search.pxi), Column (column.pxi) and plain_norm2 (codec.pxi).

from qvec.common.errors import ClosedError, ForkedError

from cpython.object cimport PyObject, PyTypeObject
from cpython.pythread cimport PyThread_get_thread_ident

cdef enum:
    SAMPLED_SEARCHES = 64

cdef long _epoch = 0
cdef tuple _NO_ARGUMENTS = ()


def fork_epoch():
    """The number of forks between the first process and this one. A handle of another epoch is the parent's."""
    return _epoch


def count_fork():
    """Begin a new epoch. A forked child calls it before anything else."""
    global _epoch
    _epoch += 1


cdef class EnvironmentBase:
    """The readers of one memory map.

    lmdb: LMDB's environment. lock: guards the other attributes and the views of the map. open_reads: reads that are
    open. waiting: threads that wait on `idle`, a condition of the lock, for reads to end. is_exclusive: a thread has the
    map alone, and new reads wait. Subclasses define begin(deadline), which returns LMDB's read transaction when that
    takes more than a call of LMDB, and is called with the lock.
    """

    cdef public object lmdb, lock, idle
    cdef public Py_ssize_t open_reads, waiting
    cdef public bint is_exclusive


cdef class ViewBase:
    """One commit in memory.

    users: number of open reads of the view. derived: data that higher layers have computed from the commit; cleared when
    the view moves to another commit.
    """

    cdef public unsigned long long txn_id
    cdef public Py_ssize_t users
    cdef public dict derived
    cdef public object columns, state


cdef class SnapshotBase:
    """An open read of one view. txn: LMDB's transaction, None after the end."""

    cdef readonly EnvironmentBase env
    cdef public object txn
    cdef readonly ViewBase view
    cdef readonly dict derived
    cdef readonly long epoch
    cdef readonly unsigned long thread

    def __init__(self, EnvironmentBase env not None, txn, ViewBase view not None):
        self.env, self.txn, self.view, self.derived = env, txn, view, view.derived
        self.epoch, self.thread = _epoch, PyThread_get_thread_ident()

    cpdef live(self):
        """LMDB's transaction. ForkedError in a child that inherited the snapshot, ClosedError after its end."""
        if self.epoch != _epoch:
            raise ForkedError("this snapshot or transaction was opened before the fork; only the parent may use it")
        if self.txn is None:
            raise ClosedError("this snapshot or transaction has ended")
        return self.txn

    @property
    def columns(self):
        """Columns by name. Their rows may be read until the snapshot ends."""
        self.live()
        return self.view.columns

    @property
    def state(self):
        """The state of the commit, as the layer above decoded it. Snapshots share it: do not change it."""
        self.live()
        return self.view.state

    @property
    def txn_id(self):
        """The number of the commit that is read; grows with every commit."""
        self.live()
        return self.view.txn_id


cdef class StoreBase:
    """Begins and ends the reads of one handle.

    env, view: of the file and of the commit that was read last. joined: the transaction that this handle's reads
    belong to, None outside of one. epoch: of the process that opened the file. open_snapshots: snapshots not yet ended.
    running: prepared searches, which have no snapshot. searches: single queries that were searched for; one in
    SAMPLED_SEARCHES is sampled, because to copy a query takes a microsecond. Subclasses define the methods that are
    called here: reopen_in_child, load_view and the property in_transaction.
    """

    cdef public EnvironmentBase env
    cdef public ViewBase view
    cdef public object joined, path, snapshot_type
    cdef public bint is_closed
    cdef public long epoch
    cdef public set open_snapshots
    cdef readonly Py_ssize_t running
    cdef public unsigned long long searches

    cdef object begin_read(self, EnvironmentBase env, Deadline deadline):
        """Begin LMDB's read transaction of the last commit and count a user of self.view. The caller holds env.lock."""
        cdef ViewBase view
        if self.is_closed:
            raise ClosedError(f"{self.path} is closed")
        txn = None
        if not env.is_exclusive:
            try:
                txn = env.lmdb.begin(None, None, False, True)  # no transaction around it, not for writing, buffers
            except Exception:
                pass
        if txn is None:
            txn = env.begin(deadline)  # may wait, and let other threads bring the view to another commit or file
        view = self.view
        if view.txn_id != txn.id():
            view = self.load_view(txn)
        view.users += 1
        env.open_reads += 1
        return txn

    cdef int end_read(self, EnvironmentBase env, ViewBase view, txn) except -1:
        txn.abort()
        view.users -= 1
        env.open_reads -= 1
        if env.waiting:  # with the lock, a waiting thread first counts itself, then reads the counts
            with env.lock:
                env.idle.notify_all()
        return 0

    @property
    def is_sampled(self):
        """Whether the search that was counted last is one of those whose query is sampled."""
        return self.searches % SAMPLED_SEARCHES == 0

    def begin(self, Deadline deadline=None):
        """Begin a snapshot of the last commit. `end` it soon: pages that it reads cannot be reused until then.

        Inside a transaction of this thread, the snapshot is the transaction: its thread reads its own changes.
        Raises CorruptError if the page table is damaged, ClosedError after `close`, SearchTimeoutError if the file is
        being replaced or erased until the deadline.
        """
        cdef EnvironmentBase env
        if self.epoch != _epoch:
            self.reopen_in_child()
        if self.joined is not None and self.in_transaction:
            return self.joined
        env = self.env
        if deadline is not None:
            deadline.acquire(env.lock)  # which is re-entrant
        try:
            with env.lock:
                txn = self.begin_read(env, deadline)
                snapshot = self.snapshot_type(env, txn, self.view)
                self.open_snapshots.add(snapshot)
        finally:
            if deadline is not None:
                env.lock.release()
        return snapshot

    def end(self, SnapshotBase snapshot not None):
        """End a snapshot. Ending twice, or ending the parent's snapshot in a forked child, has no effect."""
        if snapshot.epoch != _epoch or snapshot is self.joined or snapshot.txn is None:
            return
        txn, snapshot.txn = snapshot.txn, None  # in one step: another thread may end the snapshot, too
        self.open_snapshots.discard(snapshot)
        self.end_read(snapshot.env, snapshot.view, txn)

    def search_prepared(self, query, tuple raw not None):
        """Search for one query if a search with these options was prepared on the last commit; otherwise return None.

        This is `begin`, `PreparedSearch.search` and `end` in one call, without a snapshot. None also if the query is to
        be sampled, and if a row has expired since the search was prepared (derived data "moment").
        """
        cdef EnvironmentBase env = self.env
        cdef PreparedSearch search = None
        cdef ViewBase view
        self.searches += 1
        if self.epoch != _epoch or self.joined is not None or self.view is None:  # None: a store of one snapshot
            return None
        if self.searches % SAMPLED_SEARCHES == 0:
            return None
        lock = env.lock
        lock.acquire()
        try:
            txn = self.begin_read(env, None)
            view = self.view
            self.running += 1
        finally:
            lock.release()
        try:
            derived = view.derived
            moment = (<dict>derived).get("moment")
            if moment is not None:  # rows of this collection expire, and a search is prepared for a moment
                derived = moment.derived if moment.is_current() else None
            search = None if derived is None else find_prepared(<dict?>derived, raw)
            return None if search is None or search.hits is None else search.search(query)
        finally:
            self.running -= 1
            self.end_read(env, view, txn)


cdef class ResultArrays:
    """The attributes of a search's result, in one object that a prepared search fills without a call of Python.

    ids, distances: of the hits. _counts: how many were found. _payloads, _extras: what else was included, or None.
    """

    cdef public object ids, distances, zero_score, _counts, _payloads, _extras


cdef class PreparedSearch:
    """The first stages of a search on one commit: checked options, a plan, and a searcher with its parameters.

    raw: the options as they were given. options: the same, checked. max_norm2: queries of at least this squared norm
    need a check. hits: the class of the hits of a search that needs no other stage, a subclass of `ResultArrays`; None
    if other stages follow. ids: the column of integer ids. payloads: whether hits have a list of payloads, all None.
    zero_score, extras: of the hits.
    """

    cdef readonly tuple raw
    cdef readonly object options
    cdef readonly SearchParams plan
    cdef SearchParams params
    cdef Searcher searcher
    cdef Selection selection
    cdef Py_ssize_t dim
    cdef float max_norm2
    cdef object hits, zero_score, extras
    cdef Column ids
    cdef bint payloads

    def __init__(self, tuple raw not None, options, SearchParams plan not None, Searcher searcher not None,
                 SearchParams params not None, Selection selection not None, *, int dim, float max_norm2,
                 hits, Column ids, bint payloads, zero_score, extras):
        if hits is not None and (not issubclass(hits, ResultArrays) or ids is None or ids.c.stride != sizeof(int64_t)):
            raise ValueError("hits must be a class of results, and ids a column of 8 bytes a row")
        self.raw, self.options, self.plan, self.params = raw, options, plan, params
        self.searcher, self.selection, self.dim, self.max_norm2 = searcher, selection, dim, max_norm2
        self.hits, self.ids, self.payloads, self.zero_score, self.extras = hits, ids, payloads, zero_score, extras

    cpdef find(self, query, Deadline deadline=None):
        """Rows int64 [k], distances float32 [k] and count int64 [] of one query.

        None if the query is not float32 [dim], C-contiguous, of a norm that needs no check.
        """
        if not 0 < _plain_norm2(query, self.dim) < self.max_norm2:
            return None
        return self.searcher.search(query, self.params, self.selection, deadline)

    cdef object search(self, query):
        if not 0 < _plain_norm2(query, self.dim) < self.max_norm2:
            return None
        cdef cnp.npy_intp k = self.params.p.k
        cdef cnp.ndarray ids = cnp.PyArray_EMPTY(1, &k, cnp.NPY_INT64, 0)
        cdef cnp.ndarray distances = cnp.PyArray_EMPTY(1, &k, cnp.NPY_FLOAT32, 0)
        cdef int64_t *rows = <int64_t *>cnp.PyArray_DATA(ids)
        cdef int64_t count = 0
        cdef qv_batch batch
        batch.queries, batch.dim, batch.n = <const float *>cnp.PyArray_DATA(<cnp.ndarray>query), self.dim, 1
        batch.rows, batch.distances, batch.counts = rows, <float *>cnp.PyArray_DATA(distances), &count
        self.searcher._run(self.params, self.selection, &batch, None)
        _put_ids(self.ids, rows, k, rows)
        cdef ResultArrays hits = <ResultArrays>(<PyTypeObject *>self.hits).tp_new(<type>self.hits, <PyObject *>_NO_ARGUMENTS, NULL)
        hits.ids, hits.distances, hits.zero_score = ids, distances, self.zero_score
        hits._counts, hits._payloads, hits._extras = count, [None] * k if self.payloads else None, self.extras
        return hits


cdef enum:
    MAX_PREPARED = 8


cpdef find_prepared(dict derived, tuple raw):
    """Find the prepared search of raw options in the derived data of a commit, or return None.

    Equal values of different types are different: True is not 1.
    """
    cdef PreparedSearch search
    searches = derived.get("prepared")
    if searches is None:
        return None
    for search in <list>searches:
        if _same(raw, search.raw):
            return search
    return None


def add_prepared(dict derived not None, PreparedSearch search not None):
    """Put a search first in the list of the newest prepared searches."""
    searches = derived.setdefault("prepared", [])
    searches.insert(0, search)
    del searches[MAX_PREPARED:]


cdef bint _same(tuple one, tuple other):
    cdef Py_ssize_t i
    if len(one) != len(other):
        return False
    for i in range(len(one)):
        a, b = one[i], other[i]
        if a is not b and not (type(a) is type(b) and type(a) in (int, float, str, tuple) and a == b):
            return False
    return True


cdef int _put_ids(Column ids, const int64_t *rows, Py_ssize_t n, int64_t *out) except -1:
    """Write the ids of n rows to `out`, which may be `rows`; the id of row -1 is -1."""
    cdef int64_t n_rows = <int64_t>ids.c.n_blocks * ids.c.rows_per_block
    cdef const uint8_t *address
    cdef Py_ssize_t i
    for i in range(n):
        if rows[i] >= n_rows:
            raise ValueError(f"row {rows[i]} is not below the {n_rows} of the column {ids.name}")
        if rows[i] < 0:
            out[i] = -1
            continue
        address = qv_row(&ids.c, <uint32_t>rows[i])
        if address == NULL:
            ids._fail()
        memcpy(out + i, address, sizeof(int64_t))
    return 0


def ids_of_rows(Column ids not None, cnp.ndarray rows not None):
    """Integer ids, int64, of rows int64 of any shape, C-contiguous; the id of row -1 is -1. ``ids``: their column."""
    cdef cnp.ndarray out = cnp.PyArray_EMPTY(rows.ndim, rows.shape, cnp.NPY_INT64, 0)
    if cnp.PyArray_TYPE(rows) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY_RO(rows) or ids.c.stride != sizeof(int64_t):
        raise ValueError("rows must be C-contiguous int64, and ids a column of 8 bytes a row")
    _put_ids(ids, <const int64_t *>cnp.PyArray_DATA(rows), cnp.PyArray_SIZE(rows), <int64_t *>cnp.PyArray_DATA(out))
    return out
