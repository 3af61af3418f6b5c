"""Fake libraries for the benchmark's processes: good, slow, wrong, crashing and hanging ones."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from qvec.bench.adapters.base import Adapter, Calls, Options


class Exact(Adapter):
    """Brute force. Writes its name and each requested point to the file ``log``."""

    module = "numpy"
    package = "numpy"
    defaults: ClassVar[Options] = {"log": "", "name": "exact", "pause": 0.0}

    def build(self, base, threads):
        self.base = np.array(base)

    def finish(self):
        return 4 * self.base.size

    def sweep(self, k):
        return {"share": (0.5, 1.0)}

    def calls(self, k, point, threads):
        if self.options["log"]:
            with Path(self.options["log"]).open("a") as out:
                out.write(f"{self.options['name']} {point['share']}\n")
        rows = self.base[: int(len(self.base) * point["share"])]

        def many(queries):
            keys = -(queries @ rows.T) if self.inner else ((queries[:, None] - rows) ** 2).sum(axis=2)
            return np.argsort(keys, axis=1, kind="stable")[:, :k]

        def one(query):
            time.sleep(self.options["pause"])
            return many(query[None])[0]

        return Calls(one, many, lambda found: found)


class Crashing(Exact):
    """Dies like a library that reads beyond its memory."""

    def calls(self, k, point, threads):
        if point["share"] == 1.0:
            print("about to read nothing", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().calls(k, point, threads)


class Hanging(Exact):
    """Never answers."""

    def calls(self, k, point, threads):
        time.sleep(3600)


class Refusing(Exact):
    """Raises an error when it builds."""

    def build(self, base, threads):
        raise RuntimeError(f"{len(base)} rows are too many")


class Short(Exact):
    """Returns too few hits, and one hit twice; has no batch search."""

    def calls(self, k, point, threads):
        found = super().calls(k, point, threads)
        return Calls(lambda query: [*found.one(query)[:2].tolist(), int(found.one(query)[0])], None, lambda ids: ids)


class Foreign(Exact):
    """A library that is not installed."""

    module = "no_such_library"
    package = "no-such-library"
