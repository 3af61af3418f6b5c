"""The process of a contestant, controlled by its parent. If it crashes or hangs, the run continues without it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qvec.bench.memory import anonymous_now
from qvec.common.errors import QvecError

SAMPLE_SECONDS = 0.02
LOG_TAIL = 400  # this many last characters of the output are shown in error messages


class FailedError(QvecError):
    """A contestant crashed, hung, or raised an exception."""


class Child:
    """A running worker. ``log``: file of its output."""

    def __init__(self, log: Path, environment: Mapping[str, str] | None = None) -> None:
        root = str(Path(__file__).parents[2])
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "qvec.bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
            )
        self._unread = b""
        self.peak_anonymous = 0

    def ask(self, op: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Send a request and return the answer. FailedError: an error, or no answer within ``timeout`` seconds."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        answer: dict[str, Any] = json.loads(self._line(op, time.monotonic() + timeout, timeout))
        if "error" in answer:
            self.end()
            raise FailedError(answer["error"])
        return answer

    def _line(self, op: str, deadline: float, timeout: float) -> bytes:
        """Read the next line, and sample the memory of the process while it waits."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if time.monotonic() > deadline:
                    self.end()
                    raise FailedError(f"no answer to {op!r} within {timeout:g} s; the process was killed")
                self.peak_anonymous = max(self.peak_anonymous, anonymous_now(self._process.pid))
                if selector.select(SAMPLE_SECONDS):
                    part = os.read(self._process.stdout.fileno(), 1 << 20)
                    if not part:
                        raise self._ended()
                    self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _ended(self) -> FailedError:
        code = self.end()
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        tail = " ".join(self._log.read_text(errors="replace").split())[-LOG_TAIL:]
        return FailedError(f"{how}{': ' + tail if tail else ''}")

    def end(self) -> int:
        """Kill the process if it is still running. Return its exit code."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):  # unsent data may have no reader any more
                self._process.stdin.close()
        if self._process.poll() is None:
            self._process.kill()
        code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code
