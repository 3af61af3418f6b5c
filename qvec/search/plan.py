"""What a search asks of the kernels: options, and what an engine has to offer, turned into numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qvec.codes.registry import Quantizer
from qvec.common.errors import InputError
from qvec.schema.layout import TUNING
from qvec.search.curves import Curves, outdated
from qvec.search.engine import Engine
from qvec.search.options import REMEMBERED, SearchOptions
from qvec.storage.store import Snapshot

DEFAULT_EF = 64
PLACES = 10  # hits that the oversampling of codes was measured for
MIN_EXTRA, MAX_EXTRA = 2, 10  # candidates beyond k that are re-ranked at least: by how coarse the code is


@dataclass(frozen=True, slots=True)
class Plan:
    """``ef``: the pool of a graph walk. ``candidates``: how many of what is found are re-ranked, 0: none. ``nprobe``:
    inverted lists that are scanned."""

    ef: int
    candidates: int
    nprobe: int = 0


def plan_of(snap: Snapshot, engine: Engine, options: SearchOptions) -> Plan:
    """The plan that an engine keeps for these options, made when they are first seen."""
    plan: Plan | None = engine.plans.get(options)
    if plan is None:
        if len(engine.plans) >= REMEMBERED:
            engine.plans.clear()
        plan = engine.plans[options] = make_plan(snap, engine, options)
    return plan


def make_plan(snap: Snapshot, engine: Engine, options: SearchOptions) -> Plan:
    """InputError where the engine cannot do what is asked for."""
    if options.recall is not None:
        return _reaching(snap, engine, options.k, options.recall)
    k, ef = options.k, options.ef
    width = DEFAULT_EF if ef is None else ef
    candidates = _candidates(engine, options)
    if ef is not None and options.oversample is None and engine.index.kind != "flat":
        candidates = min(candidates, max(k, width))  # a walk that is asked for less has no more to re-rank
    return Plan(max(width, k, candidates), candidates, _nprobe(engine, options))


def _nprobe(engine: Engine, options: SearchOptions) -> int:
    """How many lists are scanned; 0: there are none."""
    n_lists: int = engine.n_lists
    if n_lists and options.ef is not None:
        raise InputError("ef is for graphs; the index of this collection is inverted lists: give nprobe")
    if options.nprobe is None:
        return engine.probes
    if n_lists == 0:
        raise InputError(f"nprobe is for inverted lists; the index of this collection is {engine.index.kind}")
    if options.nprobe > n_lists:
        raise InputError(f"nprobe={options.nprobe} is more than the {n_lists} lists that there are")
    return options.nprobe


def _reaching(snap: Snapshot, engine: Engine, k: int, recall: float) -> Plan:
    """The cheapest plan that was measured to reach the recall."""
    if snap.state.tuned is None:
        raise InputError("recall= needs a measured curve: call tune(queries) with some hundred queries of yours first")
    if outdated(snap.state):
        raise InputError("the recall curve was measured on other codes, another index or far fewer rows: tune() again")
    curves = Curves.from_state(snap.record(TUNING, 0))
    point = curves.at(k).reaching(recall)
    return Plan(max(point.ef, k, point.candidates), point.candidates, point.nprobe)


def _candidates(engine: Engine, options: SearchOptions) -> int:
    """How many candidates are re-ranked; 0: none."""
    if options.rescore is False or engine.original_quantizer is None:
        if options.rescore and not _is_exact(engine.quantizer):  # f32 codes are the originals
            raise InputError("rescore=True needs stored originals: the collection was created with originals='none'")
        return 0
    if options.oversample is not None:
        return math.ceil(options.k * options.oversample)
    chosen = engine.state.oversample
    if chosen is not None and chosen.generation == engine.state.active:
        return options.k * chosen.factor
    return enough(options.k, engine.quantizer.oversample)


def enough(k: int, oversample: float) -> int:
    """Candidates to re-rank for k hits by codes that need ``oversample`` each at k = 10: for fewer, some more."""
    extra = math.ceil(PLACES * (oversample - 1))
    return max(math.ceil(k * oversample), k + min(max(extra, MIN_EXTRA), MAX_EXTRA))


def _is_exact(quantizer: Quantizer) -> bool:
    return quantizer.kind == "f32" and quantizer.transform is None
