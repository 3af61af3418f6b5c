"""R6, R7: files that somebody made, with valid checksums and wrong content.

An error of qvec's or any answer; no signal, no other exception, no endless loop. R6 puts every kind of wrong value into
every field of the state and of the records; R7 puts random bytes and numbers into rows of columns, bitmaps and ids, and
gives the parsers random data.
"""

from __future__ import annotations

import contextlib
import copy
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from figures import Figures, Job
from forks import each
from generated import clustered

import qvec
from qvec._kernels import bits_roaring
from qvec.calibrations import imported
from qvec.config import Config
from qvec.configs import Flat, Int8
from qvec.curves import Curves
from qvec.layout import CALIBRATION, DRIFT, ROW, TUNING
from qvec.quantizers import from_state
from qvec.storage import records
from qvec.storage.store import Store, Transaction

DIM = 16
N = 300
X = clustered(np.random.default_rng(3), N, DIM)
HANG = 10.0  # seconds
SLOW = 1.0  # of one input
CASES = {"short": 150, "nightly": 1_000_000}  # of R6; there are fewer
FILES = {"short": 120, "nightly": 12_000}  # of R7
INPUTS = {"short": 5_000, "nightly": 40_000}
WRONG: tuple[Any, ...] = (
    0, 1, -1, 2, 255, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, float("nan"), float("inf"), -1.5,
    1e300, None, True, "", "x", b"", b"\xff" * 4, b"\xff" * 64, [], [0], {}, {"x": 1},
)  # fmt: skip
Ids = Literal["int64", "str"]
COLLECTIONS: dict[str, dict[str, Any]] = {
    "graph": {"code": "int8", "index": qvec.HNSW(m=4, ef_construction=30), "metric": "l2"},
    "packed": {"code": "int8", "index": qvec.HNSW(m=16, ef_construction=40, layout="packed"), "metric": "cosine"},
    "lists": {"code": "binary", "index": qvec.IVF(nlist=8), "ids": "str", "metric": "ip"},
    "plain": {"code": qvec.Int8(scale="per_dim"), "index": "flat", "keep": "none", "metric": "l2"},
}
CONFIG = Config(DIM, "l2", "int64", "f32", Int8(), Flat(), None, 0)
FIELDS = {"row": "int", "tag": "keyword", "tags": "keyword[]", "at": "float"}


def name(ids: str, i: int) -> int | str:
    return f"x{i}" if ids == "str" else i


def create(path: str, options: dict[str, Any]) -> None:
    ids = options.get("ids", "int64")
    with qvec.create(path, DIM, fields=FIELDS, durability="relaxed", **options) as db:  # type: ignore[arg-type]
        payloads: list[Any] = [{"row": i, "tag": f"t{i % 5}", "tags": ["a", "b"], "at": i / 2} for i in range(N)]
        db.add(X, [name(ids, i) for i in range(N)], payloads)
        db.delete([name(ids, i) for i in range(40, 60)])
        if options.get("keep") != "none":
            db.tune(X[:50], ks=(5,))
            code = db.calibrations()[0].code
            db.requantize("f16")
            db.requantize(code)


class Case(NamedTuple):
    """A wrong value at a place of a file."""

    collection: str
    what: str
    place: Any
    value: Any


# --- R6: fields ---


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in plain data."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for i in list(range(len(value)))[:2]:
            yield from places(value[i], (*path, i))


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A copy with something else at a place; `MISSING` takes it away, `EXTRA` puts another name beside it."""
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


MISSING, EXTRA, MORE, LESS, CUT = "<missing>", "<extra>", "<more>", "<less>", "<cut>"
RECORDS = {
    "calibration": (CALIBRATION, 0),
    "drift": (DRIFT, 0),
    "curves": (TUNING, 0),
    "queries": (TUNING, 1),
    "row": (ROW, 3),
}


def fields(collection: str, path: str) -> Iterator[Case]:
    """A case for each wrong value of each field."""
    with Store.open(path, "r") as store, store.read() as snap:
        contents = {"state": dict(snap.state)} | {what: snap.record(*key) for what, key in RECORDS.items()}
    for what, content in contents.items():
        if content is not None:
            for place in places(content):
                for value in (*WRONG, MISSING, EXTRA, MORE, LESS, CUT):
                    yield Case(collection, what, place, value)


def craft(txn: Transaction, case: Case) -> None:
    if case.what == "state":
        new = changed(dict(txn.state), case.place, case.value)
        txn.state.clear()
        txn.state.update(new)
    else:
        key = RECORDS[case.what]
        txn.put_record(*key, changed(txn.record(*key), case.place, case.value))


# --- R7: rows, bitmaps, ids ---


def random_case(collection: str, chance: random.Random) -> Case:
    return Case(collection, "bytes", chance.randrange(2**62), None)


def scramble(txn: Transaction, case: Case) -> str:
    """Random damage of one to three parts; what it was."""
    chance = random.Random(case.place)
    return ", ".join(chance.choice(SCRAMBLES)(txn, chance) for _ in range(chance.randint(1, 3)))


def _numbers(chance: random.Random, size: int) -> bytes:
    """Bytes that hold numbers near the limits of what a file may name."""
    few = (0, 1, 2, N - 1, N, N + 1, 31, 32, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2, 0x7F800000, 0xFFC00000, 0x7F7FFFFF)
    parts = [chance.choice(few) if chance.random() < 0.8 else chance.getrandbits(32) for _ in range(size // 4 + 1)]
    return b"".join(part.to_bytes(4, "little") for part in parts)[:size]


def scramble_column(txn: Transaction, chance: random.Random) -> str:
    name = chance.choice(sorted(n for n, column in txn.columns.items() if column.n_rows))
    column = txn.columns[name]
    for _ in range(chance.choice((1, 1, 4, 30))):
        row = chance.randrange(min(column.n_rows, N + 40))
        content = bytearray(column.read_range(row, row + 1).tobytes())
        at = 4 * chance.randrange(len(content) // 4) if len(content) > 4 else 0
        size = min(chance.choice((1, 4, 4, 16, len(content))), len(content) - at)
        content[at : at + size] = _numbers(chance, size)
        column.write(row, np.frombuffer(bytes(content), np.uint8)[None])
    return f"rows of {name}"


def scramble_size(txn: Transaction, chance: random.Random) -> str:
    name = chance.choice(sorted(txn.columns))
    column = txn.columns[name]
    column.resize(chance.choice((0, 1, column.n_rows // 2, column.n_rows + 100)))
    return f"size of {name}"


def scramble_entry(txn: Transaction, chance: random.Random) -> str:
    entries = [(name, bytes(value)) for name, value in txn.entries(b"\0", b"\xff" * 400)]
    if not entries:
        return "no entry"
    name, value = chance.choice(entries)
    name, other = (name, value) if chance.random() < 0.8 else (name[:-1] + bytes([chance.randrange(256)]), value)
    txn.put_entries([(name, mutated(other, chance) or b"\0")])
    return f"entry {name.hex()}"


def scramble_id(txn: Transaction, chance: random.Random) -> str:
    keys = [key for key, _ in txn.iter_ids()][:50]
    if not keys:
        return "no id"
    key, row = chance.choice(keys), chance.choice((0, N - 1, N, N + 500, 2**31 - 1, 45))
    txn.delete_ids([key])
    txn.put_ids([key if chance.random() < 0.7 else mutated(key, chance)[:500] or b"\0"], [row])
    return f"id {key!r}"


def scramble_record(txn: Transaction, chance: random.Random) -> str:
    what = chance.choice(sorted(RECORDS))
    key = RECORDS[what] if what != "row" else (ROW, chance.randrange(N))
    content = txn.record(*key)
    if content is None:
        return f"no {what}"
    txn.put_record(*key, changed(content, chance.choice(list(places(content))), chance.choice(WRONG)))
    return what


SCRAMBLES: list[Callable[[Transaction, random.Random], str]] = [
    scramble_column, scramble_column, scramble_column, scramble_size, scramble_entry, scramble_id, scramble_record,
]  # fmt: skip


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes with a few changes."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(out) + 1)
        step = chance.randrange(4)
        if step == 0 and at < len(out):
            out[at] ^= 1 << chance.randrange(8)
        elif step == 1:
            out[at : at + chance.randint(0, 8)] = chance.randbytes(chance.randint(0, 8))
        elif step == 2 and at < len(out):
            out[at] = chance.choice((0, 255, 0x7F, 0x80, 0xDD, 0xDF, 0xC9))
        else:
            out[at:] = out[at : at + chance.randrange(len(out) + 1)]
    return bytes(out)


# --- R7: parsers ---

CHUNK = 100  # inputs that one call of `parse` makes
PARSERS = ("record", "bitmap", "calibration", "curves", "exported calibration")


def seed_data(path: Path) -> dict[str, list[bytes]]:
    """What there is in a file, to be changed."""
    with qvec.open(path, "r") as db, db._store.read() as snap:
        kept = {
            what: records.pack(content) for what, key in RECORDS.items() if (content := snap.record(*key)) is not None
        }
        bitmaps = [bytes(value) for _, value in snap.entries(b"\0", b"\xff" * 400)]
        exported = db.export_calibration(format="msgpack")
    assert isinstance(exported, bytes)
    everything = [*kept.values(), records.pack(dict(snap_state(path)))]
    return {
        "record": everything, "bitmap": bitmaps, "calibration": [kept["calibration"]], "curves": [kept["curves"]],
        "exported calibration": [exported],
    }  # fmt: skip


def snap_state(path: Path) -> dict[str, Any]:
    with Store.open(path, "r") as store, store.read() as snap:
        return dict(snap.state)


def parse(parser: str, seeds: dict[str, list[bytes]], number: int) -> str:
    """Give a parser a hundred inputs; "" where each gave a value or one of qvec's errors."""
    chance = random.Random(number)
    for _ in range(CHUNK):
        data = chance.randbytes(chance.randrange(40)) if chance.random() < 0.1 else chance.choice(seeds[parser])
        data, start = mutated(data, chance), time.monotonic()
        try:
            _parse(parser, data)
        except qvec.QvecError:
            pass
        except ValueError as error:
            if parser != "record":  # whoever unpacks makes an error of it that names the record
                return f"{data!r}: {error!r}"
        except Exception as error:
            return f"{data!r}: {error!r}"
        if time.monotonic() - start > SLOW:
            return f"{data!r} takes {time.monotonic() - start:.1f} s"
    return ""


def _parse(parser: str, data: bytes) -> None:
    if parser == "record":
        records.unpack(data)
    elif parser == "bitmap":
        bits = np.zeros(32, np.uint64)
        bits_roaring(data, 0, N, bits)
        assert not bits[5:].any(), "bits beyond the rows"
    elif parser == "exported calibration":
        imported(data, CONFIG)
    else:
        try:
            state = records.unpack(data)
        except ValueError:
            return
        (Curves.from_state if parser == "curves" else from_state)(state)


# --- judging ---


def calls(ids: str, keeps: bool) -> dict[str, Callable[[qvec.Collection], object]]:
    """Every call that reads or changes what a collection holds."""
    one, more = name(ids, 3), [name(ids, i) for i in (0, 1, 3, 45, 299)]
    new = [name(ids, i) for i in range(1000, 1004)]
    where = {"row": {"$gte": 100}, "tag": "t1", "tags": "a", "at": {"$lt": 120.0}}

    def lists(db: qvec.Collection) -> dict[str, Any]:
        return {"nprobe": 3} if db.stats().lists else {"ef": 50}

    return {
        "search": lambda db: db.search(X[:20], 5, include=("payload", "vector")),
        "search exactly": lambda db: db.search(X[0], 400, exact=True),
        "search with effort": lambda db: db.search(X[5], 10, **lists(db)),
        "search with a filter": lambda db: db.search(X[5], 10, where=where),
        "search with a wide filter": lambda db: db.search(X[5], 10, where={"tag": {"$in": ["t1", "t2", "t3"]}}),
        "search by id": lambda db: db.search(id=one, k=3),
        "search by recall": lambda db: db.search(X[3], 5, recall=0.5),
        "search by groups": lambda db: db.search(X[3], 5, group_by="tag"),
        "get": lambda db: db.get(more),
        "get by a filter": lambda db: db.get(where=where),
        "scan": lambda db: list(db.scan(batch_size=90)),
        "stats": lambda db: db.stats(),
        "calibrations": lambda db: db.calibrations(),
        "drift": lambda db: db.drift(),
        "fields": lambda db: db.fields,
        "verify": lambda db: db.verify(),
        "upsert": lambda db: db.upsert(X[:4] + 1, new, [{"row": i, "tag": "new"} for i in range(4)], threads=1),
        "update": lambda db: db.update_payload(new[:1], {"tag": "other"}),
        "delete": lambda db: db.delete([name(ids, i) for i in range(0, 200, 2)]),
        "add": lambda db: db.add(X[:40], [name(ids, i) for i in range(2000, 2040)], threads=1),
        "requantize": lambda db: db.requantize("int8" if keeps else None, threads=1),
        "search again": lambda db: db.search(X[:3], 5),
        "verify again": lambda db: db.verify(),
    }


def judge(folder: Path, case: Case) -> str:
    """What a crafted file leads to: "" or what is wrong."""
    options = COLLECTIONS[case.collection]
    path = folder / "crafted.qvec"
    path.write_bytes((folder / f"{case.collection}.base").read_bytes())
    Path(f"{path}-lock").unlink(missing_ok=True)
    what: Any = case.place
    with contextlib.suppress(qvec.InputError), Store.open(path, durability="relaxed") as store, store.write() as txn:
        what = scramble(txn, case) if case.what == "bytes" else craft(txn, case)
    try:
        db = qvec.open(path, durability="relaxed")
    except qvec.QvecError:
        return ""
    except Exception as error:
        return f"open after {what}: {error!r}"
    with db:
        for call, make in calls(options.get("ids", "int64"), options.get("keep") != "none").items():
            try:
                make(db)
            except qvec.QvecError:
                pass
            except Exception as error:
                return f"{call} after {what}: {type(error).__name__}: {error}"
    return ""


def _judge_all(figures: Figures, folder: Path, cases: list[Case]) -> None:
    for case, verdict in zip(cases, each(cases, lambda case: judge(folder, case), HANG), strict=True):
        figures.count("files")
        figures.count(f"files of {case.collection}")
        if verdict:
            figures.fail(f"{case}: {verdict}")


def run_fields(job: Job) -> Figures:
    figures, chance = Figures("R6", "crafted fields of the state and of records"), random.Random(seed)
    cases: list[Case] = []
    for collection, options in COLLECTIONS.items():
        create(str(folder / f"{collection}.base"), options)
        cases += fields(collection, str(folder / f"{collection}.base"))
    figures.amounts["fields and wrong values"] = len(cases)
    _judge_all(figures, folder, chance.sample(cases, min(len(cases), job.amount(CASES))))
    return figures


def run_bytes(job: Job) -> Figures:
    figures, chance = Figures("R7", "random content of files and random data for the parsers"), random.Random(seed)
    for collection, options in COLLECTIONS.items():
        create(str(folder / f"{collection}.base"), options)
    names = list(COLLECTIONS)
    _judge_all(figures, folder, [random_case(names[i % len(names)], chance) for i in range(job.amount(FILES))])
    seeds = seed_data(folder / "graph.base")
    for parser in PARSERS:
        chunks = [chance.randrange(2**62) for _ in range(-(-job.amount(INPUTS) // CHUNK // len(PARSERS)))]
        for chunk, verdict in zip(chunks, each(chunks, lambda n, p=parser: parse(p, seeds, n), HANG), strict=True):  # type: ignore[misc]
            figures.count("inputs of parsers", CHUNK)
            if verdict:
                figures.fail(f"{parser}, chunk {chunk}: {verdict}")
    figures.amounts["peak MiB of a child"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    return figures
