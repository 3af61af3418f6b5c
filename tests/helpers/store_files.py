"""Helpers of the store's tests: a store of two columns, models of their rows, processes with deadlines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qvec.storage.store import ColumnSpec, Store, Transaction

LISTS, CODES = "lists", "codes"
COLUMNS = {LISTS: ColumnSpec(1, 128, 1, 1), CODES: ColumnSpec(2, 384)}


def make_store(directory: Path, **options: object) -> Store:
    return Store.create(directory / "a.qvec", COLUMNS, {"dim": 384}, **options)  # type: ignore[arg-type]


def random_rows(rng: np.random.Generator, n: int, stride: int) -> np.ndarray:
    return rng.integers(0, 256, (n, stride), dtype=np.uint8)


def fill(store: Store, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Commit ``n`` random rows to both columns; returns what was written."""
    rng = np.random.default_rng(seed)
    written = {}
    with store.write() as txn:
        for name, column in txn.columns.items():
            column.resize(n)
            written[name] = random_rows(rng, n, column.stride)
            column.write(0, written[name])
        txn.state["n"] = n
    return written


def change_rows(store: Store, written: dict[str, np.ndarray], rng: np.random.Generator, count: int) -> None:
    """Commit new bytes for ``count`` random rows of each column, and record them in ``written``."""
    with store.write() as txn:
        for name, rows in written.items():
            for at in rng.integers(0, len(rows), count):
                rows[at] = random_rows(rng, 1, rows.shape[1])[0]
                txn.columns[name].write(int(at), rows[at : at + 1])


def contents(store: Store) -> dict[str, np.ndarray]:
    with store.read() as snap:
        n = snap.state["n"]
        return {name: column.read_range(0, n) for name, column in snap.columns.items()}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)


def in_child(action: Callable[[], object], deadline: float = 20.0) -> None:
    """Run a function in a forked child; fail if it raises, dies or takes longer than ``deadline`` seconds."""
    report, to_parent = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            os.write(to_parent, traceback.format_exc()[-4000:].encode())
        finally:
            os._exit(code)
    os.close(to_parent)
    hung, status = wait_for(pid, deadline)
    with os.fdopen(report, "rb") as lines:
        said = lines.read().decode()
    assert not hung, f"the child hung for {deadline} s"
    assert status == 0, f"the child ended with status {status}: {said}"


def wait_for(pid: int, deadline: float) -> tuple[bool, int]:
    """Whether a child had to be killed after ``deadline`` seconds, and its status."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return False, status
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    return True, os.waitpid(pid, 0)[1]


def run_python(code: str, *arguments: object, deadline: float = 30.0) -> str:
    """Output of a fresh interpreter. A failure is an error that names the signal which killed the process."""
    modules = "qvec.storage.store", "qvec.storage.stats", "qvec.common.errors"
    imports = "".join(f"from {module} import *\n" for module in modules)
    script = f"import sys\n{imports}{textwrap.dedent(code)}"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True, text=True, timeout=deadline, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout.strip()


def resize_rows(txn: Transaction, name: str, stride: int) -> None:
    """Change the row size of a column: rows are cut, or extended with zeros."""
    column = txn.columns[name]
    old = column.read_range(0, column.n_rows)
    txn.drop_column(name)
    if stride:
        new = np.zeros((len(old), stride), np.uint8)
        new[:, : old.shape[1]] = old[:, :stride]
        made = txn.add_column(name, ColumnSpec(column.id, stride, 1, 16, column.generation))
        made.resize(len(old))
        made.write(0, new)
