"""One bit per dimension: the sign after centering and rotation, compared by Hamming distance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from qvec.codes.base import Quantizer, config_of, make_transform, read_common
from qvec.codes.configs import Binary, CodeConfig
from qvec.codes.samples import check_sample, check_vectors, mean_of
from qvec.codes.transforms import Transform
from qvec.common.types import MIN_SAMPLES_MEAN, CodeKind, Codes, Float32Array, Metric


@dataclass(frozen=True, eq=False)
class BinaryQuantizer(Quantizer):
    """``b_i = [y_i > 0]`` with ``y = R(x - mean)``; for queries under ip, ``y = R q``.

    If R is a random rotation, the share of bits in which two codes differ estimates the angle between the vectors,
    divided by pi (Charikar, STOC 2002, section 3).
    """

    kind: ClassVar[CodeKind] = "binary"
    oversample: ClassVar[int] = 40

    @classmethod
    def train(
        cls, sample: Float32Array, metric: Metric, config: CodeConfig, seed: int, model: str | None = None
    ) -> Self:
        """Learn the mean of float32[n, dim], n >= 100; with ``center=False``, or "auto" and n < 100, learn nothing."""
        chosen = config_of(config, Binary)
        x = check_vectors("sample", sample, None)
        dim, rotation = x.shape[1], seed if chosen.rotate else None
        center = len(x) >= MIN_SAMPLES_MEAN if chosen.center == "auto" else chosen.center
        if not center:
            return cls(dim, metric, make_transform(dim, False, None, rotation, chosen.dims))
        x = check_sample(x, dim, MIN_SAMPLES_MEAN, "the mean that binary codes are centered on")
        # Under cosine, lengths must not weigh the mean.
        normalize = metric == "cosine"
        truncated = make_transform(dim, normalize, None, None, chosen.dims)
        unit = x if truncated is None else truncated.apply(x)
        return cls(dim, metric, make_transform(dim, normalize, mean_of(unit), rotation, chosen.dims))

    @property
    def bits_per_dim(self) -> float:
        return 1  # rows are padded to 16 bytes

    @cached_property
    def query_transform(self) -> Transform | None:
        """Under ip queries are not centered: <q, x> = <q, x - mean> + <q, mean>, and the last term is constant."""
        t = self.transform
        if self.metric != "ip" or t is None:
            return t
        return Transform(t.dim, t.normalize, None, t.seed, t.dims, t.matrix)

    def decode(self, codes: Codes) -> Float32Array:
        """Rebuild the directions of ``x - mean`` as float32[n, dim] unit vectors; the code has no lengths."""
        direction = super().decode(codes)
        lengths: Float32Array = np.linalg.norm(direction, axis=1, keepdims=True)
        direction /= np.maximum(lengths, np.float32(1e-30))
        return direction

    @classmethod
    def from_state(cls, state: object) -> Self:
        common = read_common(state, cls.kind)
        return cls(common.dim, common.metric, common.transform)
