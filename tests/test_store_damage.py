"""Damaged, foreign and unwritable files raise a specific error; they never kill the process or return wrong bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import lmdb  # noqa: TID251 - foreign files are made with it
import numpy as np
import pytest

from helpers.store_files import CODES, change_rows, contents, fill, make_store, run_python, same
from qvec.common.errors import CorruptError, FormatError, NotFoundError
from qvec.storage import keys, records
from qvec.storage.pages import Pages
from qvec.storage.stats import collect
from qvec.storage.store import Store

PSIZE = 4096
LOOK = """
import numpy as np
with open(sys.argv[1], "rb") as file:
    healthy = file.read()
rng = np.random.default_rng(int(sys.argv[3]))
outcomes = {"error": 0, "equal": 0}
def look(path):
    try:
        with Store.open(path, "r") as store, store.read() as snap:
            found = {name: column.read_range(0, 2000) for name, column in snap.columns.items()}
            record = snap.record(1, 1)
    except (CorruptError, FormatError, MapFullError):
        outcomes["error"] += 1
    else:
        assert record == {"a": 1}
        for name, rows in found.items():
            assert rows.tobytes() == expected[name], f"other bytes in {name}"
        outcomes["equal"] += 1
with Store.open(sys.argv[1], "r") as store, store.read() as snap:
    expected = {name: column.read_range(0, 2000).tobytes() for name, column in snap.columns.items()}
"""


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    with make_store(tmp_path) as store:
        fill(store, 2000)
        fill(store, 2000, seed=1)
        with store.write() as txn:
            txn.put_record(1, 1, {"a": 1})
    return tmp_path / "a.qvec"


def test_truncation_at_any_length_is_an_error_or_harmless(healthy: Path, tmp_path: Path) -> None:
    code = (
        LOOK
        + """
for size in [0, 1, 100, 4095, 4096, 8191, 8192, 8193, *rng.integers(0, len(healthy), 40).tolist()]:
    with open(sys.argv[2], "wb") as file:
        file.write(healthy[:size])
    look(sys.argv[2])
print(outcomes["error"] >= 45, sum(outcomes.values()))
"""
    )
    assert run_python(code, healthy, tmp_path / "b", 0) == "True 48"


@pytest.mark.slow
def test_a_value_that_ends_beyond_the_file_is_an_error(tmp_path: Path) -> None:
    """The first page of the value may exist: LMDB checks only that page."""
    rng, cut = np.random.default_rng(1), 0
    with make_store(tmp_path) as store:
        written = fill(store, 2000)
        for _ in range(40):
            change_rows(store, written, rng, 2)
            content = (tmp_path / "a.qvec").read_bytes()
            (tmp_path / "b").write_bytes(content[: (used := last_used(tmp_path / "a.qvec")) * PSIZE])
            if content[used * PSIZE :][8:12] == b"\0" * 4:  # no page header: within a value of several pages
                code = """
                try:
                    store = Store.open(sys.argv[1], "r")
                    with store.read() as snap:
                        [column.read_range(0, 2000) for column in snap.columns.values()]
                except CorruptError as error:
                    print("truncated" in str(error))
                """
                assert run_python(code, tmp_path / "b") == "True"
                cut += 1
            if cut == 3:
                return
    raise AssertionError("no file ended with a value of several pages")


def last_used(path: Path) -> int:
    with path.open("rb") as file:
        return Pages(file.fileno(), PSIZE).last_used()


def test_flipped_bits_in_the_blocks_are_errors_or_harmless(healthy: Path, tmp_path: Path) -> None:
    code = (
        LOOK
        + """
blocks = [at for at in range(0, len(healthy), 4096) if healthy[at + 16 : at + 20] in (b"QVB1", b"QVD1")]
for _ in range(150):
    damaged = bytearray(healthy)
    at = int(rng.choice(blocks)) + 16 + int(rng.integers(0, 4080))
    damaged[at] ^= 1 << int(rng.integers(0, 8))
    with open(sys.argv[2], "wb") as file:
        file.write(damaged)
    look(sys.argv[2])
print(outcomes["error"] > 10, sum(outcomes.values()))
"""
    )
    assert run_python(code, healthy, tmp_path / "b", 1) == "True 150"


def test_blocks_swapped_or_restored_to_an_older_version_are_found(healthy: Path, tmp_path: Path) -> None:
    with Store.open(healthy, "r") as store:
        expected = contents(store)
    data = healthy.read_bytes()
    pages: dict[bytes, list[int]] = {}
    for at in range(0, len(data), PSIZE):
        value = data[at + 16 : at + PSIZE]
        if value[:4] == b"QVB1" and value[4] == 1:
            pages.setdefault(value[8:12], []).append(at)
    twice = [versions for versions in pages.values() if len(versions) > 1]
    single = [versions[-1] for versions in pages.values()]
    assert len(twice) > 5
    for a, b in [twice[0][:2], twice[0][1::-1], single[:2], single[1::-1]]:
        damaged = bytearray(data)
        damaged[a + 16 : a + PSIZE] = data[b + 16 : b + PSIZE]
        (tmp_path / "b").write_bytes(damaged)
        with Store.open(tmp_path / "b", "r") as store:
            with store.read() as snap:
                problems = list(snap.check())
            try:
                assert same(contents(store), expected)
                assert problems == []
            except CorruptError:
                assert len(problems) == 1
                assert "block" in problems[0]


def test_the_check_names_the_damaged_parts(healthy: Path) -> None:
    data = bytearray(healthy.read_bytes())
    with Store.open(healthy, "r") as store, store.read() as snap:
        n_blocks = snap.columns[CODES].n_blocks
    newest: dict[int, tuple[int, int]] = {}
    for at in range(0, len(data), PSIZE):
        if data[at + 16 : at + 20] == b"QVB1" and data[at + 20] == 2:
            block, txn_id = struct.unpack_from("<I4xQ", data, at + 24)
            newest[block] = max(newest.get(block, (0, 0)), (txn_id, at))
    assert len(newest) == n_blocks
    data[newest[3][1] + 500] ^= 1
    record = data.index(b"\x81\xa1a\x01")
    data[record] ^= 0x10
    healthy.write_bytes(data)
    with Store.open(healthy, "r") as store, store.read() as snap:
        assert list(snap.check()) == [
            "column 'codes': block 3 is damaged, missing or stale",
            "record 1 of kind 1, generation 0 fails its checksum",
        ]
        with pytest.raises(CorruptError, match="column 'codes': block 3"):
            snap.columns[CODES].read_range(0, 2000)


def test_other_files_are_refused_before_they_are_mapped(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        Store.open(tmp_path / "nothing")
    for name, data in (("empty", b""), ("text", b"hello " * 5000), ("zeros", bytes(20000))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match="not a qvec file"):
            Store.open(tmp_path / name)
        assert (tmp_path / name).read_bytes() == data
    with pytest.raises(FormatError, match="directory"):
        Store.open(tmp_path)
    with lmdb.open(str(tmp_path / "foreign"), subdir=False) as env, env.begin(write=True) as txn:
        for i in range(100):
            txn.put(b"%d" % i, b"x" * 100)
    with pytest.raises(FormatError, match="LMDB file, but not a qvec file"):
        Store.open(tmp_path / "foreign")


def test_other_formats_are_refused_with_both_versions(healthy: Path, tmp_path: Path) -> None:
    data = bytearray(healthy.read_bytes())
    data[20:24] = struct.pack("<I", 3)
    (tmp_path / "b").write_bytes(data)
    with pytest.raises(FormatError, match="LMDB data format 3; this version reads 1"):
        Store.open(tmp_path / "b")
    data = bytearray(healthy.read_bytes())
    at = data.index(b"QVEC")
    data[at + 4 : at + 8] = struct.pack("<I", 9)
    (tmp_path / "b").write_bytes(data)
    with pytest.raises(FormatError, match="format 9; this version of qvec reads up to 2"):
        Store.open(tmp_path / "b")


def test_a_file_size_limit_stops_the_commit_and_keeps_the_last_one(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        written = fill(store, 500)
    code = """
    import resource, os
    store = Store.open(sys.argv[1])
    limit = os.path.getsize(sys.argv[1]) + 200_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with store.write() as txn:
            txn.columns["codes"].resize(50_000)
    except DiskFullError as error:
        print("limit" in str(error))
    with store.write() as txn:
        txn.put_record(1, 1, "small")
    with store.read() as snap:
        print(snap.record(1, 1), snap.state)
    """
    assert run_python(code, tmp_path / "a.qvec") == "True\nsmall {'n': 500}"
    with Store.open(tmp_path / "a.qvec") as store:
        assert same(contents(store), written)
        fill(store, 50_000)


def test_a_full_disk_stops_the_commit_and_keeps_the_last_one(tmp_path: Path) -> None:
    code = """
    import ctypes, os
    libc = ctypes.CDLL(None, use_errno=True)
    os.makedirs(sys.argv[1], exist_ok=True)
    if libc.unshare(0x00020000) or libc.mount(b"none", b"/", None, 0x44000, None):
        print("not allowed"); sys.exit()
    if libc.mount(b"tmpfs", sys.argv[1].encode(), b"tmpfs", 0, b"size=3m"):
        print("not allowed"); sys.exit()
    with Store.create(sys.argv[1] + "/a", {"c": ColumnSpec(1, 384)}, {}) as store:
        with store.write() as txn:
            txn.columns["c"].resize(1000)
        try:
            with store.write() as txn:
                txn.columns["c"].resize(20_000)
        except DiskFullError:
            print("full")
        with store.write() as txn:
            txn.put_record(1, 1, "small")
        with store.read() as snap:
            print(snap.record(1, 1), 1000 <= snap.columns["c"].n_rows < 2000, list(snap.check()))
    """
    found = run_python(code, tmp_path / "disk")
    if found == "not allowed":
        pytest.skip("mounting is not allowed here")
    assert found == "full\nsmall True []"


def test_a_damaged_page_of_the_tree_is_an_error(healthy: Path, tmp_path: Path) -> None:
    code = (
        LOOK
        + """
trees = [at for at in range(8192, len(healthy), 4096) if healthy[at + 10] in (1, 2) and healthy[at + 11] == 0]
for _ in range(60):
    damaged = bytearray(healthy)
    at = int(rng.choice(trees)) + int(rng.integers(8, 16))
    damaged[at] ^= 1 << int(rng.integers(0, 8))
    with open(sys.argv[2], "wb") as file:
        file.write(damaged)
    look(sys.argv[2])
print(sum(outcomes.values()))
"""
    )
    assert run_python(code, healthy, tmp_path / "b", 4) == "60"


def test_skipping_checksums_skips_no_headers(healthy: Path) -> None:
    data = bytearray(healthy.read_bytes())
    for at in range(0, len(data), PSIZE):
        if data[at + 16 : at + 20] == b"QVB1":
            data[at + 20] ^= 1
    healthy.write_bytes(data)
    with Store.open(healthy, "r", checksums=False) as store, pytest.raises(CorruptError, match="block 0"):
        contents(store)


def _with_lmdb(path: Path, change: Callable[[lmdb.Transaction], object]) -> None:
    """Change a file through LMDB, without the store."""
    with lmdb.open(str(path), subdir=False, map_size=1 << 30) as env, env.begin(write=True) as txn:
        change(txn)


@pytest.mark.parametrize("kind", ["record", "entry", "id"])
@pytest.mark.parametrize("damage", ["lost", "stale", "twice"])
def test_the_check_finds_lost_and_stale_entries(tmp_path: Path, kind: str, damage: str) -> None:
    with make_store(tmp_path) as store:
        for turn in range(2):
            with store.write() as txn:
                txn.put_record(1, 1, {"turn": turn})
                txn.put_entries([(b"name", b"%d" % turn)])
                txn.delete_ids([b"id"])
                txn.put_ids([b"id"], [turn])
            if turn == 0:
                key = {"record": keys.record(1, 1), "entry": keys.ENTRY + b"name", "id": keys.ID + b"id"}[kind]
                with store.read() as snap:
                    old = bytes(snap._get(key))
                    assert list(snap.check()) == []
        with store.read() as snap:
            assert list(snap.check()) == []
    other = key[:-1] + bytes([key[-1] + 1])
    sealed_again = {"record": records.seal(other, {"turn": 1})}.get(kind, records.seal_bytes(other, b"1234"))
    changes: dict[str, Callable[[lmdb.Transaction], object]] = {
        "lost": lambda txn: txn.delete(key),
        "stale": lambda txn: txn.put(key, old),
        "twice": lambda txn: txn.put(other, sealed_again),
    }
    _with_lmdb(tmp_path / "a.qvec", changes[damage])
    with Store.open(tmp_path / "a.qvec", "r") as store, store.read() as snap:
        (problem,) = snap.check()
    n = {"lost": 0, "stale": 1, "twice": 2}[damage]
    plural = {"record": "records", "entry": "entries", "id": "ids"}[kind]
    assert problem == f"{n} {plural} exist, the state says 1: some are lost, or of an earlier commit"


def test_the_sums_are_right_when_the_map_grows_during_a_transaction(tmp_path: Path) -> None:
    with make_store(tmp_path, map_size=1 << 17) as store:
        for turn in range(3):
            with store.write() as txn:
                for i in range(200):
                    txn.put_record(1, i, {"turn": turn, "text": "x" * 1000})
                txn.delete_record(1, 7)
                txn.put_ids([b"%d %d" % (turn, i) for i in range(500)], range(500))
                txn.delete_ids([b"%d %d" % (turn, i) for i in range(0, 500, 3)])
        assert collect(store).map_bytes > 1 << 17
        with store.read() as snap:
            assert list(snap.check()) == []


def test_an_id_that_leads_elsewhere_fails_its_checksum(tmp_path: Path) -> None:
    with make_store(tmp_path) as store, store.write() as txn:
        txn.put_ids([b"a", b"b"], [0, 1])
    _with_lmdb(tmp_path / "a.qvec", lambda txn: txn.put(keys.ID + b"a", txn.get(keys.ID + b"b")))
    with Store.open(tmp_path / "a.qvec", "r") as store, store.read() as snap:
        with pytest.raises(CorruptError, match="the row of the id b'a' fails its checksum"):
            snap.row_of(b"a")
        with pytest.raises(CorruptError, match="fails its checksum"):
            list(snap.iter_ids())


@pytest.mark.parametrize("key", [keys.record(1, 1)[:-3], keys.record(1, 1) + b"x"])
def test_a_key_of_another_length_is_named_by_its_bytes(healthy: Path, key: bytes) -> None:
    _with_lmdb(healthy, lambda txn: txn.put(key, b"nothing"))
    with Store.open(healthy, "r") as store, store.read() as snap:
        assert f"key {key.hex()} fails its checksum" in next(iter(snap.check()))


def test_a_damaged_page_number_of_a_value_is_an_error_or_harmless(healthy: Path, tmp_path: Path) -> None:
    code = (
        LOOK
        + """
pages = [at for at in range(0, len(healthy), 4096) if healthy[at + 16 : at + 20] == b"QVEC"]
assert pages
for at in (page + byte for page in pages for byte in range(8)):
    for bit in range(8):
        with open(sys.argv[2], "wb") as file:
            file.write(healthy[:at] + bytes([healthy[at] ^ 1 << bit]) + healthy[at + 1 :])
        look(sys.argv[2])
"""
    )
    run_python(code, healthy, tmp_path / "damaged.qvec", 1)
