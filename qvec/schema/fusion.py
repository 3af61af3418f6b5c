"""The fusion that ``tune_fusion`` chose, in the state of a collection (docs/format.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from qvec.common.errors import FormatError
from qvec.common.plain_state import Between
from qvec.schema.validation import MAX_K, MAX_ROWS

MAX_FUSIONS = 4  # sets of two or three inputs

Input = Literal["vector", "text", "sparse"]
Measure = Literal["ndcg", "recall", "mrr", "hit"]
_Difference = Annotated[float, Between(-1, 1)]


@dataclass(frozen=True, slots=True)
class TunedFusion:
    """How searches with these inputs join their lists, if the call does not say it.

    ``weights``: of the scaled scores, in the order of ``inputs``; none for "rrf". ``depth``: length of the lists.
    ``measure``: what was maximized, at ``k``, on one half of the queries. ``gain``, ``low``, ``high``: by how much it
    is better than the best single input on the other half, ``n_queries`` queries, with the paired 95 % interval.
    """

    inputs: Annotated[tuple[Input, ...], Between(2, 3)]
    method: Literal["rrf", "weighted"]
    weights: Annotated[tuple[Annotated[float, Between(0, 1)], ...], Between(0, 3)]
    depth: Annotated[int, Between(1, MAX_K)]
    measure: Measure
    k: Annotated[int, Between(1, MAX_K)]
    n_queries: Annotated[int, Between(1, MAX_ROWS)]
    gain: _Difference
    low: _Difference
    high: _Difference

    @property
    def fusion(self) -> str | Mapping[str, float]:
        """The value of ``fusion=`` that means the same."""
        return "rrf" if self.method == "rrf" else dict(zip(self.inputs, self.weights, strict=True))


def check_fusions(fusions: Sequence[TunedFusion]) -> None:
    """Raise FormatError for inputs that are repeated, and for weights that do not belong to them."""
    known = [frozenset(one.inputs) for one in fusions]
    if len(set(known)) < len(known) or any(len(set(one.inputs)) < len(one.inputs) for one in fusions):
        raise FormatError("field 'fusions' must name each input, and each set of inputs, once")
    for one in fusions:
        wanted = 0 if one.method == "rrf" else len(one.inputs)
        if len(one.weights) != wanted or (wanted and not any(one.weights)):
            raise FormatError(f"field 'weights' must have {wanted} weights, not all zero, for {one.method!r}")


def tuned_for(fusions: Sequence[TunedFusion], inputs: Sequence[str]) -> TunedFusion | None:
    """The tuned fusion of a set of inputs, if there is one."""
    return next((one for one in fusions if set(one.inputs) == set(inputs)), None)
