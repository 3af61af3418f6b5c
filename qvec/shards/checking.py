"""Check a whole set of shards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qvec.common.errors import QvecError
from qvec.shards.handles import Handles
from qvec.shards.log import Log
from qvec.shards.routes import Routes


def verify(handles: Handles, deep: bool) -> list[str]:
    """Find the problems of all shards, of the map of ids, and of the log."""
    return list(_problems(handles, deep))


def _problems(handles: Handles, deep: bool) -> Iterator[str]:
    names = handles.manifest.names
    if not names:
        return
    with handles.routes() as routes:
        yield from routes.check()
        for number, name in enumerate(names):
            try:
                yield from (f"{name}: {problem}" for problem in handles.shard(name).verify(deep=deep))
                yield from _misrouted(handles, routes, number, name)
            except QvecError as error:
                yield f"{name}: {error}"
        for number in Log(handles.folder).numbers():
            if number > routes.logged:
                yield f"batch {number} is not finished: open the set for writing"


def _misrouted(handles: Handles, routes: Routes, number: int, name: str) -> Iterator[str]:
    """Find ids of a shard for which the map has another shard. An id in two shards is wrong in one of them."""
    ids = handles.shard(name).ids()
    wrong = np.flatnonzero(routes.find(ids) != number)
    if len(wrong):
        yield f"{name}: the map has another shard for {len(wrong)} ids, the first is {ids.item(wrong[0])!r}"
