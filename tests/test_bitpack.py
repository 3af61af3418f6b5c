"""RaBitQ and mixed precision: unbiased estimates, errors within their bound, bits in the dimensions that need them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import qvec
from helpers.quantizer_laws import clustered
from qvec.codes.bit_allocation import GAUSSIAN_STEP, allocate_bits, greedy
from qvec.codes.configs import CodeConfig, Mixed, RaBitQ
from qvec.codes.mixed import MixedQuantizer
from qvec.codes.registry import Quantizer, from_state, make_config, train
from qvec.common.errors import FormatError, InputError
from qvec.common.types import Float32Array, Metric

pytestmark = pytest.mark.simd

DIM = 200


def anisotropic(n: int, dim: int = DIM) -> Float32Array:
    """float32[n, dim] whose variance falls by a hundred from the first to the last principal component."""
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    spread = np.geomspace(1, 0.1, dim)
    return ((rng.normal(size=(n, dim)) * spread) @ turn + 0.2).astype(np.float32)


def dot_errors(bits: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors of <q, x> by the code and by its projection, float64[seeds, pairs], over random rotations."""
    rng = np.random.default_rng(bits)
    x, q = (rng.normal(size=(12, 128)).astype(np.float32) for _ in range(2))
    x[:6] += np.float32(4) * np.eye(6, 128, dtype=np.float32)
    q += np.float32(0.5) * x
    exact = np.einsum("nd,nd->n", q.astype(np.float64), x)
    coded, projected = [], []
    for seed in range(seeds):
        quantizer = train(x[:0], "ip", RaBitQ(bits, centroids=0), seed)
        decoded = quantizer.decode(quantizer.encode(x)).astype(np.float64)
        shrink = np.square(x).sum(axis=1) / np.square(decoded).sum(axis=1)
        dots = np.einsum("nd,nd->n", q, decoded)
        coded.append(dots - exact)
        projected.append(dots * shrink - exact)
    return np.array(coded), np.array(projected)


def worst_z(errors: np.ndarray) -> float:
    """Largest mean error of a pair, in standard errors."""
    return float(np.abs(errors.mean(axis=0) / (errors.std(axis=0, ddof=1) / np.sqrt(len(errors)))).max())


@pytest.mark.slow
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_mean_error_over_rotations_is_within_its_standard_error(bits: int) -> None:
    coded, projected = dot_errors(bits, 400)
    assert worst_z(coded) < 4
    assert worst_z(projected) > 4  # the nearest point on the code's ray, which is biased towards zero


@pytest.mark.parametrize("bits", range(1, 9))
def test_errors_are_within_the_bound(bits: int) -> None:
    rng = np.random.default_rng(11)
    x, q = (rng.normal(size=(300, DIM)).astype(np.float32) for _ in range(2))
    quantizer = train(x[:0], "ip", RaBitQ(bits, centroids=0), 5)
    decoded = quantizer.decode(quantizer.encode(x)).astype(np.float64)
    lengths = np.linalg.norm(x, axis=1)
    spread = np.sqrt(np.maximum(np.square(decoded).sum(axis=1) / lengths**2 - 1, 0) / (DIM - 1))
    bound = 1.9 * np.linalg.norm(q, axis=1)[:, None] * (lengths * spread)
    errors = np.abs(q @ decoded.T - q.astype(np.float64) @ x.T)
    assert 0.92 < (errors <= bound).mean() < 0.97  # a normal error is below 1.9 deviations in 94 of 100


def test_each_bit_points_more_nearly_along_the_vector() -> None:
    x = np.random.default_rng(2).normal(size=(200, 256)).astype(np.float32)
    losses = []
    for bits in range(1, 9):
        quantizer = train(x[:0], "l2", RaBitQ(bits, centroids=0), 1)
        decoded = quantizer.decode(quantizer.encode(x))
        cosines = np.einsum("nd,nd->n", x, decoded) / np.linalg.norm(x, axis=1) / np.linalg.norm(decoded, axis=1)
        losses.append(float((1 - cosines**2).mean()))
    gaussian = np.array([0.3634, 0.1188, 0.03744, 0.01154, 0.003495, 0.00104, 0.000304, 0.0000877])  # Max, table II
    assert (np.array(losses) < 1.05 * gaussian).all()
    assert (np.array(losses) > 0.5 * gaussian).all()  # a vector has its own range


def test_steps_of_the_table_lose_least_of_a_gaussian() -> None:
    y = np.linspace(-7, 7, 400_001)
    density = np.exp(-y * y / 2)
    for bits, step in enumerate(GAUSSIAN_STEP, start=1):
        errors = [_gaussian_error(y, density, bits, step * factor) for factor in (0.98, 1, 1.02)]
        assert errors[1] < min(errors[0], errors[2]), bits


def _gaussian_error(y: np.ndarray, density: np.ndarray, bits: int, step: float) -> float:
    half = 1 << (bits - 1)
    values = (np.clip(np.floor(y / step), -half, half - 1) + 0.5) * step
    return float((np.square(y - values) * density).sum() / density.sum())


@pytest.mark.parametrize("groups", ["pca", "raw"])
@pytest.mark.parametrize("budget", [8, 24, 75, 100, 256])
def test_a_bit_allocation_is_within_its_budget(groups: str, budget: int) -> None:
    quantizer = train(anisotropic(500), "l2", Mixed(bytes=budget, groups=groups))  # type: ignore[arg-type]
    assert isinstance(quantizer, MixedQuantizer)
    assert 8 * int(quantizer.widths.sum()) == quantizer.codec.data_size == budget // 8 * 8


def test_principal_components_of_more_variance_get_more_bits() -> None:
    quantizer = train(anisotropic(900), "l2", Mixed(bits=3))
    assert isinstance(quantizer, MixedQuantizer)
    assert (np.diff(quantizer.widths.astype(int)) <= 0).all()
    assert quantizer.widths[0] > quantizer.widths[-1]
    assert quantizer.transform is not None
    assert quantizer.transform.matrix is not None
    gram = quantizer.transform.matrix.T @ quantizer.transform.matrix
    assert np.abs(gram - np.eye(DIM)).max() < 1e-5


def test_greedy_widths_are_the_best_of_all_plans() -> None:
    falls = -np.sort(-np.random.default_rng(1).exponential(size=(3, 8)), axis=1)
    errors = np.hstack([falls.sum(axis=1, keepdims=True), falls.sum(axis=1, keepdims=True) - falls.cumsum(axis=1)])
    for units in range(1, 25):
        plans = [p for p in itertools.product(range(9), repeat=3) if sum(p) <= units]
        best = min(sum(errors[g, w] for g, w in enumerate(plan)) for plan in plans)
        widths = greedy(errors, 8 * units)
        assert errors[np.arange(3), widths].sum() == pytest.approx(best)
        assert widths.sum() <= units


def test_a_group_in_which_neighbors_differ_gets_more_bits_than_one_of_equal_variance() -> None:
    rng = np.random.default_rng(4)
    centroids = rng.normal(size=(40, 128)).astype(np.float32)
    y = np.repeat(centroids, 20, axis=0)
    y[:, 64:] += rng.normal(size=(800, 64)).astype(np.float32)
    first, second = allocate_bits(y, y, 48).widths.tolist()
    assert first < second
    assert first + second == 6
    equal = np.repeat(centroids, 20, axis=0)
    assert allocate_bits(equal, equal, 48).widths.tolist() == [3, 3]  # all neighbors are duplicates


def test_raw_groups_need_no_matrix() -> None:
    quantizer = train(anisotropic(300), "ip", Mixed(groups="raw"))
    assert quantizer.transform is None


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_mixed_precision_beats_equal_bits_where_variance_is_uneven(metric: Metric) -> None:
    x = anisotropic(1500)
    for centroids, share in ((1, 0.7), ("auto", 0.75)):  # local ones take some of the unevenness away from both
        mixed, equal = (
            train(x, metric, Mixed(bits=2, centroids=centroids)),
            train(x, metric, RaBitQ(2, centroids=centroids)),
        )
        assert mixed.code_size <= equal.code_size
        assert _error(mixed, x) < share * _error(equal, x)


def _error(quantizer: Quantizer, x: Float32Array) -> float:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True) if quantizer.metric == "cosine" else x
    return float(np.square(quantizer.decode(quantizer.encode(x)) - unit).sum(axis=1).mean())


@pytest.mark.parametrize("config", [RaBitQ(1), RaBitQ(8), Mixed()])
def test_decoding_adds_the_mean_again(config: CodeConfig) -> None:
    x = anisotropic(500) + np.float32(5)
    quantizer = train(x, "l2", config)
    decoded = quantizer.decode(quantizer.encode(x))
    assert np.abs(decoded.mean(axis=0) - x.mean(axis=0)).max() < 0.1


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("kind", [RaBitQ, Mixed])
def test_codes_of_the_first_dimensions_are_codes_of_vectors_cut_there(
    metric: Metric, kind: type[RaBitQ] | type[Mixed]
) -> None:
    x = anisotropic(500)
    short = np.ascontiguousarray(x[:, :70])
    cut, whole = train(x, metric, kind(bits=4, dims=70), 3), train(short, metric, kind(bits=4), 3)
    codes = cut.encode(x)
    assert np.array_equal(codes, whole.encode(short))
    assert np.array_equal(cut.prepare(x[:5]), whole.prepare(short[:5]))
    decoded = cut.decode(codes)
    assert np.array_equal(decoded[:, :70], whole.decode(codes))
    assert not decoded[:, 70:].any()


def test_a_constant_dimension_and_the_mean_itself_are_coded_finitely() -> None:
    x = anisotropic(500)
    x[:, 7] = 3
    for config in (RaBitQ(1), RaBitQ(4), Mixed(), Mixed(groups="raw")):
        quantizer = train(x, "l2", config)
        same = np.repeat(x.mean(axis=0, keepdims=True), 2, axis=0)
        keys = quantizer.codec.score(quantizer.prepare(same), quantizer.encode(np.vstack([x, same])))
        assert np.isfinite(keys).all()
        assert np.isfinite(quantizer.decode(quantizer.encode(same))).all()


@pytest.mark.parametrize(("config", "n", "needed"), [(Mixed(), 399, 400), (Mixed(groups="raw"), 255, 256)])
def test_a_small_sample_is_refused_with_the_number_needed(config: CodeConfig, n: int, needed: int) -> None:
    with pytest.raises(InputError, match=f"at least {needed} vectors, got {n}"):
        train(anisotropic(500)[:n], "l2", config)


def test_components_of_too_many_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match=r"62916624 bytes for 3966 dimensions; the limit is 62914560"):
        train(np.zeros((1, 3966), np.float32), "l2", Mixed())
    with pytest.raises(InputError, match="at least 7930 vectors, got 1"):
        train(np.zeros((1, 5000), np.float32), "l2", Mixed(dims=3965))


def test_a_budget_beyond_eight_bits_is_refused() -> None:
    with pytest.raises(InputError, match=r"Mixed.bytes must be at most 256 for 200 dimensions, got 257"):
        train(anisotropic(500), "l2", Mixed(bytes=257))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RaBitQ(0), "RaBitQ.bits must be an integer from 1 to 8, got 0"),
        (lambda: RaBitQ(9), "from 1 to 8, got 9"),
        (lambda: RaBitQ(2.0), "from 1 to 8, got 2.0"),  # type: ignore[arg-type]
        (lambda: RaBitQ(centroids=257), 'RaBitQ.centroids must be "auto", or it must be an integer from 0 to 256'),
        (lambda: Mixed(centroids=True), 'Mixed.centroids must be "auto"'),
        (lambda: Mixed(bits=3, bytes=40), "give one"),
        (lambda: Mixed(bits=0), "Mixed.bits must be a number from 0.125 to 8, got 0"),
        (lambda: Mixed(bits=8.1), "Mixed.bits must be a number"),
        (lambda: Mixed(bits=float("nan")), "Mixed.bits must be a number"),
        (lambda: Mixed(bytes=7), "Mixed.bytes must be an integer from 8"),
        (lambda: Mixed(groups="ica"), "Mixed.groups must be one of pca, raw"),  # type: ignore[arg-type]
    ],
)
def test_configurations_refuse_values_that_mean_nothing(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_names_give_the_number_of_bits() -> None:
    assert make_config("rabitq") == RaBitQ(1)
    assert [make_config(f"rabitq{bits}") for bits in range(1, 9)] == [RaBitQ(bits) for bits in range(1, 9)]
    with pytest.raises(InputError, match="rabitq8, or a configuration"):
        make_config("rabitq9")


def test_a_state_that_does_not_fit_is_refused_by_its_field() -> None:
    x = anisotropic(500)
    rabitq, mixed = train(x, "l2", RaBitQ(2)).state(), train(x, "l2", Mixed()).state()
    bad = [
        (rabitq, "bits", 9),
        (rabitq, "transform", None),
        (mixed, "widths", bytes(4)),
        (mixed, "widths", bytes([9, 1, 1, 1])),
        (mixed, "widths", bytes([1, 1, 1])),
        (mixed, "step", bytes(4 * DIM)),
    ]
    for state, field, value in bad:
        with pytest.raises(FormatError, match=field):
            from_state(state | {field: value})


def test_graphs_are_built_on_codes_of_four_bits_and_more_that_have_no_centroids() -> None:
    x = anisotropic(500)
    coarse = [train(x, "l2", RaBitQ(bits, centroids=1)).coarse for bits in range(1, 9)]
    assert coarse == [True] * 3 + [False] * 5
    assert train(x, "l2", RaBitQ(8)).coarse
    assert train(x, "l2", make_config("binary")).coarse
    assert not train(x, "l2", make_config("int8")).coarse


@pytest.mark.parametrize("code", ["rabitq1", "rabitq4", Mixed(bits=3)])
@pytest.mark.parametrize("index", ["flat", "hnsw"])
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_collections_find_neighbors_by_bitpack_codes(
    tmp_path: Path, metric: Metric, index: str, code: str | CodeConfig
) -> None:
    x = clustered(np.random.default_rng(4), 2000, 72)
    queries = clustered(np.random.default_rng(5), 40, 72)
    path = tmp_path / "bitpack.qvec"
    with qvec.create(path, 72, metric=metric, code=code, index=index) as db:
        db.add(x[:1500])
        db.add(x[1500:])
        true = db.search(queries, 10, exact=True)
    with qvec.open(path) as db:
        found = db.search(queries, 10, ef=200)
        assert db.verify() == []
    shared = [len(np.intersect1d(a, b)) for a, b in zip(found.ids, true.ids, strict=True)]
    assert np.mean(shared) >= 9.5
    assert np.allclose(found.distances[:, 0], true.distances[:, 0], rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("code", ["rabitq4", "rabitq8", Mixed(bits=6)])
def test_without_originals_distances_and_vectors_come_from_the_codes(tmp_path: Path, code: str | CodeConfig) -> None:
    x = clustered(np.random.default_rng(6), 800, 72)
    with qvec.create(tmp_path / "bare.qvec", 72, metric="ip", code=code, originals="none") as db:
        db.add(x)
        hits = db.search(x[:20], 5)
        exact = -np.sort(-(x[:20] @ x.T), axis=1)[:, :5]
        assert np.abs(hits.scores - exact).max() < 0.1 * np.abs(exact).max()
        stored = db.get(hits.ids[:, 0]).vectors
        own = x[hits.ids[:, 0]]
        assert (np.linalg.norm(stored - own, axis=1) < 0.2 * np.linalg.norm(own, axis=1)).all()
