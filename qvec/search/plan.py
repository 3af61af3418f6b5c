"""Plan a search: convert its options to parameters of the kernels, for the collection's index and codes."""

from __future__ import annotations

import math

from qvec._kernels import SearchParams
from qvec.codes.configs import IVF
from qvec.common.errors import InputError
from qvec.search.curves import outdated, stored_curves
from qvec.search.engine import Engine
from qvec.search.options import SearchOptions
from qvec.storage.store import Snapshot

DEFAULT_EF = 64
MEASURED_K = 10  # the k that the oversampling of codes was measured for
MIN_EXTRA, MAX_EXTRA = 2, 10  # least candidates to re-rank in addition to k, for the finest and the coarsest codes


def plan_search(snap: Snapshot, engine: Engine, options: SearchOptions, k: int) -> SearchParams:
    """Plan a search for the k nearest rows. Raises InputError if an option does not fit the index or the codes."""
    if options.recall is not None:
        return _plan_for_recall(snap, k, options.recall)
    ef = DEFAULT_EF if options.ef is None else options.ef
    candidates = _candidates(engine, options, k)
    if options.ef is not None and options.oversample == "auto" and engine.index.kind != "flat":
        candidates = min(candidates, max(k, ef))  # a narrower walk has no more candidates to re-rank
    nprobe = engine.default_nprobe
    if options.nprobe is not None or (engine.index.kind == IVF.kind and options.ef is not None):
        nprobe = _checked_nprobe(engine, options)
    return SearchParams(k, ef=max(ef, k, candidates), nprobe=nprobe, candidates=candidates, exact=options.exact)


def _checked_nprobe(engine: Engine, options: SearchOptions) -> int:
    """Return the given number of inverted lists to scan."""
    if engine.index.kind == IVF.kind and options.ef is not None:
        raise InputError("ef is for graphs; the index of this collection is inverted lists: give nprobe")
    assert options.nprobe is not None
    if engine.index.kind != IVF.kind:
        raise InputError(f"nprobe is for inverted lists; the index of this collection is {engine.index.kind}")
    if engine.n_lists == 0:  # they are not built yet, and all rows are scanned
        return engine.default_nprobe
    if options.nprobe > engine.n_lists:
        raise InputError(f"nprobe={options.nprobe} is more than the {engine.n_lists} lists that there are")
    return options.nprobe


def _plan_for_recall(snap: Snapshot, k: int, recall: float) -> SearchParams:
    """Return the cheapest parameters that have reached the recall in measurements."""
    curves = stored_curves(snap)
    if curves is None:
        raise InputError("recall= needs a measured curve: call tune(queries) with several hundred queries first")
    if outdated(snap.state):
        raise InputError("the recall curve was measured on other codes, another index or far fewer rows: tune() again")
    point = curves.at(k).reaching(recall)
    ef = max(point.ef, k, point.candidates)
    return SearchParams(k, ef=ef, nprobe=point.nprobe, candidates=point.candidates)


def _candidates(engine: Engine, options: SearchOptions, k: int) -> int:
    """Return the number of candidates to re-rank; 0: none."""
    if engine.original_quantizer is None or options.oversample == 0:
        return 0
    if options.oversample != "auto":
        return math.ceil(k * options.oversample)
    chosen = engine.state.oversample
    if chosen is not None and chosen.generation == engine.state.active:
        return k * chosen.factor
    # The codes need ``oversample`` candidates for each hit at k = 10; a smaller k needs more for each hit.
    extra = math.ceil(MEASURED_K * (engine.oversample - 1))
    return max(math.ceil(k * engine.oversample), k + min(max(extra, MIN_EXTRA), MAX_EXTRA))
