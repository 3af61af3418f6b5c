"""What a collection holds and the bytes it takes, as of one snapshot."""

from __future__ import annotations

from qvec.codes.configs import code_name
from qvec.codes.registry import code_from_dict
from qvec.common.types import OpenSnapshot, Stats
from qvec.index import GraphShape
from qvec.schema.calibrations import entry_of
from qvec.schema.config import Config
from qvec.schema.layout import ADJACENCY, CENTROIDS, CODES, FIELD, IDS, LIST_BLOCKS, LISTS, NODES, SLOTS, VECTORS
from qvec.storage.stats import collect
from qvec.storage.store import Snapshot, Store


def collect_stats(snap: Snapshot, store: Store, config: Config, graph: GraphShape | None) -> Stats:
    """Counts and sizes; bytes of codes, vectors and graph are of the generation in force."""
    state, sizes = snap.state, collect(store)
    names, columns = state["names"], sizes.column_bytes
    number = state["quantizer"]
    entry = None if number is None else entry_of(state, number)
    parts = {
        "codes_bytes": columns.get(names.get(CODES, CODES), 0),
        "vectors_bytes": columns.get(names.get(VECTORS, VECTORS), 0),
        "graph_bytes": sum(columns.get(names.get(column, column), 0) for column in (ADJACENCY, NODES)),
        "lists_bytes": sum(columns.get(name, 0) for name in (LIST_BLOCKS, LISTS, CENTROIDS, SLOTS)),
        "ids_bytes": columns.get(IDS, 0),
        "fields_bytes": sum(size for name, size in columns.items() if name.partition(" ")[0] == FIELD),
        "tree_bytes": sizes.other_bytes,
    }
    used = sizes.page_table_bytes + sizes.other_bytes + sum(columns.values())
    return Stats(
        path=str(store.path),
        dim=config.dim,
        metric=config.metric,
        code=code_name(config.code if entry is None else code_from_dict(entry["code"])),
        index=state["index"]["kind"],
        ids=config.ids,
        originals=config.originals,
        model=config.model,
        count=state["live"],
        deleted=state["n"] - state["live"],
        code_size=0 if entry is None else entry["code_size"],
        lists=(state["index"].get("lists") or {}).get("n_lists", 0),
        **parts,
        other_bytes=used - sum(parts.values()),
        free_bytes=sizes.file_bytes - used,
        degree=None if graph is None else graph.degree,
        reachable=None if graph is None else graph.reachable,
        erasing=state["erasing"],
        file_bytes=sizes.file_bytes,
        calibration=None if entry is None else entry["id"],
        generation=0 if number is None else number,
        txn_id=snap.txn_id,
        commits_held=sizes.commits_held,
        snapshots=tuple(OpenSnapshot(*pin) for pin in sizes.snapshots),
    )
