"""Options of a search, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qvec.codes.configs import MAX_LISTS
from qvec.common.errors import InputError
from qvec.common.types import check_flag
from qvec.schema.validation import MAX_K, check_count

MAX_OVERSAMPLE = 10_000
INCLUDABLE = ("payload", "vector")
REMEMBERED = 256  # sets of options


@dataclass(frozen=True, slots=True, eq=False)
class SearchOptions:
    """What a search asks for. Equal options are mostly one object, so that what follows from them is kept by it.

    ``ef``, ``nprobe``, ``oversample``, ``rescore`` None: left to the plan. ``recall``: what the plan is to reach.
    ``payloads``, ``vectors``: whether hits bring them.
    """

    k: int
    ef: int | None
    nprobe: int | None
    oversample: float | None
    rescore: bool | None
    exact: bool
    payloads: bool
    vectors: bool
    recall: float | None


def search_options(
    k: object,
    ef: object,
    nprobe: object,
    oversample: object,
    rescore: object,
    exact: object,
    include: object,
    recall: object,
) -> SearchOptions:
    """Options as :meth:`Collection.search` takes them; InputError names the first bad one and its limits."""
    if type(include) is list:
        include = tuple(include)
    try:
        return _checked(k, ef, nprobe, oversample, rescore, exact, include, recall)
    except TypeError:  # not hashable, so one of them is not what it should be
        return _check(k, ef, nprobe, oversample, rescore, exact, include, recall)


def _check(
    k: object,
    ef: object,
    nprobe: object,
    oversample: object,
    rescore: object,
    exact: object,
    include: object,
    recall: object,
) -> SearchOptions:
    if recall is not None:
        _check_recall(
            recall,
            ef=ef is not None,
            nprobe=nprobe is not None,
            oversample=oversample != "auto",
            rescore=rescore != "auto",
            exact=exact,
        )
    check_flag("exact", exact)
    parts = _parts(include)
    return SearchOptions(
        k=check_count("k", k, 1, MAX_K),
        ef=None if ef is None else check_count("ef", ef, 1, MAX_K),
        nprobe=None if nprobe is None else check_count("nprobe", nprobe, 1, MAX_LISTS),
        oversample=_factor(oversample),
        rescore=_whether(rescore),
        exact=bool(exact),
        payloads="payload" in parts,
        vectors="vector" in parts,
        recall=None if recall is None else float(recall),  # type: ignore[arg-type]
    )


def _check_recall(recall: object, **others: object) -> None:
    if not isinstance(recall, (int, float)) or isinstance(recall, bool) or not 0 < recall < 1:
        raise InputError(
            f"recall must be a number between 0 and 1, both excluded, got {recall!r}; exact=True finds all"
        )
    if given := [name for name, value in others.items() if value]:
        raise InputError(f"recall chooses {given[0]}: give one or the other")


_checked = lru_cache(REMEMBERED, typed=True)(_check)  # checking takes longer than a search does around its kernels


def _parts(include: object) -> tuple[str, ...]:
    if not isinstance(include, (tuple, set, frozenset)) or not all(part in INCLUDABLE for part in include):
        raise InputError(f"include must be a list of some of {', '.join(INCLUDABLE)}; got {include!r}")
    return tuple(include)


def _factor(oversample: object) -> float | None:
    if isinstance(oversample, str) and oversample == "auto":
        return None
    number = isinstance(oversample, (int, float, np.integer, np.floating)) and not isinstance(oversample, bool)
    if not number or not 1 <= oversample <= MAX_OVERSAMPLE:  # type: ignore[operator]
        raise InputError(f"oversample must be 'auto' or a number between 1 and {MAX_OVERSAMPLE}, got {oversample!r}")
    return float(oversample)  # type: ignore[arg-type]


def _whether(rescore: object) -> bool | None:
    if isinstance(rescore, bool):
        return rescore
    if not isinstance(rescore, str) or rescore != "auto":
        raise InputError(f"rescore must be True, False or 'auto', got {rescore!r}")
    return None
