"""What a search asks of the kernels: options, and what an engine has to offer, turned into numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qvec.engine import Engine
from qvec.errors import InputError
from qvec.quantizers import Quantizer
from qvec.query import REMEMBERED, SearchOptions

DEFAULT_EF = 64
PROBES_PER_ROOT = 1.0  # lists scanned of n lists: this times the root of n
MIN_EXTRA = 10  # candidates beyond k that are re-ranked at least


@dataclass(frozen=True, slots=True)
class Plan:
    """``ef``: the pool of a graph walk. ``nprobe``: the lists that are scanned. ``candidates``: how many of what is found are
    re-ranked, 0: none.
    """

    ef: int
    nprobe: int
    candidates: int


def plan_of(engine: Engine, options: SearchOptions) -> Plan:
    """The plan that an engine keeps for these options, made when they are first seen."""
    plan: Plan | None = engine.plans.get(options)
    if plan is None:
        if len(engine.plans) >= REMEMBERED:
            engine.plans.clear()
        plan = engine.plans[options] = make_plan(engine, options)
    return plan


def make_plan(engine: Engine, options: SearchOptions) -> Plan:
    """InputError where the engine cannot do what is asked for."""
    k, ef = options.k, options.ef
    width = DEFAULT_EF if ef is None else ef
    candidates = _candidates(engine, options)
    if ef is not None and options.oversample is None and engine.index.kind != "flat":
        candidates = min(candidates, max(k, width))  # a walk that is asked for less has no more to re-rank
    return Plan(max(width, k, candidates), _nprobe(engine, options), candidates)


def _nprobe(engine: Engine, options: SearchOptions) -> int:
    """How many lists are scanned; 0: there are none."""
    n_lists = engine.n_lists
    if n_lists and options.ef is not None:
        raise InputError("ef is for graphs; the index of this collection is inverted lists: give nprobe")
    if options.nprobe is None:
        return min(n_lists, max(1, round(PROBES_PER_ROOT * n_lists**0.5)))
    if n_lists == 0:
        raise InputError(f"nprobe is for inverted lists; the index of this collection is {engine.index.kind}")
    if options.nprobe > n_lists:
        raise InputError(f"nprobe={options.nprobe} is more than the {n_lists} lists that there are")
    return options.nprobe


def _candidates(engine: Engine, options: SearchOptions) -> int:
    """How many candidates are re-ranked; 0: none."""
    if options.rescore is False or engine.keep is None:
        if options.rescore and not _is_exact(engine.quantizer):  # f32 codes are the originals
            raise InputError("rescore=True needs stored originals: the collection was created with keep='none'")
        return 0
    if options.oversample is not None:
        return int(np.ceil(options.k * options.oversample))
    chosen = engine.state["oversample"]
    if chosen is not None and chosen["generation"] == engine.state["quantizer"]:
        return int(options.k * chosen["factor"])
    return max(options.k * engine.quantizer.oversample, options.k + MIN_EXTRA)


def _is_exact(quantizer: Quantizer) -> bool:
    return quantizer.kind == "f32" and quantizer.transform is None
