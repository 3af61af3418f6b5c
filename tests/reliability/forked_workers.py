"""Functions that run in forked children of a process that has imported everything and has no file open.

No interpreter has to start, so a child costs a few milliseconds. The calling process must never open a collection
itself, because LMDB must not be used across a fork.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

from child import describe

DEADLINE = 20.0  # seconds for one answer
PATIENCE = 20  # factor for the deadline by the clock
Case = TypeVar("Case")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process (clock_getcpuclockid(3)); 0 after its end."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


class Worker:
    """A forked child that writes lines."""

    def __init__(self, task: Callable[[Callable[[str], None]], None]) -> None:
        """``task`` is called in the child with a function that writes a line. The child ends when the task returns."""
        self._reading, writing = os.pipe()
        self._pending = b""
        gc.freeze()  # the child's collector does not touch, and so does not copy, frozen objects
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reading)
            _serve(task, writing)
        os.close(writing)
        gc.unfreeze()

    def line(self, deadline: float = DEADLINE) -> str | None:
        """The next line; None if the child has ended.

        Raises TimeoutError if no line arrives in ``deadline`` seconds of processor time or many times as long by the
        clock, because other processes may use the processors.
        """
        began, waited = cpu_seconds(self.pid), 0
        while b"\n" not in self._pending:
            if not select.select([self._reading], [], [], 1)[0]:
                waited += 1
                if waited > PATIENCE * deadline or cpu_seconds(self.pid) - began > deadline:
                    raise TimeoutError(f"no answer in {deadline} s")
                continue
            more = os.read(self._reading, 1 << 16)
            if not more:
                return None
            self._pending += more
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def kill(self) -> None:
        """End it as `kill -9` does."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> str:
        """Wait for the child's end. Returns "" for success, or how it ended."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._reading)
        return "" if code == 0 else describe(code)


def ask(function: Callable[..., Any], *args: Any, deadline: float = DEADLINE) -> Any:
    """Result of a function in a child, through JSON. Raises RuntimeError with a traceback or the child's signal."""
    with Server(lambda: function(*args), deadline) as server:
        return server.ask()


class Server:
    """A child that answers questions one after the other, through JSON. A question after its death forks another."""

    def __init__(self, function: Callable[..., Any], deadline: float = DEADLINE) -> None:
        self._function, self._deadline = function, deadline
        self._worker: Worker | None = None
        self._asking = -1

    def ask(self, *args: Any) -> Any:
        """Result of the function. Raises RuntimeError with a traceback or the child's signal; TimeoutError."""
        if self._worker is None:
            self._begin()
        assert self._worker is not None
        os.write(self._asking, f"{json.dumps(args)}\n".encode())
        try:
            line = self._worker.line(self._deadline)
        except TimeoutError:
            self.end()
            raise
        answer = None if line is None else json.loads(line)
        if line is None or (isinstance(answer, dict) and answer.keys() == {"traceback"}):
            ended = self.end(kill=False)
            raise RuntimeError(ended if line is None else answer["traceback"])
        return answer

    def end(self, *, kill: bool = True) -> str:
        """End the child. Returns how it ended."""
        if self._worker is None:
            return ""
        if kill:
            self._worker.kill()
        os.close(self._asking)
        worker, self._worker = self._worker, None
        return worker.end()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _begin(self) -> None:
        asked, self._asking = os.pipe()

        def serve(say: Callable[[str], None]) -> None:
            with os.fdopen(asked) as questions:
                for question in questions:
                    say(json.dumps(self._function(*json.loads(question))))

        self._worker = Worker(serve)
        os.close(asked)


def each(cases: Sequence[Case], check: Callable[[Case], str], deadline: float = DEADLINE) -> Iterator[str]:
    """Result of ``check`` for each case, the name of the signal that killed the child, or "hung" for a timeout.

    A child checks cases until it dies.
    """
    at = 0
    while at < len(cases):
        rest = cases[at:]
        worker = Worker(lambda say, rest=rest: _check(rest, check, say))  # type: ignore[misc]
        try:
            while at < len(cases) and (line := worker.line(deadline)) is not None:
                at += 1
                yield json.loads(line)
            ended = worker.end()
        except TimeoutError:
            worker.kill()
            worker.end()
            ended = "hung"
        if at < len(cases):
            at += 1
            yield ended or "ended"


def _check(cases: Sequence[Case], check: Callable[[Case], str], say: Callable[[str], None]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # LMDB's message when it aborts
    for case in cases:
        say(json.dumps(check(case)))


def _serve(task: Callable[[Callable[[str], None]], None], writing: int) -> NoReturn:
    def say(line: str) -> None:
        os.write(writing, f"{line}\n".encode())

    try:
        task(say)
    except BaseException:
        say(json.dumps({"traceback": traceback.format_exc()[-4000:]}))
        os._exit(1)
    os._exit(0)
