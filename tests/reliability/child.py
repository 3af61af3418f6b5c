"""Functions that run in processes of their own, with a deadline. Errors name the signal that killed a process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

DEADLINE = 60.0  # seconds
_CONTEXT = multiprocessing.get_context("spawn")


class ChildDied(AssertionError):
    """A child process ended without a result."""


def run(function: Callable[..., Any], *args: Any, deadline: float = DEADLINE) -> Any:
    """Result of a function of an importable module in a new process. Its exception or death raises ChildDied."""
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_report, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        kind, value = receiver.recv() if receiver.poll(deadline) else ("hung", f"no result in {deadline} s")
    except EOFError:
        process.join(deadline)
        kind, value = "died", describe(process.exitcode)
    finally:
        receiver.close()
        process.kill()
        process.join()
    if kind != "returned":
        raise ChildDied(f"{function.__name__}{args!r} {kind}: {value}")
    return value


def start(script: str, *args: object) -> subprocess.Popen[str]:
    """Start a script in a process with the same import path, with pipes to its input and output."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, script, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def describe(code: int | None) -> str:
    """An exit code in words; signals by name."""
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _report(sender: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        sender.send(("returned", function(*args)))
    except SystemExit:
        raise
    except BaseException:
        sender.send(("raised", traceback.format_exc()))
