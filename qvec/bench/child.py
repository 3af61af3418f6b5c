"""The parent's side of a contestant's process: it may crash or hang, and only itself is hurt."""

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
LOG_TAIL = 400  # characters of what it printed last


class FailedError(QvecError):
    """A contestant crashed, hung, or raised an exception."""


class Child:
    """A running worker. ``log``: the file of what its library prints."""

    def __init__(self, log: Path, environment: Mapping[str, str] | None = None) -> None:
        import qvec

        root = str(Path(qvec.__file__).parents[1])
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
        """The answer to a request. FailedError where there is none within ``timeout`` seconds, or it is an error."""
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
        """The next line, and on the way there the most memory that was seen."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if time.monotonic() > deadline:
                    self.end()
                    raise FailedError(f"no answer to {op!r} within {timeout:g} s; it was ended")
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
        """End the process, if it still runs; its exit code."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):  # what was to be written may have no reader any more
                self._process.stdin.close()
        if self._process.poll() is None:
            self._process.kill()
        code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code
