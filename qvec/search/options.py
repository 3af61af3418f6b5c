"""Options of a search, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from qvec._kernels import Deadline
from qvec.codes.configs import MAX_LISTS
from qvec.common.errors import InputError
from qvec.common.types import Include, check_flag, check_number, check_timeout, unbox
from qvec.schema.validation import MAX_K, check_count

MAX_OVERSAMPLE = 10_000
INCLUDABLE = ("payloads", "vectors", "explanation")
CACHED_OPTIONS = 256
FETCH_FACTOR, MIN_FETCH = 5, 20  # rows that a diverse selection chooses from: for each hit, and at least

RawOptions = tuple[Any, ...]
"""Options as the caller gave them, in the order of the fields of :class:`SearchOptions`."""


@dataclass(frozen=True, slots=True, eq=False)
class SearchOptions:
    """Options of a search. Raises InputError, which names the first wrong option and its limits.

    ``mmr``: a weight, or a weight and the number of nearest rows to select from.

    Derived values: ``depth``, the number of nearest rows from which the hits are selected; ``weight``, the weight in
    ``mmr``; ``payloads``, ``vectors`` and ``explain``, whether hits include these; ``refined``, whether hits are
    selected from more than the k nearest rows; ``plain``, whether hits are the nearest rows and include only payloads
    or nothing.
    """

    k: int = 10
    include: Include = ("payloads",)
    max_distance: float | None = None
    offset: int = 0
    mmr: float | tuple[float, int] | None = None
    group_by: str | None = None
    group_size: int = 1
    ef: int | None = None
    nprobe: int | None = None
    oversample: float | Literal["auto"] = "auto"
    exact: bool = False
    recall: float | None = None
    depth: int = field(init=False)
    weight: float | None = field(init=False)
    payloads: bool = field(init=False)
    vectors: bool = field(init=False)
    explain: bool = field(init=False)
    refined: bool = field(init=False)
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        unbox(self)
        if self.recall is not None:
            self._check_recall()
        if type(self.exact) is not bool:  # calling a check only for wrong values takes less time
            check_flag("exact", self.exact)
        parts = list(self.include) if isinstance(self.include, (list, tuple, set, frozenset)) else [""]
        for part in parts:
            if part not in INCLUDABLE:
                raise InputError(f"include must be a list of some of {', '.join(INCLUDABLE)}; got {self.include!r}")
        if not (type(self.k) is int and 1 <= self.k <= MAX_K):
            check_count("k", self.k, 1, MAX_K)
        if self.ef is not None and not (type(self.ef) is int and 1 <= self.ef <= MAX_K):
            check_count("ef", self.ef, 1, MAX_K)
        if self.nprobe is not None:
            check_count("nprobe", self.nprobe, 1, MAX_LISTS)
        if not (isinstance(self.oversample, str) and self.oversample == "auto"):
            _check_oversample(self.oversample)
        simple = self.offset == 0 and self.max_distance is None and self.mmr is None
        depth, weight = (self.k, None) if simple else self._checked_depth()
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "payloads", "payloads" in parts)
        object.__setattr__(self, "vectors", "vectors" in parts)
        object.__setattr__(self, "explain", "explanation" in parts)
        object.__setattr__(self, "refined", not simple)
        plain = simple and not (self.explain or self.vectors or self.group_by is not None)
        object.__setattr__(self, "plain", plain)

    def _check_recall(self) -> None:
        recall = self.recall
        if not isinstance(recall, (int, float)) or isinstance(recall, bool) or not 0 < recall < 1:
            raise InputError(
                f"recall must be a number between 0 and 1, both excluded, got {recall!r}; exact=True finds all"
            )
        for name, default in (("ef", None), ("nprobe", None), ("oversample", "auto")):
            if getattr(self, name) != default:
                raise InputError(f"recall chooses {name}: give one or the other")
        if self.exact:
            raise InputError("recall chooses exact: give one or the other")

    def _checked_depth(self) -> tuple[int, float | None]:
        if self.offset != 0:
            check_count("offset", self.offset, 0, MAX_K - self.k)
        if self.max_distance is not None:
            check_number("max_distance", self.max_distance, -np.inf, np.inf)
        depth = self.k + self.offset
        if self.mmr is None:
            return depth, None
        weight: Any = self.mmr
        fetch = min(MAX_K, max(MIN_FETCH, FETCH_FACTOR * depth))
        if isinstance(weight, tuple):
            if len(weight) != 2:
                raise InputError(f"mmr must be a weight between 0 and 1, or (weight, n), got {weight!r}")
            weight, fetch = weight[0], check_count("n in mmr=(weight, n)", weight[1], depth, MAX_K)
        check_number("mmr", weight, 0.0, 1.0)
        return fetch, float(weight)


def deadline_after(timeout: float | Deadline) -> Deadline | None:
    """The deadline of a search that begins now; None for an infinite timeout. A part of a search gets its deadline."""
    if isinstance(timeout, Deadline):
        return timeout
    seconds = check_timeout("timeout", timeout)
    return None if seconds == float("inf") else Deadline(seconds)


def _check_oversample(factor: object) -> None:
    number = isinstance(factor, (int, float, np.integer, np.floating)) and not isinstance(factor, bool)
    if not number or not (factor == 0 or 1 <= factor <= MAX_OVERSAMPLE):  # type: ignore[operator]
        raise InputError(f"oversample must be 'auto', 0, or a number between 1 and {MAX_OVERSAMPLE}, got {factor!r}")


cached_options = lru_cache(CACHED_OPTIONS, typed=True)(SearchOptions)  # the checks take longer than a search
