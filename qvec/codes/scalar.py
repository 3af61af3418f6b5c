"""What codes of integer levels share: ranges from a calibration, or a scale for each vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qvec._kernels import Codec
from qvec.codes.base import CodecQuantizer, Common, make_transform
from qvec.codes.calibration import Calibration
from qvec.codes.configs import Int4, Int8
from qvec.codes.samples import check_finite, check_vectors
from qvec.codes.transforms import Transform
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import State
from qvec.common.types import Float32Array, Metric


@dataclass(frozen=True, eq=False)
class CalibratedQuantizer(CodecQuantizer):
    """``x ~ lower + step * c``, c in 0..``levels``; ``calibration`` None: a scale per vector."""

    levels: ClassVar[int]

    calibration: Calibration | None

    def __post_init__(self) -> None:
        if self.calibration is not None and self.calibration.dim != self.coded_dim:
            got = self.calibration.dim
            raise InputError(f"calibration is of {got} dimensions, the codes of {self.coded_dim}")
        super().__post_init__()

    def state(self) -> State:
        """Give dimension, metric, transform and calibration as plain msgpack data."""
        return super().state() | {"calibration": self.calibration and self.calibration.to_dict()}

    def make_codec(self) -> Codec:
        if self.calibration is None:
            return super().make_codec()
        lower, step = self.calibration.lower, self.calibration.steps(self.levels)
        return Codec(self.kind, self.metric, self.coded_dim, lower=lower, step=step)

    @classmethod
    def calibrated(
        cls, x: Float32Array, metric: Metric, transform: Transform | None, config: Int8 | Int4, model: str | None
    ) -> Calibration | None:
        """Learn the ranges of float32[n, dim] behind the transform; None where each vector has its own scale."""
        if config.scale == "per_vector":
            return None
        check_finite("sample", x)
        params = {} if config.percentile is None else {"percentile": config.percentile}
        if config.method in ("mse", "entropy"):
            params["levels"] = float(cls.levels)
        coded = coded_sample(x, metric, transform)
        ranges = Calibration.train(coded, config.method, params, model, one_range=config.scale == "global")
        return ranges.made_symmetric(cls.levels) if config.symmetric else ranges


def coded_sample(x: Float32Array, metric: Metric, transform: Transform | None) -> Float32Array:
    """Bring float32[n, dim] to what codes are made of: behind the transform, unit vectors under cosine."""
    y = x if transform is None else transform.apply(x)
    return Transform(y.shape[1], True, None, None).apply(y) if metric == "cosine" else y


def rotation_of(
    sample: Float32Array, seed: int, rotate: bool, dims: int | None
) -> tuple[Float32Array, Transform | None]:
    """Check the sample's shape; give it, and the transform that truncates to ``dims`` and rotates."""
    x = check_vectors("sample", sample, None)
    return x, make_transform(x.shape[1], False, None, seed if rotate else None, dims)


def plain_transform(common: Common, kind: str) -> Transform | None:
    """Return a state's transform if it only truncates and rotates: the codec does the rest itself."""
    t = common.transform
    if t is not None and t.mean is not None:
        raise FormatError(f"field 'mean' must be empty: {kind} codes are not centered by their transform")
    if t is not None and t.normalize:
        raise FormatError(f"field 'normalize' must be false: the codec of {kind} normalizes itself")
    return t


def coded_dim_of(common: Common) -> int:
    """Dimensions behind a state's transform."""
    return common.dim if common.transform is None else common.transform.padded


def take_calibration(common: Common) -> Calibration | None:
    """Return a state's calibration if it is of the dimensions that are coded."""
    plain, coded_dim = common.fields["calibration"], coded_dim_of(common)
    calibration = None if plain is None else Calibration.from_dict(plain)
    if calibration is not None and calibration.dim != coded_dim:
        raise FormatError(f"field 'calibration' is of {calibration.dim} dimensions, the codes of {coded_dim}")
    return calibration
