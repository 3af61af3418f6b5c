"""Sizes of a store, and the snapshots that prevent the reuse of its pages."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from qvec.storage.page_table import STAMP_BYTES
from qvec.storage.store import Store


@dataclass(frozen=True)
class StoreStats:
    """Sizes in bytes. ``other_bytes``: the bytes of records, entries, ids and the pages of the tree.

    ``readers``: the number of open snapshots in all processes. ``commits_held``: how many commits the oldest of these
    snapshots is behind. ``snapshots``: for each open snapshot store of this handle, oldest first, its age in seconds
    and the number of commits since it was opened.
    """

    file_bytes: int
    used_bytes: int
    map_bytes: int
    column_bytes: dict[str, int]
    page_table_bytes: int
    other_bytes: int
    commits: int
    readers: int
    commits_held: int
    snapshots: list[tuple[float, int]]


def collect(store: Store) -> StoreStats:
    """Collect the statistics of the last commit."""
    store = store.source
    with store.read() as snapshot:
        env, info = store.env, store.env.lmdb.info()
        columns = {name: column.n_blocks * column.pages * env.psize for name, column in snapshot.columns.items()}
        page_table = sum(len(stamps) for stamps in snapshot.view.stamps.values()) // STAMP_BYTES * env.psize
        readers, newest = env.reader_commits(), info["last_txnid"]
        snapshots = [(time.monotonic() - since, newest - commit) for since, commit in list(store.snapshots.values())]
        return StoreStats(
            file_bytes=os.fstat(env.pair.data_fd).st_size,
            used_bytes=env.used_bytes(),
            map_bytes=info["map_size"],
            column_bytes=columns,
            page_table_bytes=page_table,
            other_bytes=env.tree_bytes() - sum(columns.values()) - page_table,
            commits=newest,
            readers=len(readers),
            commits_held=newest - min(readers, default=newest),
            snapshots=sorted(snapshots, reverse=True),
        )
