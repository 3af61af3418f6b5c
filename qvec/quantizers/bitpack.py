"""What rabitq and mixed share: codes of vectors after centring, which estimate distances without bias."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from qvec.calibration.samples import check_codes
from qvec.quantizers.base import CodecQuantizer
from qvec.transforms import Transform
from qvec.types import Codes, Float32Array


@dataclass(frozen=True, eq=False)
class BitpackQuantizer(CodecQuantizer):
    """Codes of ``y = T (x - mean)``, T orthogonal: ``<q, x> = <T q, y> + <T q, T mean>``.

    Under l2 queries are centred as vectors are, ``|q - x| = |(q - mean) - (x - mean)|``; under ip and cosine
    they are not, and the codec adds the last term to each distance. Under cosine a transform that centres
    normalises first.
    """

    @cached_property
    def query_transform(self) -> Transform | None:
        t = self.transform
        return t if self.metric == "l2" or t is None else replace(t, mean=None)

    @cached_property
    def centre(self) -> Float32Array | None:
        """``T mean``, float32[coded_dim], where the codec has to add it: under ip and cosine."""
        t = self.transform
        if self.metric == "l2" or t is None or t.mean is None:
            return None
        projected: Float32Array = replace(t, normalise=False, mean=None).apply(t.mean[None])[0]
        return projected

    def decode(self, codes: Codes) -> Float32Array:
        """Rebuild float32[n, dim], the mean added again, zeros where ``dims`` cut off.

        Under cosine the vectors are of unit length, within the error of the code.
        """
        y = self.codec.decode(check_codes(codes, self.code_size))
        if self.transform is None:
            return y
        x = self.transform.unrotate(y)
        if self.transform.mean is not None:
            x[:, : self.transform.kept] += self.transform.mean
        return x
