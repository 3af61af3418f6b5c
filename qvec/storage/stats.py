"""What a store takes, and who holds it back."""

from __future__ import annotations

import os
import time
from typing import Any

from qvec.storage.page_table import STAMP_BYTES
from qvec.storage.store import Store


def collect(store: Store) -> dict[str, Any]:
    """Bytes of the file, its parts and the map; open snapshots, and commits that they hold back.

    "pinned": of this handle's pinned stores, oldest first, the age in seconds and how many commits came since.
    """
    with store.read() as snapshot:
        env, info = store._env, store._env.lmdb.info()
        blocks = {name: column.n_blocks * column.pages * env.psize for name, column in snapshot.columns.items()}
        chunks = sum(len(stamps) for stamps in snapshot._view.stamps.values()) // STAMP_BYTES * env.psize
        readers, newest = env.reader_commits(), info["last_txnid"]
        pinned = [(time.monotonic() - pin.since, newest - pin.commit) for pin in list(store.pins)]
        return {
            "file_bytes": os.stat(store.path).st_size,
            "used_bytes": (info["last_pgno"] + 1) * env.psize,
            "map_bytes": info["map_size"],
            "column_bytes": blocks,
            "directory_bytes": chunks,
            "other_bytes": _tree_bytes(env.lmdb.stat()) - sum(blocks.values()) - chunks,
            "commits": newest,
            "readers": len(readers),
            "commits_held": newest - min(readers, default=newest),
            "pinned": sorted(pinned, reverse=True),
        }


def _tree_bytes(stat: Any) -> int:
    pages: int = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return pages * int(stat["psize"])
