"""The state's account of generations: which is in force, which is being built, which columns each of them has.

A generation's ``names`` map a column's own name to the one that it is stored under; those not named are stored
under their own. Graph columns that two generations have in common are kept up to date by whichever is in force.

A row that is given to another vector has the wrong code in every generation but the one in force. So none is while
a generation is being built, and those that were left behind lose their codes then: what they were trained to stays,
and to return they are built again. The same goes for a graph: one that several generations shared goes to the last row
that any of them had when it was left behind, which ``linked`` of their entries says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qvec.common.errors import InputError
from qvec.common.plain_state import State
from qvec.schema.calibrations import entry_of
from qvec.schema.layout import CODES, VECTORS
from qvec.storage.store import Transaction

Names = Mapping[str, str]
NO_CODES: dict[str, Any] = {"rows": 0, "names": {}, "index": None, "linked": 0}  # of an entry


def stored_name(name: str, number: int) -> str:
    """What a column of a generation is stored under."""
    return f"{name}.{number}"


def graph_names(names: Names) -> dict[str, str]:
    """The index's part of ``names``."""
    return {name: stored for name, stored in names.items() if name not in (CODES, VECTORS)}


def pending_of(state: State, number: int) -> dict[str, Any]:
    """A copy of the account of a generation under construction; InputError where it is none any more."""
    pending = state["pending"]
    if pending is None or pending["number"] != number:
        raise InputError(f"generation {number} was given up by another call while it was being built")
    return dict(pending)


def returning(state: State, number: int) -> dict[str, Any]:
    """The account of a generation that was in force and is to be again: what came after it is to be added."""
    entry = entry_of(state, number)
    apart = graph_names(entry["names"]) != graph_names(state["names"])
    return {
        "number": number,
        "code": entry["code"],
        "rows": entry["rows"],
        "names": entry["names"],
        "relink": apart,
        "index": entry["index"] if apart else None,
        "linked": entry["linked"] if apart else 0,
    }


def forget_codes(txn: Transaction, row: int) -> None:
    """Remove the codes of generations left behind that hold ``row``, or whose graphs do: it goes to another vector."""
    state = txn.state
    lost = [
        entry
        for entry in state["generations"]
        if row < max(entry["rows"], entry["linked"]) and entry["number"] != state["quantizer"]
    ]
    if not lost:
        return
    numbers = {entry["number"] for entry in lost}
    state["generations"] = [entry | NO_CODES if entry["number"] in numbers else entry for entry in state["generations"]]
    for entry in lost:
        drop_columns(txn, entry["names"])


def may_reuse(txn: Transaction, free: int) -> bool:
    """Whether any of ``free`` unused rows may be given to other vectors.

    Not while a generation is being built, unless that would leave a quarter of all rows unused: then it starts over.
    """
    pending = txn.state["pending"]
    if pending is None or pending["rows"] == 0:
        return True
    if free <= txn.state["n"] // 4:
        return False
    if entry_of(txn.state, pending["number"])["rows"]:
        discard_pending(txn)
        return True
    graph = {} if pending["index"] is None else graph_names(pending["names"])
    for stored in graph.values():
        txn.drop_column(stored)
    names = {name: stored for name, stored in pending["names"].items() if name not in graph}
    txn.state["pending"] = pending | {"rows": 0, "names": names, "index": None, "linked": 0}
    return True


def own_graph(names: Names, columns: Iterable[str], number: int, started: bool) -> dict[str, str]:
    """Names of a generation with a graph of its own; the one that it has, once that is started."""
    return dict(names) if started else {**names, **{name: stored_name(name, number) for name in columns}}


def flip(state: State) -> None:
    """Put the pending generation in force; the one that was keeps what it needs to come back.

    Of the one in force the state itself tells, and its entry nothing: rows come and go.
    """
    pending, leaving = state["pending"], state["quantizer"]
    shared, own = graph_names(state["names"]), pending["index"] is not None
    names = pending["names"] if own else {**pending["names"], **shared}
    entries = [dict(entry) for entry in state["generations"]]
    for entry in entries:
        if entry["number"] == leaving:
            entry |= {"rows": state["n"], "names": state["names"], "served": True}
        elif entry["number"] == pending["number"]:
            entry |= NO_CODES
        if entry["rows"] and graph_names(entry["names"]) == graph_names(names):
            entry |= {"index": None, "linked": 0}
        elif entry["rows"] and graph_names(entry["names"]) == shared:
            entry |= {"index": state["index"], "linked": state["n"]}
    state["names"] = names
    state["index"] = pending["index"] if own else state["index"]
    state["generations"], state["quantizer"], state["pending"] = entries, pending["number"], None


def discard_pending(txn: Transaction) -> None:
    """Give up the generation under construction, if there is one; its calibration stays."""
    pending, txn.state["pending"] = txn.state["pending"], None
    if pending is not None and not entry_of(txn.state, pending["number"])["rows"]:
        drop_columns(txn, pending["names"])


def drop_columns(txn: Transaction, names: Names) -> None:
    """Remove the columns of a generation that is not accounted for any more, save those that another one uses."""
    state, pending = txn.state, txn.state["pending"]
    others = [state["names"], *(entry["names"] for entry in state["generations"] if entry["rows"])]
    others += [] if pending is None else [pending["names"]]
    own_names = {stored.partition(".")[0] for stored in txn.columns}
    in_use = {other.get(name, name) for other in others for name in own_names}
    in_use |= {stored for other in others for stored in other.values()}  # f32 codes that serve as originals
    for stored in {names.get(name, name) for name in own_names} & txn.columns.keys() - in_use:
        txn.drop_column(stored)
