"""What a collection holds and the bytes it takes, as of one snapshot."""

from __future__ import annotations

from qvec.calibrations import entry_of
from qvec.config import Config
from qvec.layout import ADJACENCY, CENTROIDS, CODES, LIST_BLOCKS, LISTS, NODES, SLOTS, VECTORS
from qvec.storage.store import Snapshot, Store
from qvec.types import PinnedSnapshot, Stats


def collect_stats(snap: Snapshot, store: Store, config: Config) -> Stats:
    """Counts and sizes; bytes of codes, vectors and graph are of the generation in force."""
    state, sizes = snap.state, store.stats()
    names, columns = state["names"], sizes["column_bytes"]
    number = state["quantizer"]
    entry = None if number is None else entry_of(state, number)
    return Stats(
        path=str(store.path),
        dim=config.dim,
        metric=config.metric,
        code=config.code.kind if entry is None else entry["code"]["kind"],
        index=state["index"]["kind"],
        ids=config.ids,
        keep=config.keep,
        model=config.model,
        count=state["live"],
        deleted=state["n"] - state["live"],
        code_size=0 if entry is None else entry["code_size"],
        codes_bytes=columns.get(names.get(CODES, CODES), 0),
        vectors_bytes=columns.get(names.get(VECTORS, VECTORS), 0),
        graph_bytes=sum(columns.get(names.get(column, column), 0) for column in (ADJACENCY, NODES)),
        lists=(state["index"].get("lists") or {}).get("n_lists", 0),
        lists_bytes=sum(columns.get(name, 0) for name in (LIST_BLOCKS, LISTS, CENTROIDS, SLOTS)),
        file_bytes=sizes["file_bytes"],
        calibration=None if entry is None else entry["id"],
        generation=0 if number is None else number,
        txn_id=snap.txn_id,
        commits_held=sizes["commits_held"],
        snapshots=tuple(PinnedSnapshot(*pin) for pin in sizes["pinned"]),
    )
