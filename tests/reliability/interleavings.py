"""R24 and R25: random interleavings of tasks, generators and threads over transactions, snapshots, scans and close.

A Hypothesis state machine. Three tasks of one event loop and two threads (the places) do one step at a time. A block
is a generator with an open transaction, which the place that began it advances: a place may have several, and end them
in any order. The model knows which calls must be refused, and which rows are stored; a second handle compares them
after each step. A step that takes longer than LIMIT is a hang.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
import numpy as np
from figures import Figures, Job
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import qvec

DIM, LIMIT = 4, 20.0
EXAMPLES = {"short": 40, "nightly": 2000}
STEPS = {"short": 25, "nightly": 50}
MAX_BLOCKS, MAX_READS = 3, 4
Block = Generator[None, bool, None]


class Oops(Exception):
    """What fails inside a block."""


@dataclass(eq=False)
class Place:
    """A task or thread, where calls run one at a time. ``blocks``: the open ones, the outermost first. ``rows``: added
    inside them. ``orphans``: blocks whose outermost block has ended."""

    name: str
    send: Callable[[Callable[[], None]], object]
    end: Callable[[], object]
    blocks: list[Block] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    orphans: list[Block] = field(default_factory=list)
    has_failed: bool = False
    has_ended: bool = False

    def run(self, call: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
        """The result or the error of a call."""
        done: Future[tuple[Any, BaseException | None]] = Future()

        def work() -> None:
            try:
                done.set_result((call(*args), None))
            except BaseException as error:
                done.set_result((None, error))

        self.send(work)
        try:
            return done.result(LIMIT)
        except TimeoutError:
            raise AssertionError(f"{self.name} hangs in {call}") from None


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def task(self, name: str) -> Place:
        """A task that makes the calls that are sent to it."""
        queue: asyncio.Queue[Callable[[], None] | None] = asyncio.Queue()

        async def serve() -> None:
            while (work := await queue.get()) is not None:
                work()

        ended = asyncio.run_coroutine_threadsafe(serve(), self.loop)

        def end() -> None:
            self.loop.call_soon_threadsafe(queue.put_nowait, None)
            ended.result(LIMIT)

        return Place(name, lambda work: self.loop.call_soon_threadsafe(queue.put_nowait, work), end)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(LIMIT)
        self.loop.close()


def thread(name: str) -> Place:
    """A thread of its own."""
    pool = ThreadPoolExecutor(1, name)
    return Place(name, pool.submit, pool.shutdown)


def block(db: qvec.Collection) -> Block:
    """A transaction that is open between the first and the last step of the generator."""
    with db.transaction():
        if (yield):
            raise Oops


def row(number: int) -> np.ndarray:
    return np.full((1, DIM), number, np.float32)


PLACES = st.integers(0, 9)  # from 5 on: the place that has a transaction, if there is one
NUMBERS = st.integers(0, 100)


class Interleavings(RuleBasedStateMachine):
    """The steps. ``closes``: whether the handle may be closed, and threads may end, while blocks are open."""

    closes: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "rows.qvec"
        self.db = qvec.create(self.path, DIM, code="f32", index="flat", durability="relaxed", timeout=0.005)
        self.reader = qvec.open(self.path, "r")
        self.loop = Loop()
        self.places = [self.loop.task(f"task {i}") for i in range(3)] + [thread(f"thread {i}") for i in range(2)]
        self.numbers = itertools.count(1)
        self.stored: set[int] = set()
        self.snapshots: list[tuple[qvec.Collection, set[int]]] = []
        self.scans: list[tuple[Iterator[qvec.Records], set[int]]] = []
        self.closed = False
        self.left: list[Block] = []  # by threads that have ended

    def place(self, at: int) -> Place:
        """The place of a step."""
        if at < len(self.places):
            return self.places[at]
        return self.places[at - len(self.places)] if self.writer is None else self.writer

    # --- the model ---

    @property
    def writer(self) -> Place | None:
        """The place that has a transaction."""
        return next((place for place in self.places if place.blocks), None)

    def expected(self, place: Place) -> tuple[type[Exception], ...]:
        """The errors that a call which writes may raise here; () if it must succeed."""
        if place.orphans:
            return (qvec.AbortedError, qvec.ClosedError)
        if self.closed:
            return (qvec.ClosedError, qvec.LockedError)
        if place.has_failed:
            return (qvec.AbortedError,)
        return () if self.writer in (None, place) else (qvec.LockedError,)

    def check(self, error: BaseException | None, expected: tuple[type[Exception], ...], what: str) -> bool:
        """Whether a call succeeded; AssertionError if that, or its error, is not what the model says."""
        if (error is None) != (not expected) or (error is not None and not isinstance(error, expected)):
            raise AssertionError(f"{what}: {error!r}, expected {expected}") from error
        return error is None

    # --- steps ---

    @rule(at=PLACES)
    def add(self, at: int) -> None:
        """Add a row, inside the open block of the place if there is one."""
        place, number = self.place(at), next(self.numbers)
        if place.has_ended:
            return
        _, error = place.run(lambda: self.db.add(row(number), ids=[number]))
        if self.check(error, self.expected(place), f"add in {place.name}"):
            if place.blocks:
                place.rows.append(number)
            else:
                self.stored.add(number)

    @rule(at=PLACES)
    def begin(self, at: int) -> None:
        """Begin a block, inside the others of the place."""
        place = self.place(at)
        if place.has_ended or len(place.blocks) >= MAX_BLOCKS:
            return
        begun = block(self.db)
        _, error = place.run(next, begun)
        expected = self.expected(place)
        if place.has_failed and not place.orphans and not self.closed:
            expected = ()  # a block inside one that has failed begins, and is undone with it
        if self.check(error, expected, f"begin in {place.name}"):
            place.blocks.append(begun)

    @rule(at=PLACES, which=NUMBERS, fails=st.booleans())
    def end(self, at: int, which: int, fails: bool) -> None:
        """End a block of the place, not always the innermost."""
        place = self.place(at)
        ending = place.blocks + place.orphans
        if place.has_ended or not ending:
            return
        self.end_block(place, ending[which % len(ending)], fails)

    def end_block(self, place: Place, ended: Block, fails: bool) -> None:
        """Advance a block to its end."""
        _, error = place.run(ended.send, fails)
        if isinstance(error, StopIteration):
            error = None
        what = f"end in {place.name}, {'failing' if fails else 'sound'}"
        if ended in place.orphans:
            place.orphans.remove(ended)
            self.check(error, (Oops, qvec.AbortedError, qvec.ClosedError), what)
            return
        is_outermost, others = ended is place.blocks[0], place.blocks[1:]
        if not is_outermost:
            place.blocks.remove(ended)
            place.has_failed = place.has_failed or fails
            self.check(error, (Oops,) if fails else (qvec.ClosedError,) if self.closed and error else (), what)
            return
        undone = (Oops,) if fails else ()
        if others or place.has_failed:
            undone += (qvec.AbortedError,)
        if self.closed:
            undone += (qvec.ClosedError,)
        if self.check(error, undone, what):
            self.stored.update(place.rows)
        place.orphans += others
        place.blocks, place.rows, place.has_failed = [], [], False

    @rule(at=PLACES)
    def snapshot(self, at: int) -> None:
        """Take a snapshot; it is refused inside a transaction."""
        place = self.place(at)
        if place.has_ended or len(self.snapshots) >= MAX_READS:
            return
        taken, error = place.run(self.db.snapshot)
        expected: tuple[type[Exception], ...] = (qvec.InputError,) if place.blocks else ()
        if self.closed:
            expected = (qvec.ClosedError, qvec.InputError)
        if place.orphans:
            expected = (qvec.AbortedError, qvec.ClosedError)
        if self.check(error, expected, f"snapshot in {place.name}"):
            self.snapshots.append((taken, set(self.stored)))

    @precondition(lambda self: self.snapshots)
    @rule(at=PLACES, which=NUMBERS, ends=st.booleans())
    def read_snapshot(self, at: int, which: int, ends: bool) -> None:
        """Read a snapshot, which another place may have taken."""
        place = self.place(at)
        if place.has_ended:
            return
        taken, rows = self.snapshots[which % len(self.snapshots)]
        found, error = place.run(lambda: {int(i) for part in taken.scan(2) for i in part.ids})
        if self.check(error, (qvec.ClosedError,) if self.closed else (), f"a snapshot read in {place.name}"):
            assert found == rows, "a snapshot has changed"
        if ends:
            _, error = place.run(taken.close)
            self.check(error, (), f"close of a snapshot in {place.name}")
            self.snapshots.remove((taken, rows))

    @rule(at=PLACES)
    def scan(self, at: int) -> None:
        """Begin a scan outside of a transaction."""
        place = self.place(at)
        if place.has_ended or place.blocks or place.orphans or self.closed or len(self.scans) >= MAX_READS:
            return
        begun, left = self.db.scan(1), set(self.stored)
        self.step_scan(place, begun, left)

    @precondition(lambda self: self.scans)
    @rule(at=PLACES, which=NUMBERS)
    def continue_scan(self, at: int, which: int) -> None:
        """Take the next batch of a scan, which another place may have begun."""
        place = self.place(at)
        if not place.has_ended:
            self.step_scan(place, *self.scans.pop(which % len(self.scans)))

    def step_scan(self, place: Place, scan: Iterator[qvec.Records], left: set[int]) -> None:
        """The next batch; ``left``: the rows that were not seen yet."""
        part, error = place.run(next, scan, None)
        if not self.check(error, (qvec.ClosedError,) if self.closed else (), f"a scan in {place.name}"):
            return
        if part is None:
            assert not left, f"a scan has missed {left}"
            return
        seen = {int(i) for i in part.ids}
        assert seen <= left, f"a scan has seen {seen - left}, which were not there when it began, or twice"
        self.scans.append((scan, left - seen))

    @precondition(lambda self: self.closes and not self.closed)
    @rule(often=st.integers(0, 5))
    def close(self, often: int) -> None:
        """Close the handle, in a place of its own."""
        if often:  # most examples do more before
            return
        self.close_handle()

    def close_handle(self) -> None:
        closer = thread("closer")
        _, error = closer.run(self.db.close)
        closer.end()
        self.check(error, (), "close")
        self.closed = True

    @precondition(lambda self: self.closes)
    @rule(at=st.integers(3, 4))
    def end_thread(self, at: int) -> None:
        """End a thread, which may leave its transaction open: it is undone, and others can write."""
        place = self.place(at)
        if not place.has_ended and not place.orphans:
            place.end()
            place.has_ended = True
            self.left += place.blocks
            place.blocks, place.rows = [], []

    # --- checks ---

    @invariant()
    def exactly_the_acknowledged_rows_are_visible(self) -> None:
        found = [int(i) for part in self.reader.scan() for i in part.ids]
        assert len(found) == len(set(found))
        assert set(found) == self.stored, (sorted(found), sorted(self.stored))

    def teardown(self) -> None:
        try:
            for place in self.places:
                while not place.has_ended and place.blocks + place.orphans:
                    self.end_block(place, (place.blocks + place.orphans)[-1], False)
            self.exactly_the_acknowledged_rows_are_visible()
            self.close_handle()
            self.exactly_the_acknowledged_rows_are_visible()
            with qvec.open(self.path, timeout=1.0) as db:  # the file is free, and can be written
                db.add(row(1), ids=[10**6])
                assert db.verify() == []
                assert len(db) == len(self.stored) + 1
        finally:
            self.reader.close()
            for place in self.places:
                if not place.has_ended:
                    place.end()
            self.loop.close()
            self.folder.cleanup()


class Closings(Interleavings):
    closes = True


def run(job: Job) -> Figures:
    """R24: transactions of tasks and threads, nested by generators."""
    return _run(
        job, Figures("R24", "random interleavings of tasks, generators and threads over transactions"), Interleavings
    )


def run_close(job: Job) -> Figures:
    """R25: the same, and the handle is closed, and threads end, in the middle."""
    figures = Figures("R25", "handles that are closed while tasks, generators and threads use them")
    return _run(job, figures, Closings)


def _run(job: Job, figures: Figures, machine: type[Interleavings]) -> Figures:
    class Counted(machine):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            figures.count("interleavings")

        def check(self, *arguments: Any) -> bool:
            figures.count("steps")
            return bool(super().check(*arguments))

        def teardown(self) -> None:
            figures.count("stored rows", len(self.stored))
            super().teardown()

    settings = hypothesis.settings(
        max_examples=job.amount(EXAMPLES),
        stateful_step_count=STEPS[job.scale],
        derandomize=job.scale == "short",
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    try:
        run_state_machine_as_test(Counted, settings=settings)
    except Exception as error:
        notes = "\n".join(getattr(error, "__notes__", []))
        figures.fail(f"{type(error).__name__}: {error}\n{notes}")
    return figures
