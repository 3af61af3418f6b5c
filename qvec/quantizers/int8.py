"""One byte a dimension: with each vector's own scale, or with calibrated ranges of the dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from qvec._kernels import Codec
from qvec.calibration import Calibration
from qvec.errors import FormatError, InputError
from qvec.fields import State
from qvec.quantizers.base import CodecQuantizer, config_of, make_transform, read_common
from qvec.samples import check_finite, check_vectors
from qvec.transforms import Transform
from qvec.types import CodeConfig, CodeKind, Float32Array, Int8, Metric


@dataclass(frozen=True, eq=False)
class Int8Quantizer(CodecQuantizer):
    """``x ~ lower + step * c``, c in 0..255: ranges from ``calibration``; None: symmetric, per vector.

    Per vector: ``step = max|x_i| / 127``, ``c_i = rint(x_i / step) + 128``; rebuilt with the factor
    ``|x|^2 / <x, c - 128>`` in place of the step, so that the length has no bias (RaBitQ, arXiv:2405.12497).
    Per dimension: ``step = (upper - lower) / 255``, ``c_i = clamp(rint((x_i - lower_i) / step_i), 0, 255)``.
    Under cosine both code unit vectors. ``calibration`` is of the dimensions after the transform.
    """

    kind: ClassVar[CodeKind] = "int8"
    oversample: ClassVar[int] = 2

    calibration: Calibration | None

    def __post_init__(self) -> None:
        if self.calibration is not None and self.calibration.dim != self.coded_dim:
            got = self.calibration.dim
            raise InputError(f"calibration is of {got} dimensions, the codes of {self.coded_dim}")
        super().__post_init__()

    @classmethod
    def train(
        cls, sample: Float32Array, metric: Metric, config: CodeConfig, seed: int, model: str | None = None
    ) -> Self:
        """Learn the ranges of transformed float32[n, dim], n >= 256, if ``scale="per_dim"``, else nothing."""
        chosen = config_of(config, Int8)
        x = check_vectors("sample", sample, None)
        dim, rotation = x.shape[1], seed if chosen.rotate else None
        transform = make_transform(dim, False, None, rotation)
        if chosen.scale == "per_vector":
            return cls(dim, metric, transform, None)
        check_finite("sample", x)
        # Under cosine the codec codes unit vectors, so these are what is calibrated.
        coded = Transform(dim, metric == "cosine", None, rotation).apply(x)
        params = {} if chosen.percentile is None else {"percentile": chosen.percentile}
        return cls(dim, metric, transform, Calibration.train(coded, chosen.method, params, model))

    def state(self) -> State:
        """Give dimension, metric, transform and calibration as plain msgpack data."""
        return super().state() | {"calibration": self.calibration and self.calibration.to_dict()}

    @classmethod
    def from_state(cls, state: object) -> Self:
        """Rebuild from :meth:`state`; FormatError names the field that is wrong."""
        common = read_common(state, cls.kind, ("calibration",))
        if common.transform is not None and common.transform.mean is not None:
            raise FormatError("field 'mean' must be empty: int8 codes are not centred")
        if common.transform is not None and common.transform.normalise:
            raise FormatError("field 'normalise' must be false: the codec of int8 normalises itself")
        plain = common.fields["calibration"]
        calibration = None if plain is None else Calibration.from_dict(plain)
        coded_dim = common.dim if common.transform is None else common.transform.padded
        if calibration is not None and calibration.dim != coded_dim:
            got = calibration.dim
            raise FormatError(f"field 'calibration' is of {got} dimensions, the codes of {coded_dim}")
        return cls(common.dim, common.metric, common.transform, calibration)

    def make_codec(self, lift2: float = 0.0) -> Codec:
        if self.calibration is None:
            return super().make_codec(lift2)
        lower, step = self.calibration.lower, self.calibration.step
        return Codec(self.kind, self.metric, self.coded_dim, lower=lower, step=step, lift2=lift2)
