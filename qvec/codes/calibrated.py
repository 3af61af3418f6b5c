"""Base class of int8 and int4: integer levels, with ranges from a calibration or a scale for each vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qvec._kernels import Codec
from qvec.codes.base import Common, Quantizer, coded_sample
from qvec.codes.calibration import Calibration
from qvec.codes.configs import Int4, Int8
from qvec.codes.samples import check_finite
from qvec.codes.transforms import Transform
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import State
from qvec.common.types import Float32Array, Metric


@dataclass(frozen=True, eq=False)
class CalibratedQuantizer(Quantizer):
    """``x ~ lower + step * c``, c in 0..``levels``. ``calibration``: None for a scale per vector."""

    levels: ClassVar[int]

    calibration: Calibration | None

    def __post_init__(self) -> None:
        if self.calibration is not None and self.calibration.dim != self.coded_dim:
            got = self.calibration.dim
            raise InputError(f"calibration is of {got} dimensions, the codes of {self.coded_dim}")
        super().__post_init__()

    def state(self) -> State:
        return super().state() | {"calibration": self.calibration and self.calibration.to_dict()}

    def _make_codec(self) -> Codec:
        if self.calibration is None:
            return super()._make_codec()
        lower, step = self.calibration.lower, self.calibration.steps(self.levels)
        return Codec(self.kind, self.metric, self.coded_dim, lower=lower, step=step)

    @classmethod
    def calibrated(
        cls, x: Float32Array, metric: Metric, transform: Transform | None, config: Int8 | Int4, model: str | None
    ) -> Calibration | None:
        """Learn the ranges of transformed float32[n, dim]; None if each vector has its own scale."""
        if config.scale == "per_vector":
            return None
        check_finite("sample", x)
        params = {} if config.percentile is None else {"percentile": config.percentile}
        if config.method in ("mse", "entropy"):
            params["levels"] = float(cls.levels)
        coded = coded_sample(x, metric, transform)
        ranges = Calibration.train(coded, config.method, params, model, one_range=config.scale == "global")
        return ranges.made_symmetric(cls.levels) if config.symmetric else ranges


def take_calibration(common: Common) -> Calibration | None:
    """Return a state's calibration; FormatError if its dimension is not that of the codes."""
    plain = common.fields["calibration"]
    calibration = None if plain is None else Calibration.from_dict(plain)
    if calibration is not None and calibration.dim != common.coded_dim:
        raise FormatError(f"field 'calibration' is of {calibration.dim} dimensions, the codes of {common.coded_dim}")
    return calibration
