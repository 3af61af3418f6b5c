"""Mixed precision: zero to eight bits per dimension, allocated to groups of dimensions under a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from qvec._kernels import Codec
from qvec.codes.base import Quantizer, coded_sample, config_of, make_transform, read_common
from qvec.codes.bit_allocation import GROUP, MAX_WIDTH, allocate_bits
from qvec.codes.centroids import Centroids, codec_options
from qvec.codes.components import eigenvectors, mixed_by_groups, second_moment
from qvec.codes.configs import MIXED_BITS, CodeConfig, Mixed
from qvec.codes.samples import check_sample, check_vectors
from qvec.codes.transforms import MAX_MATRIX_BYTES
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import State, floats_to_bytes, take_floats
from qvec.common.types import CodeKind, Codes, Float32Array, Metric

OVERSAMPLE = ((3.5, 2), (2.5, 3), (1.5, 5), (0.0, 20))  # (least bits per dimension, factor): docs/quantization.md
COVARIANCE_ROWS = 20_000  # at most this many rows of the sample are used: enough for 1,000 dimensions


@dataclass(frozen=True, eq=False)
class MixedQuantizer(Quantizer):
    """``c_i = floor(y_i / (|y| step_i)) + 2^(w - 1)`` with ``y = M^T x - center``, clipped to the group's w bits.

    A decoded value is ``v_i = step_i (c_i - (2^w - 1) / 2)``, or 0 in groups without bits. ``<q, y>`` is estimated as
    ``|y'|^2 / <y', v> * <q, v>``, where y' is y restricted to the groups with bits: as in RaBitQ (arXiv:2405.12497),
    the length of y' is exact. ``widths``: uint8[groups of 64]. ``step``: float32[dim]. M is stored with the transform:
    4 dim^2 bytes, with ``groups="pca"``. ``centroids``: centroids of vectors after M, or None.
    """

    kind: ClassVar[CodeKind] = "mixed"

    widths: Codes
    step: Float32Array
    centroids: Centroids | None

    @classmethod
    def train(
        cls, sample: Float32Array, metric: Metric, config: CodeConfig, seed: int, model: str | None = None
    ) -> Self:
        """Learn centroids, components, widths and steps of float32[n, dim], n >= 256 and, for "pca", n >= 2 dim."""
        chosen = config_of(config, Mixed)
        dim = check_vectors("sample", sample, None).shape[1]
        _check_matrix_fits(chosen, dim)
        needed = max(chosen.min_samples, 2 * (chosen.dims or dim) if chosen.groups == "pca" else 0)
        x = check_sample(sample, dim, needed, f"mixed precision with groups={chosen.groups!r}")
        budget = _budget(chosen, dim if chosen.dims is None else chosen.dims)
        vectors = coded_sample(x, metric, make_transform(dim, False, None, None, chosen.dims))
        centroids = Centroids.learn(vectors, chosen.centroids, seed, cls.kind)
        # Bits are allocated with the residuals of a part of the sample; for "pca", with their principal components.
        vectors = np.ascontiguousarray(vectors[:: -(-len(vectors) // COVARIANCE_ROWS)])
        residuals = vectors if centroids is None else centroids.residual(vectors)
        matrix = principal_components(residuals, GROUP, seed) if chosen.groups == "pca" else None
        if matrix is not None:
            vectors, residuals = vectors @ matrix, residuals @ matrix
            centroids = centroids and centroids.rotated(matrix)
        allocation = allocate_bits(vectors, residuals, budget)
        transform = make_transform(dim, False, None, None, chosen.dims, matrix)
        return cls(dim, metric, transform, allocation.widths, allocation.step, centroids)

    @property
    def oversample(self) -> int:
        return next(factor for bits, factor in OVERSAMPLE if self.bits_per_dim >= bits)

    def state(self) -> State:
        plain = super().state() | {"widths": self.widths.tobytes(), "step": floats_to_bytes(self.step)}
        return plain | {"centroids": self.centroids and self.centroids.state()}

    @classmethod
    def from_state(cls, state: object) -> Self:
        common = read_common(state, cls.kind, ("widths", "step", "centroids"))
        transform, coded = common.plain_transform, common.coded_dim
        step = take_floats(common.fields, "step", coded)
        if not (step > 0).all():
            raise FormatError("field 'step' holds a value that is not positive")
        centroids = Centroids.from_state(common.fields["centroids"], coded)
        return cls(common.dim, common.metric, transform, _take_widths(common.fields, coded), step, centroids)

    def _make_codec(self) -> Codec:
        options = codec_options(self.centroids)
        return Codec("mixed", self.metric, self.coded_dim, widths=self.widths, step=self.step, **options)


def _check_matrix_fits(config: Mixed, dim: int) -> None:
    """Raise InputError, before any work, if the matrix of principal components does not fit into a record."""
    size = 4 * (config.dims or dim) ** 2
    if config.groups == "pca" and size > MAX_MATRIX_BYTES:
        raise InputError(
            f"mixed precision with groups='pca' stores a matrix of {size} bytes for {config.dims or dim} dimensions;"
            f" the limit is {MAX_MATRIX_BYTES}: choose groups='raw', or fewer with dims"
        )


def _budget(config: Mixed, dim: int) -> int:
    """Bytes of the code of a vector, at least one bit for one group; InputError if the budget is too large."""
    bits = MIXED_BITS if config.bits is None else config.bits
    budget = int(bits * dim / 8) if config.bytes is None else config.bytes
    least, most = GROUP // 8, MAX_WIDTH * (GROUP // 8) * -(-dim // GROUP)
    if config.bytes is not None and budget > most:
        raise InputError(f"Mixed.bytes must be at most {most} for {dim} dimensions, got {budget}")
    return max(budget, least)


def _take_widths(fields: State, dim: int) -> Codes:
    value, groups = fields["widths"], -(-dim // GROUP)
    if not isinstance(value, bytes) or len(value) != groups or max(value) > MAX_WIDTH or not any(value):
        raise FormatError(f"field 'widths' must hold {groups} bytes of 0 to {MAX_WIDTH}, not all 0")
    return np.frombuffer(value, np.uint8)


def principal_components(x: Float32Array, group: int, seed: int) -> Float32Array:
    """Return an orthogonal float32[dim, dim] from centered float32[n, dim]: principal components, mixed by group.

    Columns are the eigenvectors of the covariance by falling variance (Pearson 1901; Hotelling 1933).
    """
    return mixed_by_groups(eigenvectors(second_moment(x)), group, seed)
