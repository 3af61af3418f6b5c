"""Training of adapters: it improves lossy codes, keeps the old map if a new one is no better, and repeats by seed."""

from __future__ import annotations

import numpy as np
import pytest

from qvec.codes.adapters import Adapter
from qvec.codes.configs import RaBitQ
from qvec.codes.registry import make_config
from qvec.common.errors import InputError
from qvec.common.types import Float32Array
from qvec.qat import Options, train_adapter

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

OPTIONS = Options(steps=60, batch=64, pool=512, check_every=20)


def task() -> tuple[Float32Array, Float32Array, np.ndarray]:
    """Documents in which the dimensions that queries use have far less variance than the others."""
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(3000, 16))
    noise = rng.normal(size=(3000, 48)) * 3
    documents = np.hstack((topics, noise)).astype(np.float32)
    answers = rng.integers(0, 3000, 600)
    asked = np.hstack((topics[answers] + 0.1 * rng.normal(size=(600, 16)), np.zeros((600, 48))))
    return documents, asked.astype(np.float32), answers


def hits(adapter: Adapter, x: Float32Array, q: Float32Array, answers: np.ndarray) -> float:
    code = adapter.quantizer(x[:0])
    keys = code.codec.score(code.prepare(q), code.encode(x))
    best = np.argsort(keys, axis=1)[:, :10]
    return float((best == answers[:, None]).any(axis=1).mean())


@pytest.mark.parametrize("code", ["rabitq1", "binary"])
def test_training_on_answers_finds_more_of_the_answers_of_other_queries(code: str) -> None:
    x, q, answers = task()
    pairs = np.stack((np.arange(400), answers[:400]), 1)
    wanted = ~np.isin(answers[400:], answers[:400])
    test, right = q[400:][wanted], answers[400:][wanted]
    options = Options(steps=100, negatives=0, pool=0, contrast=1.0, distil=0.0, temperature=0.2, learning_rate=0.02)
    learned = train_adapter(x, pairs, q[:400], code, options=options)
    untrained = train_adapter(x, pairs, q[:400], code, options=Options(steps=1, learning_rate=1e-30))
    assert hits(learned, x, test, right) > hits(untrained, x, test, right) + 0.2


def test_equal_seeds_give_equal_adapters_and_others_other_ones() -> None:
    x, q, _ = task()
    first, again, other = (
        train_adapter(x, None, q, "rabitq1", seed=seed, options=OPTIONS).transform.matrix for seed in (3, 3, 4)
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_map_that_is_no_better_is_not_kept() -> None:
    x, q, _ = task()
    wild = Options(steps=40, batch=64, pool=512, check_every=10, patience=2, learning_rate=100.0)
    matrix = train_adapter(x, None, q, "rabitq1", options=wild).transform.matrix
    assert np.array_equal(matrix, np.eye(64, dtype=np.float32))


def test_training_stops_when_nothing_gets_better() -> None:
    x, q, _ = task()
    seen: list[tuple[int, int, float]] = []
    wild = Options(steps=1000, batch=64, pool=512, check_every=10, patience=2, learning_rate=100.0)
    train_adapter(x, None, q, "rabitq1", options=wild, progress=lambda *at: seen.append(at))
    assert [step for step, _, _ in seen] == [10, 20]
    assert all(steps == 1000 and 0 <= recall <= 1 for _, steps, recall in seen)


def test_a_low_rank_map_differs_from_the_identity_by_no_more_than_its_rank() -> None:
    x, _, _ = task()
    options = Options(steps=30, batch=64, pool=512, check_every=30, rank=4, patience=9, learning_rate=1e-2)
    matrix = train_adapter(x, options=options).transform.matrix
    assert matrix is not None
    assert np.linalg.matrix_rank(matrix - np.eye(64, dtype=np.float32), tol=1e-4) <= 4


def test_scores_in_training_are_those_of_the_store() -> None:
    from qvec.qat.codes import one_bit

    x, q, _ = task()
    quantizer = Adapter.from_state(train_adapter(x, None, q, "rabitq1", options=OPTIONS).state()).quantizer(x[:0])
    assert quantizer.transform is not None
    y = torch.from_numpy(quantizer.transform.apply(x))
    turned = torch.from_numpy(quantizer.transform.apply(q))
    estimate = (turned / turned.norm(dim=1, keepdim=True)) @ one_bit(y).T
    keys = quantizer.codec.score(quantizer.prepare(q), quantizer.encode(x))
    assert np.abs((1 - estimate.numpy()) - keys).max() < 0.02  # the query has 8 bits in the store


def test_codes_that_adapters_are_not_learned_for_are_refused() -> None:
    x, q, _ = task()
    for code in (make_config("int8"), RaBitQ(4), RaBitQ(1, projection=8)):
        with pytest.raises(InputError, match="adapters are learned for binary, ternary, rabitq1, not for"):
            train_adapter(x, None, q, code, options=OPTIONS)
