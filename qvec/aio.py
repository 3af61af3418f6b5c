"""Collections for asyncio: the calls of :class:`qvec.Collection` as coroutines.

Calls run in threads that belong to the handle: reads in several threads, long reads (``evaluate``, ``choose``,
``verify``, ``backup``) in one, writes in one. If a task is canceled during a
call, it waits until the call has committed or failed. During calls, Python switches between threads every tenth of a
millisecond, so that the event loop does not wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

from qvec._kernels import Deadline, fork_epoch
from qvec.collection import open as opening
from qvec.collection.collection import Collection
from qvec.common.errors import LockedError, SearchTimeoutError
from qvec.common.loop_pool import Call, LoopPool
from qvec.common.switch_interval import short_switch_interval
from qvec.common.types import Where
from qvec.rows.results import Records
from qvec.schema.validation import check_count
from qvec.search.options import deadline_after

if TYPE_CHECKING:
    from qvec.common.types import ArrayLike, GroupKeywords, HybridKeywords, SearchKeywords

__all__ = ["AsyncCollection", "create", "open"]

THREADS = max(2, min(4, os.cpu_count() or 2))  # for reads: more threads than cores only delay the loop
MAX_THREADS = 256
P = ParamSpec("P")
R = TypeVar("R")


async def open(path: str | os.PathLike[str], *args: Any, pool: int = THREADS, **options: Any) -> AsyncCollection:
    """Open a collection as :func:`qvec.open` does. pool: how many reads run at the same time."""
    return await _made(functools.partial(opening.open, path, *args, **options), pool)


async def create(path: str | os.PathLike[str], dim: int, *, pool: int = THREADS, **options: Any) -> AsyncCollection:
    """Create a collection as :func:`qvec.create` does. pool: how many reads run at the same time."""
    return await _made(functools.partial(opening.create, path, dim, **options), pool)


async def _made(make: Callable[[], Collection], pool: int) -> AsyncCollection:
    readers = check_count("pool", pool, 1, MAX_THREADS)
    return AsyncCollection(await asyncio.to_thread(make), readers)


def _read(
    method: Callable[Concatenate[Collection, P], R],
) -> Callable[Concatenate[AsyncCollection, P], Coroutine[Any, Any, R]]:
    """Run a reading call. In a transaction of the task, it runs in the thread of the transaction."""

    @functools.wraps(method)
    async def call(self: AsyncCollection, /, *args: P.args, **kwargs: P.kwargs) -> R:
        work = functools.partial(method, self.collection, *args, **kwargs)
        return await self._run(self._writer if self._is_in_block else self._readers, work)

    return call


def _read_long(
    method: Callable[Concatenate[Collection, P], R],
) -> Callable[Concatenate[AsyncCollection, P], Coroutine[Any, Any, R]]:
    """Run a reading call that takes long, in a thread that searches do not wait for."""

    @functools.wraps(method)
    async def call(self: AsyncCollection, /, *args: P.args, **kwargs: P.kwargs) -> R:
        work = functools.partial(method, self.collection, *args, **kwargs)
        return await self._run(self._writer if self._is_in_block else self._long_reader, work)

    return call


def _search(method: Callable[..., R]) -> Callable[..., Coroutine[Any, Any, R]]:
    """Run a search. Its timeout begins here and includes the wait for a thread."""

    @functools.wraps(method)
    async def call(self: AsyncCollection, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> R:
        deadline = None if timeout is None else deadline_after(timeout)
        work = functools.partial(method, self.collection, *args, timeout=deadline, **kwargs)
        return await self._run(self._writer if self._is_in_block else self._readers, work, deadline)

    return call


def _write(
    method: Callable[Concatenate[Collection, P], R],
) -> Callable[Concatenate[AsyncCollection, P], Coroutine[Any, Any, R]]:
    """Run a writing call after those of other tasks."""

    @functools.wraps(method)
    async def call(self: AsyncCollection, /, *args: P.args, **kwargs: P.kwargs) -> R:
        async with self._turn():
            return await self._run(self._writer, functools.partial(method, self.collection, *args, **kwargs))

    return call


class AsyncCollection:
    """A collection whose calls are coroutines. ``collection``: the collection that they use."""

    def __init__(self, collection: Collection, pool: int = THREADS) -> None:
        self.collection, self._n_readers = collection, pool
        self._begin()

    def _begin(self) -> None:
        """Make the pools. A forked child makes its own, because it has none of the parent's threads."""
        self._epoch = fork_epoch()
        self._readers = LoopPool(self._n_readers, "qvec-read")
        self._long_reader = LoopPool(1, "qvec-read-long")
        self._writer = LoopPool(1, "qvec-write")  # LMDB's transactions belong to a thread
        self._lock = asyncio.Lock()
        self._owner: asyncio.Task[Any] | None = None  # the task that has a transaction

    add = _write(Collection.add)
    upsert = _write(Collection.upsert)
    update_payloads = _write(Collection.update_payloads)
    delete = _write(Collection.delete)
    erase = _write(Collection.erase)
    add_field = _write(Collection.add_field)
    drop_field = _write(Collection.drop_field)
    calibrate = _write(Collection.calibrate)
    import_calibration = _write(Collection.import_calibration)
    requantize = _write(Collection.requantize)
    rollback = _write(Collection.rollback)
    drop_generation = _write(Collection.drop_generation)
    tune = _write(Collection.tune)
    tune_fusion = _write(Collection.tune_fusion)
    repair = _write(Collection.repair)
    optimize = _write(Collection.optimize)
    compact = _write(Collection.compact)
    get = _read(Collection.get)
    ids = _read(Collection.ids)
    count = _read(Collection.count)
    facets = _read(Collection.facets)
    generations = _read(Collection.generations)
    export_calibration = _read(Collection.export_calibration)
    evaluate = _read_long(Collection.evaluate)
    choose = _read_long(Collection.choose)
    reembed = _read_long(Collection.reembed)  # its own thread writes, so that other tasks write meanwhile
    undo_reembed = _write(Collection.undo_reembed)
    discard_reembed = _write(Collection.discard_reembed)
    reopen = _write(Collection.reopen)
    drift = _read(Collection.drift)
    recall_curves = _read(Collection.recall_curves)
    stats = _read(Collection.stats)
    text_statistics = _read(Collection.text_statistics)
    verify = _read_long(Collection.verify)
    backup = _read_long(Collection.backup)

    if TYPE_CHECKING:

        async def search(
            self, query: ArrayLike | None = None, k: int = 10, **options: Unpack[HybridKeywords]
        ) -> Any: ...
        async def search_by_id(self, ids: Any, k: int = 10, **options: Unpack[SearchKeywords]) -> Any: ...
        async def search_groups(
            self, query: ArrayLike | None = None, k: int = 10, **options: Unpack[GroupKeywords]
        ) -> Any: ...

    else:
        search = _search(Collection.search)
        search_by_id = _search(Collection.search_by_id)
        search_groups = _search(Collection.search_groups)

    async def scan(self, batch_size: int = 8192, *, where: Where | None = None) -> AsyncIterator[Records]:
        """Yield all vectors in batches, as :meth:`qvec.Collection.scan`."""
        pool = self._writer if self._is_in_block else self._readers
        batches = self.collection.scan(batch_size, where=where)
        try:
            while (records := await self._run(pool, functools.partial(next, batches, None))) is not None:
                yield records
        finally:
            batches.close()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        """Make all changes of this task in the ``async with`` block visible together at its end, or none of them.

        Other tasks that want to write wait, and get LockedError after the handle's timeout. Raises the same errors as
        :meth:`qvec.Collection.transaction`.
        """
        if self._is_in_block:
            raise LockedError("this task has a transaction open already")
        async with self._turn():
            block = self.collection.transaction()
            await self._run(self._writer, block.__enter__)
            self._owner = asyncio.current_task()
            try:
                yield self
            except BaseException as error:
                await self._end(functools.partial(block.__exit__, type(error), error, error.__traceback__))
                raise
            await self._end(functools.partial(block.__exit__, None, None, None))

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncCollection]:
        """Open the last commit: ``async with db.snapshot() as s``."""
        self._renew()
        snapshot = await self._run(self._readers, self.collection.snapshot)
        view = AsyncCollection.__new__(AsyncCollection)
        view.__dict__.update(self.__dict__, collection=snapshot, _lock=asyncio.Lock(), _owner=None)
        try:
            yield view
        finally:
            snapshot.close()

    async def close(self, timeout: float = 5.0) -> None:
        """Close the handle as :meth:`qvec.Collection.close` does, and end its threads."""
        await asyncio.to_thread(self.collection.close, timeout)
        for pool in (self._readers, self._long_reader, self._writer):
            pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def _is_in_block(self) -> bool:
        self._renew()
        return self._owner is not None and self._owner is asyncio.current_task()

    def _renew(self) -> None:
        if self._epoch != fork_epoch():
            self._begin()

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until no other task of this handle writes. LockedError after the handle's timeout."""
        if self._is_in_block:
            yield
            return
        timeout = self.collection.timeout
        try:
            async with asyncio.timeout(timeout if timeout < float("inf") else None):
                await self._lock.acquire()
        except TimeoutError:
            raise LockedError(f"{self.collection.path}: another task writes; this call waited {timeout:g} s") from None
        try:
            yield
        finally:
            self._lock.release()

    async def _end(self, leave: Callable[[], object]) -> None:
        try:
            await self._run(self._writer, leave)
        finally:
            self._owner = None

    async def _run(self, pool: LoopPool, work: Callable[[], R], deadline: Deadline | None = None) -> R:
        """Run a call in a thread. If the task is canceled, wait until the call has ended.

        A call that still waits for a thread at its deadline never begins.
        """
        with short_switch_interval():
            call = pool.submit(work)
            timer = None if deadline is None else call.handover.loop.call_later(deadline.left, _drop, call, deadline)
            try:
                result: R = await call.future
                return result
            except asyncio.CancelledError:
                await call.end()
                raise
            finally:
                if timer is not None:
                    timer.cancel()


def _drop(call: Call, deadline: Deadline) -> None:
    """End a search that has not begun at its deadline. A running search ends by itself."""
    if not call.has_begun and not call.future.done():
        call.is_dropped = True
        try:
            deadline.fail()
        except SearchTimeoutError as error:
            call.future.set_exception(error)
