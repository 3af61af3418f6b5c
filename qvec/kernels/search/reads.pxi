# cython: language_level=3
# The short way of a search: one query, by a plan that was made before, in one call from reading the last commit to
# arrays. The long way takes as long again in the interpreter, whose data a walk has driven out of the caches.
# Relies on Searcher and Selection (search.pxi), and on plain_norm2 (vectors.pxi).

cdef long _epoch = 0


def fork_epoch():
    """How often this process and its forebears were forked; a handle of another epoch is the parent's."""
    return _epoch


def count_fork():
    """In a child, before anything else: all that was open before is the parent's."""
    global _epoch
    _epoch += 1


cdef class Mapped:
    """What an environment counts of those who read its map, under ``lock``. ``waiting``: threads, for reads to end."""

    cdef public object lock
    cdef public Py_ssize_t open_reads, waiting


cdef enum:
    MAX_READY = 4  # searches that are kept


cdef class Shown:
    """Of a view: the commit that it shows, how many reads use it, and what was derived from it.

    ready: of searches of one query that were checked and planned, the last few.
    """

    cdef public unsigned long long txn_id
    cdef public Py_ssize_t users
    cdef public dict derived
    cdef public list ready

    def keep_ready(self, Ready ready not None):
        """Have it before those that are, in place of one for the same options."""
        cdef Ready other
        others = [other for other in self.ready if not _same(other.given, ready.given)]
        self.ready = [ready, *others[: MAX_READY - 1]]

    cdef Ready ready_for(self, tuple given):
        cdef Ready ready
        for ready in self.ready:
            if _same(given, ready.given):
                return ready
        return None


cdef class Ready:
    """A search of one query whose hits are made of what it finds, without another read.

    given: the options as they were given, none of which can change. norm2: squared norms of queries that it takes are
    above 0 and below this. zero_score, with_payload: of the hits. Others as in :meth:`Searcher.search`.
    """

    cdef tuple given
    cdef Searcher searcher
    cdef Selection selection
    cdef int k, ef, nprobe, candidates
    cdef bint exact, with_payload
    cdef Py_ssize_t dim
    cdef float norm2
    cdef object zero_score

    def __init__(self, tuple given not None, Searcher searcher not None, int dim, float norm2, tuple effort not None,
                 zero_score, bint with_payload):
        self.given, self.searcher, self.dim, self.norm2 = given, searcher, dim, norm2
        self.k, self.ef, self.nprobe, self.candidates, self.exact, self.selection = effort
        self.zero_score, self.with_payload = zero_score, with_payload

    cdef tuple run(self, query):
        ids, distances, counts = self.searcher.search(query, self.k, self.ef, self.nprobe, self.candidates, self.exact,
                                                      self.selection)
        return ids, distances, counts, [None] * self.k if self.with_payload else None, self.zero_score


cdef bint _same(tuple one, tuple other):
    """Whether options are the same objects, or equal ones of the same built-in type: True is not 1."""
    cdef Py_ssize_t i
    if len(one) != len(other):
        return False
    for i in range(len(one)):
        a, b = one[i], other[i]
        if a is not b and not (type(a) is type(b) and type(a) in (int, float, str) and a == b):
            return False
    return True


cdef class Reads:
    """What a store's reads go by. ``under_way``: searches that `quick` is in, which have no snapshot among ``_open``."""

    cdef public Mapped _env
    cdef public object _views, _joined
    cdef public bint _closed
    cdef public long _epoch
    cdef readonly Py_ssize_t under_way

    def quick(self, query, tuple given not None):
        """What :class:`qvec.Hits` of one query are made of, by what is ready for these options in the last commit.

        None where nothing is, or the query is not float32 [dim], C-contiguous, of a norm that needs no check; or the
        store was closed, opened by a parent, or is inside a transaction: the long way sees to it.
        """
        cdef Mapped env = self._env
        cdef Shown view
        cdef Ready ready
        if self._epoch != _epoch or self._joined is not None:
            return None
        with env.lock:
            if self._closed:
                return None
            txn = env.begin()  # it may wait, and let others bring the view up to another commit, or another file
            view = self._views.shared
            ready = view.ready_for(given) if view.txn_id == txn.id() else None
            if ready is None or not 0 < plain_norm2(query, ready.dim) < ready.norm2:
                txn.abort()
                return None
            view.users += 1
            env.open_reads += 1
            self.under_way += 1
        try:
            return ready.run(query)
        finally:
            txn.abort()
            view.users -= 1
            env.open_reads -= 1
            self.under_way -= 1
            if env.waiting:  # whoever waits has counted itself before it looked, and cannot have looked in between
                with env.lock:
                    env.idle.notify_all()
