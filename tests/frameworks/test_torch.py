"""Fake quantization: codes and values equal the store's to the last bit, gradients pass, ranges are learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import qvec
from qvec.codes.calibration import Calibration
from qvec.codes.registry import from_state
from qvec.common.errors import InputError
from qvec.common.types import Float32Array, Metric

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
fake = pytest.importorskip("qvec.torch")

MODULES = ["FakeInt8", "FakeInt8PerDim", "FakeInt4", "FakeInt4PerDim", "FakeTernary", "FakeBinary"]
PER_DIM = ("FakeInt8PerDim", "FakeInt4PerDim")
METRICS: list[Metric] = ["cosine", "ip", "l2"]


def vectors(n: int, dim: int) -> Float32Array:
    rng = np.random.default_rng(dim)
    return (rng.normal(size=(n, dim)) * rng.lognormal(size=dim) + 0.2).astype(np.float32)


def module(name: str, dim: int, metric: Metric, rotate: bool, sample: Any) -> Any:
    made = getattr(fake, name)(dim, metric, rotate=rotate, seed=5)
    if name != "FakeInt8":
        made.calibrate(sample)
    return made


def exported(made: Any, sample: Any) -> Any:
    return made.export(sample) if type(made).__name__ in PER_DIM else made.export()


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("dim", [1, 7, 64, 100, 384])
def test_codes_and_values_are_the_stores_to_the_last_bit(name: str, metric: Metric, rotate: bool, dim: int) -> None:
    x = vectors(400, dim)
    x[3], x[4], x[5] = 0, 1e-32, 1e15
    tensor = torch.from_numpy(x)
    made = module(name, dim, metric, rotate, tensor)
    stored = from_state(exported(made, tensor).state())
    codes = stored.encode(x)
    assert np.array_equal(made.codes(tensor), codes)
    assert np.array_equal(made(tensor).detach().numpy(), stored.decode(codes))


@pytest.mark.parametrize("name", MODULES)
def test_100_000_vectors_get_the_same_codes_after_training(name: str) -> None:
    sample = torch.from_numpy(vectors(1000, 64))
    made = module(name, 64, "cosine", True, sample)
    with torch.no_grad():  # as if trained: parameters that no sample gives
        for parameter in made.parameters():
            parameter.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)))
    stored = exported(made, sample)
    x = vectors(100_000, 64)
    codes = stored.encode(x)
    assert np.array_equal(made.codes(torch.from_numpy(x)), codes)
    assert np.array_equal(made(torch.from_numpy(x)).detach().numpy(), stored.decode(codes))


@pytest.mark.parametrize("name", MODULES)
def test_the_code_of_a_vector_does_not_depend_on_the_batch(name: str) -> None:
    x = torch.from_numpy(vectors(300, 100))
    made = module(name, 100, "cosine", True, x)
    whole = made(x).detach()
    assert torch.equal(torch.cat([made(row[None]) for row in x[:20]]), whole[:20])


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("metric", METRICS)
def test_gradients_pass_unchanged_if_no_value_saturates(name: str, metric: Metric) -> None:
    sample = torch.from_numpy(vectors(300, 32))
    made = module(name, 32, metric, False, sample)
    if name == "FakeBinary":
        made.clip = float("inf")
        with torch.no_grad():
            made.mean.zero_()
    # within the sample's range, to stay clear of its ends
    x = (sample[:8] * 0.5 + sample.mean(0) * 0.5).requires_grad_()
    weights = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    (made(x) * weights).sum().backward()
    again = x.detach().requires_grad_()
    unit = metric == "cosine" or name == "FakeBinary"
    target = again / again.norm(dim=1, keepdim=True) if unit else again
    (target * weights).sum().backward()
    inside = torch.ones(8, 32, dtype=torch.bool)
    if name in PER_DIM:
        lower, upper, _ = made._ranges()
        inside = (target > lower) & (target < upper)
        assert inside.float().mean() > 0.9
        if metric == "cosine":  # one saturated value bends the gradient of its whole row
            inside &= inside.all(1, keepdim=True)
    assert torch.allclose(x.grad[inside], again.grad[inside], atol=1e-5)


def test_the_gradient_of_a_zero_vector_is_finite() -> None:
    for name in MODULES:
        for metric in METRICS:
            made = module(name, 8, metric, True, torch.from_numpy(vectors(300, 8)))
            x = torch.zeros(4, 8, requires_grad=True)
            made(x).sum().backward()
            assert torch.isfinite(x.grad).all(), (name, metric)


def test_the_gradients_of_the_ranges_are_those_of_lsq() -> None:
    made = fake.FakeInt8PerDim(2, "l2")
    with torch.no_grad():
        made.lower.copy_(torch.tensor([0.0, 0.0]))
        made.step.copy_(torch.tensor([1.0, 1.0]))
    x = torch.tensor([[3.3, 300.0], [4.0, -5.0]], requires_grad=True)
    assert made(x).tolist() == [[3.0, 255.0], [4.0, 0.0]]
    made(x).sum().backward()
    factor = 1 / (255 * 2) ** 0.5
    assert x.grad.tolist() == [[1, 0], [1, 0]]
    # Inside, rint(v) - v; above 255; below, 0 for the step and 1 for the offset.
    assert np.allclose(made.step.grad, np.array([3 - 3.3, 255.0]) * factor, rtol=1e-5)
    assert np.allclose(made.lower.grad, np.array([0.0, 2.0]) * factor, rtol=1e-5)


def test_training_finds_ranges_far_from_the_initial_ones() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)) + 1
    made = fake.FakeInt8PerDim(16, "l2")  # starts at 3 / sqrt(16) on either side of 0
    before = (made(x) - x).square().mean().item()
    optimizer = torch.optim.Adam([{"params": [made.lower], "lr": 0.03}, {"params": [made.step], "lr": 3e-4}])
    for _ in range(200):
        optimizer.zero_grad()
        (made(x) - x).square().mean().backward()
        optimizer.step()
    assert (made(x) - x).square().mean().item() < 0.05 * before
    assert np.array_equal(exported(made, x).encode(x.numpy()), made.codes(x))


def test_a_learned_calibration_is_marked_and_survives_json() -> None:
    x = torch.from_numpy(vectors(300, 16))
    made = module("FakeInt8PerDim", 16, "cosine", False, x)
    calibration = made.export(x, model="m").calibration
    assert (calibration.method, calibration.model, calibration.n_samples) == ("lsq", "m", 300)
    assert Calibration.from_json(calibration.to_json()).id == calibration.id


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("FakeInt8", qvec.Int8()),
        ("FakeInt8PerDim", qvec.Int8(scale="per_dim")),
        ("FakeInt4", qvec.Int4()),
        ("FakeInt4PerDim", qvec.Int4(scale="per_dim", rotate=False)),
        ("FakeTernary", qvec.Ternary()),
        ("FakeBinary", qvec.Binary()),
    ],
)
def test_a_collection_stores_the_codes_of_the_module(name: str, code: Any, tmp_path: Any) -> None:
    x = vectors(500, 64)
    tensor = torch.from_numpy(x)
    made = module(name, 64, "cosine", name in ("FakeBinary", "FakeInt4", "FakeTernary"), tensor)
    quantizer = exported(made, tensor)
    path = tmp_path / "a.qvec"
    with qvec.create(path, 64, code=code, quantizer=quantizer, originals="none") as db:
        db.add(x)
    with qvec.open(path) as db:
        assert np.array_equal(db.get(np.arange(500)).vectors, made(tensor).detach().numpy())
    qvec.create(path, 64, code=code, quantizer=quantizer, originals="none", exist_ok=True).close()
    with pytest.raises(InputError, match="the quantizer is"):
        qvec.create(tmp_path / "b.qvec", 64, code="f16", quantizer=quantizer)
    assert not (tmp_path / "b.qvec").exists()


@pytest.mark.parametrize("name", MODULES)
def test_a_state_dict_brings_the_same_codes(name: str) -> None:
    x = torch.from_numpy(vectors(400, 48))
    made, other = module(name, 48, "cosine", True, x), getattr(fake, name)(48, "cosine", rotate=True, seed=5)
    other.load_state_dict(made.state_dict())
    assert np.array_equal(other.codes(x), made.codes(x))
    assert torch.equal(other(x), made(x))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(3), r"of shape \(3,\)"),
        (torch.zeros(2, 9), r"shape \(n, 8\), got torch.float32 of shape \(2, 9\)"),
        (torch.zeros(2, 8, dtype=torch.float64), "got torch.float64"),
    ],
)
def test_input_of_another_shape_or_type_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fake.FakeInt8(8)(value)
