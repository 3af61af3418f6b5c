"""Every public call in its intended uses, against the model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.collection_and_model import CODES, DIM, INDEXES, make
from helpers.collection_model import Model, assert_hits_are_exact, assert_same_content
from helpers.vectors import clustered


@pytest.mark.parametrize("convert", [
    np.asfortranarray,
    lambda x: x.astype(">f4"),
    lambda x: x.astype(np.float64),
    lambda x: x.astype(np.float16),
    lambda x: np.repeat(x, 2, axis=0)[::2],
    lambda x: x[:, ::-1][:, ::-1],
    lambda x: x.tolist(),
    lambda x: np.lib.stride_tricks.as_strided(x, writeable=False),
])  # fmt: skip
def test_arrays_of_any_layout_and_real_dtype_are_stored_alike(path: Path, convert: Any) -> None:
    x = clustered(np.random.default_rng(6), 20, DIM)
    model = Model(DIM)
    with qvec.create(path, DIM, metric="l2") as db:
        db.add(convert(x))
        model.add(x)
        assert_same_content(db, model)
        assert_hits_are_exact(model, x, 3, db.search(convert(x), 3, exact=True))


def test_a_batch_of_no_rows_is_accepted_and_changes_nothing(path: Path) -> None:
    pair = make(path)
    with pair.db as db:
        nothing: Any
        for nothing in ([], np.empty((0, DIM)), np.empty((0, DIM), np.int8)):
            found = db.add(nothing)
            assert (found.ids.tolist(), found.added) == ([], 0)
        assert db.upsert(np.empty((0, DIM)), []).added == db.delete([]) == 0
        assert db.get([]).vectors.shape == (0, DIM)
        assert_same_content(db, pair.model)


def test_automatic_ids_go_on_from_the_largest_ever_stored_also_after_deleting_and_reopening(
    path: Path,
) -> None:
    x = clustered(np.random.default_rng(6), 10, DIM)
    with qvec.create(path, DIM) as db:
        assert db.add(x[:3]).ids.tolist() == [0, 1, 2]
        db.add(x[3], ids=[100])
        assert db.add(x[4:6]).ids.tolist() == [101, 102]
        db.delete([100, 101, 102])
    with qvec.open(path) as db:
        assert db.add(x[6:8]).ids.tolist() == [103, 104]
        db.add(x[8], ids=[2**63 - 1])
        with pytest.raises(qvec.InputError, match="9223372036854775807"):
            db.add(x[9])
        assert len(db) == 6


def test_on_conflict_decides_what_happens_to_ids_that_are_stored(path: Path) -> None:
    x = clustered(np.random.default_rng(6), 8, DIM)
    model = Model(DIM)
    with qvec.create(path, DIM, metric="l2", ids="str") as db:
        mode: Any
        for ids, rows, mode in (
            (["a", "b", "c"], x[:3], "error"),
            (["b", "d"], x[3:5], "skip"),
            (["a", "e"], x[5:7], "replace"),
        ):
            payload = [{"mode": mode, "id": i} for i in ids]
            found = db.add(rows, ids, payload, on_conflict=mode)
            expected = model.add(rows, ids, payload, mode)
            assert (found.ids.tolist(), found.added, found.replaced, found.skipped) == expected
        with pytest.raises(qvec.DuplicateIdError, match=r"ids\[1\].*'e'"):
            db.add(x[:2], ["f", "e"])
        assert_same_content(db, model)
        assert_hits_are_exact(model, x, 5, db.search(x, 5, exact=True))
        assert db.verify() == []


def test_delete_can_insist_that_every_id_is_stored(path: Path) -> None:
    pair = make(path)
    with pair.db as db:
        assert db.delete([0, 0, 1]) == 1
        with pytest.raises(qvec.MissingIdError, match="1"):
            db.delete([3, 1], missing="error")
        assert 3 in db
        assert db.delete([3], missing="error") == 1
        with pytest.raises(KeyError, match="3"):
            db.get([6, 3])


PAYLOAD = {"text": "żółć ✓ \0", "n": -(2**63), "big": 2**64 - 1, "x": 1.5, "flag": True, "none": None,
           "list": [1, [2, {"deep": "er"}]], "bytes": b"\xff\0", "": {}}  # fmt: skip


@pytest.mark.parametrize("ids", ["int64", "str"])
def test_payloads_are_read_back_unchanged(path: Path, ids: Any) -> None:
    x = clustered(np.random.default_rng(6), 4, DIM)
    names: list[Any] = ["a", "b", "c", "d"] if ids == "str" else [5, 6, 7, 8]
    payload = [PAYLOAD, None, {}, {"large": "x" * 300_000}]
    with qvec.create(path, DIM, ids=ids) as db:
        db.add(x, names, payload)
    with qvec.open(path, "r") as db:
        assert db.get(names).payloads == payload
        assert db.search(x[0], 1).payloads == [PAYLOAD]
        assert db.search(x, 1).payloads == [[value] for value in payload]
        assert db.search(x, 1, include=()).included == ()


def test_a_read_only_handle_sees_the_commits_of_a_writer_in_the_same_process(path: Path) -> None:
    pair = make(path, code="int8", index="hnsw", n=280)
    with pair.db as db, qvec.open(path, "r") as reader:
        for i in range(280, 300):
            assert_hits_are_exact(pair.model, pair.data[i], 5, reader.search(pair.data[i], 5, exact=True))
            pair.add(i, i + 1)
            assert reader.search(pair.data[i], 1).ids.tolist() == [pair.name(i)]
        db.delete([pair.name(i) for i in range(290)])
        assert len(reader) == 10
        with pytest.raises(qvec.ReadOnlyError):
            reader.add(pair.data[0])
        with pytest.raises(qvec.ReadOnlyError):
            reader.delete([0])


WRITE_ELSEWHERE = """
import sys, numpy as np, qvec
with qvec.open(sys.argv[1]) as db:
    db.add(np.full((1, 24), 9.0), ids=[10_001], payloads=[{"from": "elsewhere"}])
    db.delete([0])
"""


def test_a_read_only_handle_sees_the_commits_of_another_process(path: Path) -> None:
    pair = make(path, code="int8", index="hnsw")
    pair.db.close()
    with qvec.open(path, "r") as reader:
        assert reader.search(pair.data[0], 1).ids.tolist() == [0]
        subprocess.run([sys.executable, "-c", WRITE_ELSEWHERE, str(path)], check=True, timeout=60)
        hits = reader.search(np.full(DIM, 9.0), 1)
        assert (hits.ids.tolist(), hits.payloads) == ([10_001], [{"from": "elsewhere"}])
        assert 0 not in reader
        assert len(reader) == 300


@pytest.mark.slow
@pytest.mark.parametrize("code", ["f32", "int8", "int8-static", "binary"])
def test_build_and_search_do_not_depend_on_the_number_of_threads(tmp_path: Path, code: str) -> None:
    data = clustered(np.random.default_rng(7), 2200, DIM)
    found = []
    for threads in (1, 2, 3):
        with qvec.create(tmp_path / f"{threads}.qvec", DIM, metric="l2", code=CODES[code], index="hnsw") as db:
            db.add(data[:1500], threads=threads)
            db.add(data[1500:2000], threads=threads)
            for searchers in (1, 2):
                hits = db.search(data[2000:], 10, ef=12, oversample=0, threads=searchers)
                found.append((hits.ids.tolist(), hits.distances.tolist()))
    assert all(other == found[0] for other in found[1:])


def test_a_collection_resident_in_memory_answers_alike_and_follows_commits(path: Path) -> None:
    pair = make(path, code="int8", index="hnsw", n=290)
    with pair.db as db, qvec.open(path, "r", memory="ram") as resident:
        for _ in range(2):
            a, b = db.search(pair.data, 10), resident.search(pair.data, 10)
            assert a.ids.tolist() == b.ids.tolist()
            assert a.distances.tolist() == b.distances.tolist()
            assert_same_content(resident, pair.model)
            pair.add(pair.db.stats().count, pair.db.stats().count + 5)
        assert resident.verify() == []


@pytest.mark.parametrize(
    ("index", "walked"),
    [
        (qvec.Flat(), {"codes"}),
        (qvec.HNSW(m=16), {"codes", "adjacency"}),
        (qvec.HNSW(m=16, layout="packed"), {"nodes"}),
    ],
)
@pytest.mark.parametrize(("memory", "others_too"), [("mmap", set()), ("index", set()), ("ram", {"vectors", "ids"})])
def test_memory_modes_copy_only_the_data_that_searches_read(
    path: Path, index: Any, walked: set[str], memory: Any, others_too: set[str]
) -> None:
    with qvec.create(path, DIM, index=index) as db:
        db.add(clustered(np.random.default_rng(7), 500, DIM))
    with qvec.open(path, "r", memory=memory) as resident:
        resident.search(np.ones(DIM, np.float32))
        with resident._store.read() as snap:
            copied = {name for name, column in snap.columns.items() if column.resident}
    assert copied == (set() if memory == "mmap" else walked | others_too)


def test_pages_are_released_after_they_were_copied(path: Path) -> None:
    with qvec.create(path, 512, code="f32", index="flat", originals="none") as db:
        db.add(np.random.default_rng(7).standard_normal((20_000, 512), np.float32))
    query = np.ones(512, np.float32)
    with qvec.open(path, "r") as mapped, qvec.open(path, "r", memory="ram") as copied:
        assert mapped.search(query).ids.tolist() == copied.search(query).ids.tolist()
        assert _mapped_bytes(path) < path.stat().st_size / 10


def _mapped_bytes(path: Path) -> int:
    """Bytes of a file that count as memory of this process."""
    regions = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    own = [each for each in regions if each.split("\n")[0].endswith(str(path))]
    assert own
    return 1024 * sum(int(kib) for each in own for kib in re.findall(r"^Rss: +(\d+)", each, flags=re.MULTILINE))


@pytest.mark.parametrize("index", INDEXES)
def test_progress_rises_to_the_whole(path: Path, index: str) -> None:
    seen: list[tuple[int, int]] = []
    with qvec.create(path, DIM, index=index) as db:
        db.add(
            clustered(np.random.default_rng(7), 500, DIM),
            progress=lambda done, total: seen.append((done, total)),
        )
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_a_progress_callback_that_raises_undoes_the_batch(path: Path) -> None:
    pair = make(path, code="int8", index="hnsw")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pair.db as db:
        before = db.stats().txn_id
        with pytest.raises(KeyboardInterrupt):
            db.add(pair.data[-20:], progress=interrupt)
        assert db.stats().txn_id == before
        assert_same_content(db, pair.model)
        assert_hits_are_exact(pair.model, pair.data[:5], 5, db.search(pair.data[:5], 5))
        pair.add(300, 310)
        assert_same_content(db, pair.model)
        assert db.verify() == []


@pytest.mark.parametrize("place", [0, 7, 19])
@pytest.mark.parametrize("index", INDEXES)
def test_an_error_in_the_middle_of_a_batch_leaves_nothing_of_it(path: Path, place: int, index: str) -> None:
    pair = make(path, code="int8", index=index, ids="str")
    with pair.db as db:
        before = db.stats()
        payload: list[Any] = [{"good": i} for i in range(20)]
        payload[place] = {"bad": {1, 2}}
        names = [pair.name(i) for i in range(290, 310)]
        with pytest.raises(qvec.InputError, match=rf"payload\[{place}\]"):
            db.upsert(pair.data[-20:], names, payload)
        assert db.stats() == before
        assert_same_content(db, pair.model)
        assert db.verify() == []


def test_a_small_file_grows_from_a_scan_into_a_graph_by_itself(path: Path) -> None:
    data = clustered(np.random.default_rng(7), 10_050, 8)
    with qvec.create(path, 8, metric="l2") as db:
        db.add(data[:10_000])
        assert db.stats().index == "flat"
        db.add(data[10_000:])
        assert db.stats().index == "hnsw"
        assert (db.search(data, 1, ef=100).distances[:, 0] == 0).all()
        assert db.verify() == []
    with qvec.open(path) as db:
        assert db.stats().index == "hnsw"


def test_a_sample_calibrates_the_code_before_anything_is_stored(path: Path) -> None:
    data = clustered(np.random.default_rng(7), 400, DIM)
    with qvec.create(path, DIM, metric="l2", code=qvec.Int8(scale="per_dim"), sample=data) as db:
        calibration = db.stats().calibration
        assert calibration is not None
        db.add(data[:1])
        assert db.stats().calibration == calibration
        assert db.search(data[0], 1).distances[0] == 0


def test_exist_ok_opens_only_a_collection_with_equal_options(path: Path) -> None:
    pair = make(path)
    pair.db.close()
    with qvec.create(path, DIM, metric="l2", code="f32", index="flat", exist_ok=True) as db:
        assert_same_content(db, pair.model)
    with pytest.raises(FileExistsError):
        qvec.create(path, DIM, metric="l2", code="f32", index="flat")
    for other in ({"metric": "ip"}, {"code": "f16"}, {"index": "hnsw"}, {"ids": "str"}, {"originals": "none"}):
        options: dict[str, Any] = {"metric": "l2", "code": "f32", "index": "flat"} | other
        with pytest.raises(qvec.InputError, match="other options"):
            qvec.create(path, DIM, exist_ok=True, **options)
    with qvec.open(path) as db:  # the refused calls left it unlocked and unharmed
        assert_same_content(db, pair.model)


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_data_survives_a_reopen_with_either_durability(path: Path, durability: Any) -> None:
    pair = make(path, code="int8", durability=durability)
    pair.db.close()
    with qvec.open(path) as db:
        assert_same_content(db, pair.model)


def test_stats_describe_the_collection(path: Path) -> None:
    pair = make(path, metric="ip", code="int8", index="hnsw", model="minilm")
    with pair.db as db:
        db.delete([0])
        stats = db.stats()
        assert (stats.path, stats.dim, stats.metric, stats.code) == (str(path), DIM, "ip", "int8")
        assert (stats.index, stats.ids, stats.originals, stats.model) == ("hnsw", "int64", "f32", "minilm")
        assert (stats.count, stats.deleted) == (299, 1)
        assert stats.code_size >= DIM
        assert stats.codes_bytes >= 300 * stats.code_size
        assert stats.vectors_bytes >= 300 * DIM * 4
        assert stats.graph_bytes > 0
        assert stats.file_bytes == path.stat().st_size
        assert (db.path, db.dim, db.metric, db.code, db.index) == (str(path), DIM, "ip", "int8", "hnsw")
        assert (db.mode, db.model, dict(db.fields)) == ("rw", "minilm", {})
        assert repr(db) == f"<qvec.Collection {str(path)!r}: 299 vectors of dim {DIM}, ip, int8, hnsw, rw>"
        assert "  count: 299\n" in repr(stats)


def test_scan_reads_the_commit_at_its_first_step(path: Path) -> None:
    pair = make(path)
    with pair.db as db:
        batches = db.scan(batch_size=100)
        first = next(batches)
        db.delete([pair.name(i) for i in range(200)])
        pair.add(300, 310)
        rest = [i for batch in batches for i in batch.ids.tolist()]
        assert [*first.ids.tolist(), *rest] == [pair.name(i) for i in range(300)]
        assert len(db) == 110


@pytest.mark.parametrize("ids", ["int64", "str"])
def test_ids_are_accepted_in_any_array_like(path: Path, ids: Any) -> None:
    class Column:
        """A column as of a data frame: not a sequence, but NumPy converts it."""

        def __init__(self, values: list[Any]) -> None:
            self.values = values

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.array(self.values, dtype)

    names = list(range(4)) if ids == "int64" else list("abcd")
    with qvec.create(path, 2, ids=ids) as db:
        db.add(np.eye(4, 2) + 1, Column(names))
        assert db.search([1, 1], 4, ids_in={names[1], names[2]}).counts == 2
        assert db.get(tuple(names[:3])).ids.tolist() == names[:3]
        assert db.get(np.array(names)[1]).ids.tolist() == names[1:2]  # a scalar of NumPy's
        for call in (db.get, lambda ids: db.add(np.eye(2), ids), lambda ids: db.update_payloads(ids, [{}, {}])):
            with pytest.raises(qvec.InputError, match=r"list or an array.*set"):  # a set has no order
                call({*names[:2]})
        assert db.delete({*names[:2]}) == 2
        assert db.delete(Column(names)) == 2
        with pytest.raises(qvec.InputError, match=r"ids_in\[1\] is None"):
            db.search([1, 1], ids_in=[names[0], None])


@pytest.mark.unsanitized
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_of_a_large_batch_is_given_back(tmp_path: Path) -> None:
    script = """
import sys
import numpy as np
import qvec

def private():
    line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10

x = np.random.default_rng(0).standard_normal((30_000, 256), np.float32)
with qvec.create(sys.argv[1], 256, code="int8", index="flat") as db:
    before = private()
    db.add(x, threads=2)
    print((private() - before) / x.nbytes)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "a.qvec"], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1.5
