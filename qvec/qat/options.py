"""Options of training an adapter (ADR 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from qvec.common.errors import InputError
from qvec.common.types import check_int


@dataclass(frozen=True, slots=True)
class Options:
    """``steps``: steps of Adam with ``batch`` queries each; the learning rate rises for a tenth of them, then falls to
    0.

    ``rank``: rank of the residual in ``M = I + U V^T``; None: M is not constrained. ``contrast``: weight of the
    contrastive loss at ``temperature``, if there are pairs. ``distil``: weight of the divergence from the exact scores,
    at the same temperature, over the documents of a batch: ``negatives`` from the neighbors of each query, and ``pool``
    at random.
    ``check_every``: steps between measurements of held-out recall. ``patience``: checks without improvement before
    training stops. The result is the best map of all checks; the untrained map counts as one.
    """

    steps: int = 150
    batch: int = 128
    learning_rate: float = 1e-3
    rank: int | None = None
    contrast: float = 0.0
    distil: float = 1.0
    temperature: float = 0.05
    negatives: int = 10
    pool: int = 2048
    check_every: int = 25
    patience: int = 4

    def __post_init__(self) -> None:
        limits = {"steps": 10**6, "batch": 65_536, "check_every": 10**6, "patience": 10**6}
        for name, high in limits.items():
            check_int(f"Options.{name}", getattr(self, name), 1, high)
        check_int("Options.negatives", self.negatives, 0, 100)
        check_int("Options.pool", self.pool, 0, 10**6)
        if self.rank is not None:
            check_int("Options.rank", self.rank, 1, 65_536)
        for name in ("learning_rate", "temperature"):
            _check_number(name, getattr(self, name), positive=True)
        for name in ("contrast", "distil"):
            _check_number(name, getattr(self, name), positive=False)
        if self.contrast == self.distil == 0:
            raise InputError("Options.contrast and Options.distil are both 0: there is nothing to learn")


def _check_number(name: str, value: object, positive: bool) -> None:
    number = isinstance(value, float | int) and not isinstance(value, bool)
    if not number or not 0 <= float(cast(float, value)) <= 1e6 or (positive and value == 0):
        bound = "above 0" if positive else "from 0"
        raise InputError(f"Options.{name} must be a number {bound} and at most 1e6, got {value!r}")
