"""R6: every kind of wrong value in every field of the configuration, the state and the records of a file.

Checksums are valid. Also columns whose rows have another size, and missing columns.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crafted_files import Case, base, check_all, prepare, records_of
from figures import Figures, Job

from helpers.store_files import resize_rows
from qvec.storage import header, keys
from qvec.storage.store import Store, Transaction

CASES = {"short": 150, "nightly": 1_000_000}  # more than there are
WRONG: tuple[Any, ...] = (
    0, 1, -1, 2, 255, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, float("nan"), float("inf"), -1.5,
    1e300, None, True, "", "x", b"", b"\xff" * 4, b"\xff" * 64, [], [0], {}, {"x": 1},
)  # fmt: skip
STRIDES: tuple[Callable[[int], int], ...] = (
    lambda _: 0, lambda _: 1, lambda _: 4, lambda _: 8, lambda size: size - 1, lambda size: size + 1,
    lambda size: size + 64, lambda size: size // 2, lambda size: 2 * size,
)  # fmt: skip
MISSING, EXTRA, MORE, LESS, CUT = "<missing>", "<extra>", "<more>", "<less>", "<cut>"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in plain data."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for i in list(range(len(value)))[:2]:
            yield from places(value[i], (*path, i))


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at a place. `MISSING` removes the value, `EXTRA` adds another name next to it."""
    value = copy.deepcopy(value)
    at = value
    for key in place[:-1]:
        at = at[key]
    if new == MISSING:
        del at[place[-1]]
    elif new == EXTRA and isinstance(at, dict):
        at["no such field"] = 1
    elif new in (MORE, LESS) and isinstance(at[place[-1]], int):
        at[place[-1]] += 1 if new == MORE else -1
    elif new == CUT and isinstance(at[place[-1]], bytes | str | list):
        at[place[-1]] = at[place[-1]][:-1]
    else:
        at[place[-1]] = new
    return value


def fields(collection: str, path: Path) -> Iterator[Case]:
    """A case for each wrong value of each field."""
    with Store.open(path, "r") as store, store.read() as snap:
        contents = {"configuration": dict(store.config), "state": dict(snap.state)}
        contents |= {what: snap.record(*key) for what, key in records_of(snap).items()}
    for what, content in contents.items():
        for place in places(content):
            for value in (*WRONG, MISSING, EXTRA, MORE, LESS, CUT):
                yield Case(collection, what, place, value)


def sizes(collection: str, path: Path) -> Iterator[Case]:
    """A case for each wrong size of the rows of each column; 0 removes the column."""
    with Store.open(path, "r") as store, store.read() as snap:
        strides = {name: column.stride for name, column in snap.columns.items()}
    for name, stride in strides.items():
        for value in sorted({change(stride) for change in STRIDES} - {stride}):
            yield Case(collection, "column", name, value)


def craft(txn: Transaction, case: Case) -> None:
    if case.what == "column":
        resize_rows(txn, case.place, case.value)
    elif case.what == "configuration":
        new = header.pack(changed(header.unpack(txn.txn.get(keys.CONFIG), ""), case.place, case.value), txn.env.psize)
        txn.txn.put(keys.CONFIG, new)
    elif case.what == "state":
        new = changed(dict(txn.state), case.place, case.value)
        txn.state.clear()
        txn.state.update(new)
    else:
        key = records_of(txn)[case.what]
        txn.put_record(*key, changed(txn.record(*key), case.place, case.value))


def run(job: Job) -> Figures:
    figures = Figures("R6", "crafted fields of the configuration, the state and records")
    collections = [(collection, base(job.folder, collection)) for collection in prepare(job)]
    cases = [case for collection in collections for case in (*fields(*collection), *sizes(*collection))]
    figures.amounts["fields and columns, and wrong values"] = len(cases)
    chosen = random.Random(job.seed).sample(cases, min(len(cases), job.amount(CASES)))
    figures.amounts["failing files"] = len(list(check_all(figures, job.folder, chosen, craft)))
    return figures
