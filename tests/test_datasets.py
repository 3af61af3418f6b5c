"""Loaders, on files that the tests write byte by byte, and exact neighbors against a sort of all distances."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvec import datasets
from qvec.common.errors import InputError, MissingExtraError, NotFoundError
from qvec.datasets import exact_knn, load_benchmark, load_ids, load_payloads, load_vectors

RNG = np.random.default_rng(7)
X = RNG.normal(size=(6, 5)).astype(np.float32)


def texmex(rows: list[np.ndarray]) -> bytes:
    return b"".join(struct.pack("<i", len(row)) + row.tobytes() for row in rows)


@pytest.mark.parametrize(("suffix", "dtype"), [(".fvecs", "<f4"), (".bvecs", "u1"), (".ivecs", "<i4")])
def test_texmex_rows_are_read_as_written(tmp_path: Path, suffix: str, dtype: str) -> None:
    rows = (X * 20 + 100).astype(dtype)
    file = tmp_path / f"x{suffix}"
    file.write_bytes(texmex(list(rows)))
    loaded = load_vectors(file)
    assert loaded.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(loaded, rows)


def test_a_texmex_row_of_another_dimension_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.fvecs"
    rows = texmex(list(X))
    file.write_bytes(rows[: 24 * 3] + struct.pack("<i", 4) + rows[24 * 3 + 4 :])
    with pytest.raises(InputError, match=r"row 3 has dimension 4, the rows before it have 5"):
        load_vectors(file)


def test_a_texmex_file_cut_inside_a_row_names_the_row(tmp_path: Path) -> None:
    file = tmp_path / "x.fvecs"
    file.write_bytes(texmex(list(X))[:-1])
    with pytest.raises(InputError, match=r"ends inside row 5: 23 bytes of 24"):
        load_vectors(file)


@pytest.mark.parametrize("dim", [0, -1, 1 << 30])
def test_a_first_word_that_is_no_dimension_is_refused(tmp_path: Path, dim: int) -> None:
    file = tmp_path / "x.fvecs"
    file.write_bytes(struct.pack("<i", dim) + bytes(64))
    with pytest.raises(InputError, match=f"row 0 has dimension {dim}"):
        load_vectors(file)


def test_an_empty_texmex_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bvecs").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        load_vectors(tmp_path / "x.bvecs")


@pytest.mark.parametrize(("suffix", "dtype"), [(".fbin", "<f4"), (".u8bin", "u1"), (".i8bin", "i1"), (".ibin", "<i4")])
def test_big_ann_rows_are_read_as_written(tmp_path: Path, suffix: str, dtype: str) -> None:
    rows = (X * 20 + 50).astype(dtype)
    file = tmp_path / f"x{suffix}"
    file.write_bytes(struct.pack("<II", *rows.shape) + rows.tobytes())
    loaded = load_vectors(file)
    assert loaded.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(loaded, rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [(-1, "holds 5 rows and 19 bytes"), (1, "holds 6 rows and 1 bytes"), (-24, "holds 4 rows and 16 bytes")],
)
def test_a_big_ann_file_of_the_wrong_length_is_refused_with_its_length(
    tmp_path: Path, change: int, message: str
) -> None:
    data = struct.pack("<II", *X.shape) + X.tobytes()
    file = tmp_path / "x.fbin"
    file.write_bytes(data[:change] if change < 0 else data + bytes(change))
    with pytest.raises(InputError, match=message):
        load_vectors(file)


def test_a_big_ann_file_may_have_no_rows(tmp_path: Path) -> None:
    (tmp_path / "x.fbin").write_bytes(struct.pack("<II", 0, 5))
    assert load_vectors(tmp_path / "x.fbin").shape == (0, 5)


@pytest.mark.parametrize(("head", "message"), [(b"1234", "4 bytes"), (struct.pack("<II", 1, 0), "dimension 0")])
def test_a_big_ann_header_that_makes_no_sense_is_refused(tmp_path: Path, head: bytes, message: str) -> None:
    (tmp_path / "x.fbin").write_bytes(head)
    with pytest.raises(InputError, match=message):
        load_vectors(tmp_path / "x.fbin")


def test_npy_is_mapped_and_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    loaded = load_vectors(tmp_path / "x.npy")
    assert isinstance(loaded, np.memmap)
    assert not loaded.flags.writeable
    np.testing.assert_array_equal(loaded, X)


def test_npy_with_objects_is_refused_unread(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"x\.npy is not a readable"):
        load_vectors(tmp_path / "x.npy")


def test_a_truncated_npy_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    whole = (tmp_path / "x.npy").read_bytes()
    for size in (0, 3, 40, len(whole) - 1):
        (tmp_path / "x.npy").write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"x\.npy is not a readable"):
            load_vectors(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.zeros((2, 0)), "at least one dimension"),
        (np.array([["a"]]), "dtype <U1"),
        (np.zeros((2, 2), complex), "dtype complex128"),
    ],
)
def test_an_array_that_is_no_matrix_of_numbers_is_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=message):
        load_vectors(tmp_path / "x.npy")


def test_the_only_array_of_an_npz_needs_no_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", base=X)
    np.testing.assert_array_equal(load_vectors(tmp_path / "x.npz"), X)


def test_one_of_several_arrays_of_an_npz_is_named_by_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", base=X, other=X * 2)
    np.testing.assert_array_equal(load_vectors(tmp_path / "x.npz", "other"), X * 2)
    with pytest.raises(InputError, match="2 arrays; name one with key=: base, other"):
        load_vectors(tmp_path / "x.npz")
    with pytest.raises(InputError, match="has no array 'third'; it has: base, other"):
        load_vectors(tmp_path / "x.npz", "third")


@pytest.mark.parametrize("content", [b"", b"not a zip archive"])
def test_an_npz_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz is not a readable"):
        load_vectors(tmp_path / "x.npz")


def test_key_is_refused_for_a_file_with_one_array(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(InputError, match="key='train'"):
        load_vectors(tmp_path / "x.npy", "train")


def test_a_file_that_is_missing_unknown_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.npy: no such file"):
        load_vectors(tmp_path / "none.npy")
    with pytest.raises(InputError, match="not a regular file"):
        load_vectors(tmp_path)
    (tmp_path / "x.xls").write_text("1,2")
    with pytest.raises(InputError, match=r"unknown suffix '\.xls'; known are \.npy"):
        load_vectors(tmp_path / "x.xls")


def write_hdf5(file: Path, **attrs: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(file, "w") as h5:
        h5.attrs.update(attrs)
        h5["train"], h5["test"] = X, X[:2]
        h5["neighbors"], h5["distances"] = np.zeros((2, 3), np.int32), np.zeros((2, 3), np.float32)


def test_ann_benchmarks_files_give_vectors_answers_and_metric(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "x.hdf5", distance="angular")
    np.testing.assert_array_equal(load_vectors(tmp_path / "x.hdf5"), X)
    np.testing.assert_array_equal(load_vectors(tmp_path / "x.hdf5", "test"), X[:2])
    benchmark = load_benchmark(tmp_path / "x.hdf5")
    assert benchmark.metric == datasets.hdf5_metric(tmp_path / "x.hdf5") == "cosine"
    assert benchmark.neighbors.dtype == np.int64
    np.testing.assert_array_equal(benchmark.test, X[:2])


@pytest.mark.parametrize("attrs", [{}, {"distance": "hamming"}])
def test_an_hdf5_file_of_another_metric_is_refused(tmp_path: Path, attrs: dict[str, str]) -> None:
    write_hdf5(tmp_path / "x.hdf5", **attrs)
    with pytest.raises(InputError, match="qvec knows angular, cosine, euclidean, l2, dot, ip"):
        load_benchmark(tmp_path / "x.hdf5")


def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    (tmp_path / "x.hdf5").write_bytes(b"no")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        load_vectors(tmp_path / "x.hdf5")


def test_without_h5py_the_message_names_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "x.hdf5").write_bytes(b"any")
    with pytest.raises(MissingExtraError, match="pip install h5py"):
        load_vectors(tmp_path / "x.hdf5")


def test_ids_of_a_text_file_are_integers_when_all_lines_are(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("3\n-1\n9223372036854775807\r\n")
    ids = load_ids(file)
    assert isinstance(ids, np.ndarray)
    assert ids.tolist() == [3, -1, 2**63 - 1]


@pytest.mark.parametrize("text", ["3\nx\n", "007\n3\n", "1.0\n2\n"])
def test_ids_of_a_text_file_are_strings_when_one_line_is_no_plain_integer(tmp_path: Path, text: str) -> None:
    (tmp_path / "ids.txt").write_text(text)
    assert load_ids(tmp_path / "ids.txt") == text.split()


@pytest.mark.parametrize(
    ("text", "message"),
    [("1\n\n2\n", "line 2: an id is missing"), ("1\n9223372036854775808\n", "line 2: .* 64 bits")],
)
def test_a_bad_line_of_ids_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "ids.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        load_ids(tmp_path / "ids.txt")


def test_ids_of_an_npy_file_are_integers_or_strings(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([1, 2], np.uint16))
    np.save(tmp_path / "b.npy", np.array(["x", "yy"]))
    ids = load_ids(tmp_path / "a.npy")
    assert isinstance(ids, np.ndarray)
    assert (ids.dtype, ids.tolist()) == (np.int64, [1, 2])
    assert load_ids(tmp_path / "b.npy") == ["x", "yy"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), "dtype float64"),
        (np.zeros((1, 1), int), r"shape \(1, 1\)"),
        (np.array([1, 2**63], np.uint64), "row 1 has id 9223372036854775808"),
    ],
)
def test_an_npy_file_without_ids_is_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "ids.npy", array)
    with pytest.raises(InputError, match=message):
        load_ids(tmp_path / "ids.npy")


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
def test_payloads_are_read_as_written(tmp_path: Path, name: str) -> None:
    payload = [{"a": 1, "text": "line\u2028break"}, None, {"b": ["é", {"c": None}]}]
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in payload).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert load_payloads(tmp_path / name) == payload


@pytest.mark.parametrize(
    ("line", "message"), [(b"{", "not JSON"), (b"[1]", "not list"), (b"", "not JSON"), (b'"\xff"', "utf-8")]
)
def test_a_bad_line_of_payload_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(InputError, match=rf"p\.jsonl, (line 2|after line \d): .*{message}"):
        load_payloads(tmp_path / "p.jsonl")


def test_a_gzip_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 100)[:-9])
    with pytest.raises(InputError, match=r"p\.jsonl\.gz, after line"):
        load_payloads(tmp_path / "p.jsonl.gz")


def by_sorting(base: np.ndarray, query: np.ndarray, k: int, metric: str) -> list[int]:
    """The nearest rows by integer arithmetic, without rounding."""
    distances = ((base - query) ** 2).sum(axis=1) if metric == "l2" else -(base @ query)
    return sorted(range(len(base)), key=lambda row: (distances[row], row))[:k]


@given(
    n=st.integers(1, 60), dim=st.integers(1, 9), k=st.integers(1, 70), metric=st.sampled_from(["l2", "ip"]),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_exact_neighbors_are_those_of_a_full_sort(n: int, dim: int, k: int, metric: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    base, queries = rng.integers(-2, 3, (n, dim)), rng.integers(-2, 3, (3, dim))  # many ties
    rows, distances = exact_knn(base, queries, k, metric)
    assert rows.tolist() == [by_sorting(base, query, k, metric) for query in queries]
    assert (np.diff(distances, axis=1) >= 0).all()


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_equal_rows_in_different_blocks_tie_by_row(monkeypatch: pytest.MonkeyPatch, metric: str) -> None:
    monkeypatch.setattr("qvec.datasets.ground_truth.BASE_BLOCK", 7)
    monkeypatch.setattr("qvec.datasets.ground_truth.QUERY_BLOCK", 2)
    base = np.tile(RNG.normal(size=(5, 33)).astype(np.float32), (6, 1))
    rows, distances = exact_knn(base, base[:5], 6, metric)
    if metric != "ip":  # under ip a longer row may be nearer than the query's own copies
        np.testing.assert_array_equal(rows, np.arange(5)[:, None] + np.arange(0, 30, 5))
    assert (rows % 5 == rows[:, :1] % 5).all()
    assert (np.diff(rows, axis=1) == 5).all()
    assert (distances == distances[:, :1]).all()


def test_exact_cosine_distances_are_one_minus_cosine() -> None:
    base, query = np.array([[3.0, 0], [1, 1], [0, 2], [-5, 0]]), np.array([[2.0, 0]])
    rows, distances = exact_knn(base, query, 4, "cosine")
    assert rows.tolist() == [[0, 1, 2, 3]]
    np.testing.assert_allclose(distances, [[0, 1 - 0.5**0.5, 1, 2]], atol=1e-15)


def test_progress_of_exact_neighbors_ends_at_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qvec.datasets.ground_truth.BASE_BLOCK", 4)
    seen: list[tuple[int, int]] = []
    exact_knn(X, X[:1], 1, "l2", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 6), (6, 6)]


def test_no_queries_and_no_rows_give_empty_answers() -> None:
    assert exact_knn(X, X[:0], 3, "l2")[0].shape == (0, 3)
    assert exact_knn(X[:0], X, 3, "l2")[0].shape == (6, 0)


@pytest.mark.parametrize(
    ("base", "queries", "k", "metric", "message"),
    [
        (X, X[:, :3], 1, "l2", "queries have dimension 3, base has 5"),
        (X, X, 0, "l2", "k is 0; the least is 1"),
        (X, X, 1, "manhattan", "metric is 'manhattan'"),
        (X, np.full((1, 5), np.nan), 1, "l2", "queries: row 0 is not finite"),
        (np.vstack([X, np.full((1, 5), np.inf)]), X, 1, "l2", "base: row 6 is not finite"),
        (np.vstack([X, np.zeros((1, 5))]), X, 1, "cosine", "base: row 6 is zero"),
    ],
)
def test_bad_input_of_exact_neighbors_is_named(
    base: np.ndarray, queries: np.ndarray, k: int, metric: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        exact_knn(base, queries, k, metric)


def test_an_archive_that_is_named_as_an_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", np.ones((2, 2)))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    for load in (load_vectors, load_ids):
        with pytest.raises(InputError, match=r"x\.npy is an \.npz archive"):
            load(tmp_path / "x.npy")


def test_json_that_is_nested_too_deep_is_refused_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n" + '{"a": ' * 3000 + "1" + "}" * 3000 + "\n")
    with pytest.raises(InputError, match="line 2: not JSON"):
        load_payloads(tmp_path / "x.jsonl")


def test_a_byte_order_mark_is_not_part_of_an_id(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("7\n8\n", encoding="utf-8-sig")
    assert np.asarray(load_ids(tmp_path / "x.txt")).tolist() == [7, 8]
