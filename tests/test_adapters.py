"""Adapters without training: a matrix that is applied before any code, stored with the collection; originals do not
change."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from qvec.codes.adapters import Adapter, adapted_config
from qvec.codes.calibration import Calibration
from qvec.codes.configs import Binary, CodeConfig, Float32, Int8, RaBitQ
from qvec.codes.registry import from_state, make_config
from qvec.codes.transforms import Transform
from qvec.common.errors import FormatError, InputError
from qvec.common.types import Float32Array
from qvec.qat import Options, train_adapter
from qvec.qat.examples import make_examples

DIM = 64
CODES = [Binary(center=False), RaBitQ(1, centroids=0), Int8(), Int8(rotate=True)]


def vectors(n: int = 2000, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def adapter(code: CodeConfig = CODES[0], mean: bool = False) -> Adapter:
    rng = np.random.default_rng(1)
    matrix = (np.eye(DIM) + 0.1 * rng.normal(size=(DIM, DIM))).astype(np.float32)
    center = rng.normal(size=DIM).astype(np.float32) * np.float32(0.01) if mean else None
    return Adapter("cosine", code, 7, Transform(DIM, mean, center, None, matrix=matrix))


@pytest.mark.parametrize("code", CODES, ids=str)
def test_codes_are_those_of_adapted_vectors(code: CodeConfig) -> None:
    a, x = adapter(code), vectors()
    stored = from_state(a.quantizer(x[:0]).state())
    plain = replace(a, transform=Transform(DIM, False, None, None, matrix=np.eye(DIM, dtype=np.float32)))
    assert np.array_equal(stored.encode(x), plain.quantizer(x[:0]).encode(a.apply(x)))


@pytest.mark.parametrize("code", CODES, ids=str)
def test_a_collection_searches_through_its_adapter_and_ranks_by_its_originals(code: CodeConfig, tmp_path: Path) -> None:
    x, q = vectors(), vectors(20, 3)
    path = tmp_path / "a.qvec"
    a = adapter(code)
    with qvec.create(path, DIM, adapter=a, index="flat") as db:
        db.add(x)
    with qvec.open(path) as db:
        assert db.verify() == []
        assert np.array_equal(db.get([5, 6]).vectors, x[5:7])
        exact = db.search(q, 10, exact=True)
        assert np.array_equal(db.search(q, 10, oversample=200).ids, exact.ids)
        plain = db.search(q, 10, oversample=0).ids
    codes = a.quantizer(x[:0])
    keys = codes.codec.score(codes.prepare(q), codes.encode(x))
    for row, ids in zip(keys, plain, strict=True):
        assert np.array_equal(np.sort(row[ids]), np.sort(row)[:10])


def test_exist_ok_opens_only_a_collection_with_the_same_adapter(tmp_path: Path) -> None:
    path = tmp_path / "a.qvec"
    qvec.create(path, DIM, adapter=adapter()).close()
    qvec.create(path, DIM, adapter=adapter(), exist_ok=True).close()
    other = replace(adapter(), transform=Transform(DIM, False, None, None, matrix=np.eye(DIM, dtype=np.float32)))
    with pytest.raises(InputError, match="another quantizer or adapter"):
        qvec.create(path, DIM, adapter=other, exist_ok=True)


def test_exist_ok_does_not_mind_when_a_calibration_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"code": Int8(scale="per_dim"), "sample": vectors(), "adapter": adapter()}
    qvec.create(tmp_path / "a.qvec", DIM, **options).close()
    made = Calibration.train
    later = "2099-01-01T00:00:00+00:00"
    monkeypatch.setattr(Calibration, "train", lambda *a, **k: replace(made(*a, **k), created=later))
    qvec.create(tmp_path / "a.qvec", DIM, **options, exist_ok=True).close()


def test_an_adapter_survives_its_state() -> None:
    a = adapter(RaBitQ(1, centroids=0), mean=True)
    again = Adapter.from_state(a.state())
    assert again.code == a.code
    assert again.seed == 7
    assert np.array_equal(again.apply(vectors(5)), a.apply(vectors(5)))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", 99, "version"),
        ("metric", "cosin", "metric"),
        ("code", {"kind": "binary"}, "center"),
        ("code", {"kind": "nothing"}, "kind"),
        ("code", {"kind": "rabitq", "bits": 9, "centroids": 0, "dims": None, "projection": None}, "RaBitQ.bits"),
        ("code", 3, "code"),
        ("seed", -1, "seed"),
        ("transform", Transform(DIM, False, None, 3).state(), "must have a matrix and no rotation"),
    ],
)
def test_a_damaged_state_is_refused_by_name(field: str, value: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Adapter.from_state(adapter().state() | {field: value})


def test_options_that_exclude_an_adapter_are_refused_before_a_file_is_created(tmp_path: Path) -> None:
    path = tmp_path / "a.qvec"
    for options, message in (
        ({"dim": 65}, "is for 64 dimensions under cosine, not 65 under cosine"),
        ({"dim": DIM, "metric": "l2"}, "not 64 under l2"),
        ({"dim": DIM, "code": Float32()}, "f32 stores vectors as they are"),
        ({"dim": DIM, "code": Binary(), "sample": vectors()}, "without center"),
        ({"dim": DIM, "code": Int8(projection=8), "sample": vectors()}, "without center and projection"),
        ({"dim": DIM, "code": Int8(scale="per_dim")}, "at least 256 vectors, got 0"),
    ):
        with pytest.raises(InputError, match=message):
            qvec.create(path, adapter=adapter(), **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not both"):
        qvec.create(path, DIM, adapter=adapter(), quantizer=adapter().quantizer(vectors(0)))
    assert not path.exists()


@pytest.mark.parametrize("code", [None, "int8", Int8(scale="per_dim")])
def test_requantize_takes_an_adapter_and_searches_go_through_it(tmp_path: Path, code: Any) -> None:
    x, q, a = vectors(600), vectors(30, 3), adapter()
    with qvec.create(tmp_path / "a", DIM, index="flat") as db:
        db.add(x)
        before = db.search(q, 10, oversample=0).ids
        made = db.requantize(code, adapter=a)
        assert made.active
        codes = a.quantizer(x, a.code if code is None else make_config(code))
        keys = codes.codec.score(codes.prepare(q), codes.encode(x))
        for row, ids in zip(keys, db.search(q, 10, oversample=0).ids, strict=True):
            assert np.array_equal(np.sort(row[ids]), np.sort(row)[:10])
        assert np.array_equal(
            db.search(q, 10, exact=True).ids, np.argsort(-(q @ x.T / np.linalg.norm(x, axis=1)))[:, :10]
        )
        assert db.requantize(code, adapter=a).number == made.number  # the codes would be the same
        assert db.verify() == []
    with qvec.open(tmp_path / "a") as db:
        db.add(x[:5] * 2)
        assert set(db.search(x[0], 2, oversample=0).ids.tolist()) == {0, 600}
        db.rollback(0)
        again = db.search(q, 10, oversample=0, ids_in=range(600)).ids
        assert np.array_equal(again, before)
        for options, message in [({"generation": made.number}, "exclude"), ({"code": "f32"}, "needs another code")]:
            with pytest.raises(InputError, match=message):
                db.requantize(adapter=a, **options)
        with pytest.raises(InputError, match="for 64 dimensions under l2"):
            db.requantize(adapter=replace(a, metric="l2"))


def test_the_code_of_an_adapter_is_not_centered_twice() -> None:
    assert adapted_config(Binary()) == Binary(center=False)
    assert adapted_config(RaBitQ(1)) == RaBitQ(1, centroids=0)
    assert adapted_config(Int8()) == Int8()


def test_held_out_queries_share_no_answer_with_the_others() -> None:
    pairs = np.stack((np.arange(500), np.arange(500) // 5), 1)
    examples = make_examples(vectors(), vectors(500, 2), pairs, 0)
    assert set(examples.answers[examples.held]).isdisjoint(examples.answers[~examples.held])
    assert 0.05 < examples.held.mean() < 0.15


def test_a_document_as_a_query_is_not_its_own_neighbor() -> None:
    x = vectors()
    x[:300] = x[0]  # more equal ones than neighbors are kept
    examples = make_examples(x, None, None, 0)
    unit = examples.documents
    own = np.array([np.flatnonzero((unit == query).all(axis=1))[0] for query in examples.queries])
    single = own >= 300
    assert single.sum() > 1000
    assert not (examples.nearest[single] == own[single, None]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": vectors(999)}, "at least 1000 embeddings, got 999"),
        ({"embeddings": vectors()[0]}, r"shape \(n, dim\), got \(64,\)"),
        ({"embeddings": vectors(), "pairs": [[0, 1]]}, "give queries"),
        ({"embeddings": vectors(), "queries": vectors(99)}, "at least 100 queries, got 99"),
        ({"embeddings": vectors(), "queries": vectors(100)[:, :3]}, "queries must have shape"),
        ({"embeddings": vectors(), "queries": vectors(200), "pairs": [[0.5, 1]]}, "pairs must be integers"),
        ({"embeddings": vectors(), "queries": vectors(200), "pairs": [[0, 2000]]}, r"pairs\[0, 1\] = 2000"),
        ({"embeddings": vectors(), "queries": vectors(200), "pairs": [[-1, 0]]}, r"pairs\[0, 0\] = -1"),
        ({"embeddings": vectors(), "code": "nothing"}, "code must be one of"),
    ],
)
def test_bad_training_data_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_adapter(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "Options.steps"),
        ({"temperature": 0.0}, "temperature must be a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"distil": -1.0}, "distil must be a number from 0"),
        ({"contrast": 0.0, "distil": 0.0}, "nothing to learn"),
        ({"rank": 0}, "Options.rank"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options(**options)


def test_without_pytorch_the_message_names_the_extra_to_install() -> None:
    code = """
import sys
sys.modules["torch"] = None
import qvec.qat
try:
    import qvec.torch
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "qvec.torch needs PyTorch: pip install torch"
