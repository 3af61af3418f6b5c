"""R22: files that are replaced, or removed and created again, while another process has them open.

All combinations of {reader, writer} x {1 to 4 commits in the old file} x {1 to 4 in the new} x {replaced, removed and
created}; and every call of the handle that has the old file. Run as a script, this file is the process that holds files
open: it obeys commands, one line of JSON each.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from child import start
from figures import Figures, Job

import qvec

DIM = 8
WRITES: dict[str, Callable[[qvec.Collection], object]] = {
    "add": lambda db: db.add(np.eye(1, DIM), ids=[900]),
    "upsert": lambda db: db.upsert(np.eye(1, DIM), ids=[0]),
    "delete": lambda db: db.delete([0]),
    "update_payloads": lambda db: db.update_payloads([0], {"a": 1}),
    "transaction": lambda db: _in_transaction(db),
    "erase": lambda db: db.erase([0]),
    "optimize": lambda db: db.optimize(),
    "compact": lambda db: db.compact(),
    "requantize": lambda db: db.requantize("f16"),
    "tune": lambda db: db.tune(ks=[1]),
    "add_field": lambda db: db.add_field("f", "int"),
    "calibrate": lambda db: db.calibrate(np.tile(np.eye(DIM), (200, 1)), code=qvec.Int8(scale="per_dim")),
}
READS: dict[str, Callable[[qvec.Collection], object]] = {
    "len": len,
    "verify": lambda db: db.verify(),
    "repair": lambda db: db.repair(),
    "stats": lambda db: db.stats().count,
    "search": lambda db: db.search(np.eye(1, DIM)[0], 1).ids.tolist(),
    "get": lambda db: db.get([0]).ids.tolist(),
    "scan": lambda db: sum(len(part.ids) for part in db.scan()),
    "snapshot": lambda db: _in_snapshot(db),
    "backup": lambda db: _backup(db),
}


def run(job: Job) -> Figures:
    """All combinations, once in the short form and ten times in the long one."""
    figures = Figures("R22", "files replaced, or removed and created, while another process has them open")
    parts = ("r", "rw"), range(1, 5), range(1, 5), ("replaced", "created")
    with Holder() as holder:
        for turn in range(job.amount({"short": 1, "nightly": 10})):
            for mode, old, new, how in itertools.product(*parts):
                path = job.folder / f"{turn}-{mode}-{old}-{new}-{how}.qvec"
                name = f"{mode}, {old} commits, {new} commits, {how}"
                try:
                    _combination(path, holder, mode, old, new, how)
                except Exception as error:
                    figures.fail(f"{name}: {type(error).__name__}: {error}")
                figures.count("combinations")
                holder.ask("close")
    return figures


def _combination(path: Path, holder: Holder, mode: str, old: int, new: int, how: str) -> None:
    fill(path, old, 2)
    holder.ask("open", str(path), mode)
    if how == "replaced":
        fill(path.with_suffix(".next"), new, 4)
        os.replace(path.with_suffix(".next"), path)
    else:
        path.unlink()
        fill(path, new, 4)
    with qvec.open(path, "r") as db:
        assert len(db) == 4 * new, f"a new reader sees {len(db)} rows of {4 * new}"
        assert db.verify() == []
    with qvec.open(path) as db:
        db.add(np.eye(1, DIM))
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    for name in READS:
        expected = {
            **dict.fromkeys(("len", "stats", "scan", "snapshot", "backup"), 2 * old),
            "verify": [],
            "repair": [],
        }
        found = holder.ask("call", name)
        assert found == expected.get(name, [0]), f"{name} of the old file returns {found!r}"
    refused = "ReplacedError" if mode == "rw" else "ReadOnlyError"
    for name in WRITES:
        found = holder.ask("call", name)
        assert found[:1] == [refused], f"{name} of the old file returns {found!r}, not {refused}"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before, "a call of the old file changed the new file"
    with qvec.open(path) as db:
        assert len(db) == 4 * new + 1, f"{len(db)} rows of {4 * new + 1} are left"
        assert db.verify() == []


def fill(path: Path, commits: int, rows: int) -> None:
    """Create a collection of a number of commits after the first, each of some rows."""
    with qvec.create(path, DIM, code="f32", index="flat") as db:
        for _ in range(commits):
            db.add(np.eye(rows, DIM))


def _in_transaction(db: qvec.Collection) -> None:
    with db.transaction():
        db.add(np.eye(1, DIM))


def _in_snapshot(db: qvec.Collection) -> int:
    with db.snapshot() as snapshot:
        return len(snapshot)


def _backup(db: qvec.Collection) -> int:
    path = Path(f"{os.getpid()}.backup")
    path.unlink(missing_ok=True)
    try:
        db.backup(path)
        with qvec.open(path, "r") as copy:
            return len(copy)
    finally:
        path.unlink(missing_ok=True)
        Path(f"{path}-lock").unlink(missing_ok=True)


class Holder:
    """A process that has a collection open."""

    def __enter__(self) -> Holder:
        self.process: subprocess.Popen[str] = start(__file__)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, *command: str) -> Any:
        """Have the process run a command; its result."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def _obey() -> None:
    db: qvec.Collection | None = None
    for line in sys.stdin:
        match json.loads(line):
            case ["open", path, mode]:
                os.chdir(Path(path).parent)
                db = qvec.open(path, mode)
                result: object = len(db)
            case ["close"]:
                result = db.close() if db is not None else None
            case ["call", name]:
                assert db is not None
                try:
                    result = (WRITES | READS)[name](db)
                except Exception as error:
                    result = [type(error).__name__, str(error)]
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    _obey()
