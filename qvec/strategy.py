"""How selected rows are searched: each of them scored, or the graph walked among them, whichever costs less."""

from __future__ import annotations

from qvec._kernels import Selection
from qvec.engine import Engine
from qvec.plan import Plan
from qvec.query import SearchOptions
from qvec.selecting import Selected


def selection_for(engine: Engine, options: SearchOptions, plan: Plan, selected: Selected) -> Selection:
    """The form of a selection that the cheapest search takes."""
    if options.exact or engine.index.kind == "flat" or selected.count <= 2000:
        return selected.listed
    return selected.walked
