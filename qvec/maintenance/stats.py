"""Counts and sizes of a collection in one snapshot."""

from __future__ import annotations

from qvec.codes.configs import code_name
from qvec.common.types import OpenSnapshot, Stats
from qvec.maintenance.verify import graph_shape
from qvec.schema.layout import (
    ADJACENCY,
    CENTROIDS,
    CODES,
    FIELD_COLUMNS,
    IDS,
    LIST_BLOCKS,
    LISTS,
    NODES,
    SLOTS,
    VECTORS,
)
from qvec.schema.quantizers import QuantizerLoader
from qvec.schema.state import ListsState
from qvec.storage.stats import collect
from qvec.storage.store import Snapshot, Store


def collect_stats(snap: Snapshot, store: Store, loader: QuantizerLoader, walk: bool, visible: int) -> Stats:
    """Collect counts and sizes. The bytes of codes, vectors and graph are those of the active generation.

    walk: also walk the graph. ``visible``: the number of rows that have not expired.
    """
    config, state = loader.config, snap.state
    graph = graph_shape(snap, loader) if walk else None
    expired = state.live - visible
    sizes = collect(store)
    names, columns = state.column_names, sizes.column_bytes
    active = None if state.active is None else state.generation(state.active)
    lists = state.index.lists if isinstance(state.index, ListsState) else None
    parts = {
        "codes_bytes": columns.get(names.get(CODES, CODES), 0),
        "vectors_bytes": columns.get(names.get(VECTORS, VECTORS), 0),
        "graph_bytes": sum(columns.get(names.get(column, column), 0) for column in (ADJACENCY, NODES)),
        "lists_bytes": sum(columns.get(names.get(name, name), 0) for name in (LIST_BLOCKS, LISTS, CENTROIDS, SLOTS)),
        "ids_bytes": columns.get(IDS, 0),
        "fields_bytes": sum(size for name, size in columns.items() if name.partition(" ")[0] in FIELD_COLUMNS),
        "tree_bytes": sizes.other_bytes,
    }
    used = sizes.page_table_bytes + sizes.other_bytes + sum(columns.values())
    return Stats(
        path=str(store.path),
        dim=config.dim,
        metric=config.metric,
        code=code_name(config.code if active is None else active.code),
        index=state.index.kind,
        ids=config.ids,
        originals=config.originals,
        model=config.model,
        count=state.live - expired,
        expired=expired,
        unindexed=state.unindexed,
        deleted=state.n - state.live,
        code_size=0 if active is None else active.code_size,
        lists=0 if lists is None else lists.n_lists,
        **parts,
        other_bytes=used - sum(parts.values()),
        free_bytes=sizes.file_bytes - used,
        memory=store.memory,
        resident=snap.resident_bytes,
        degree=None if graph is None else graph.degree,
        reachable=None if graph is None else graph.reachable,
        erasing=state.erasing,
        file_bytes=sizes.file_bytes,
        calibration=None if active is None else active.id,
        generation=state.active or 0,
        txn_id=snap.txn_id,
        commits_held=sizes.commits_held,
        snapshots=tuple(OpenSnapshot(*pin) for pin in sizes.snapshots),
    )
