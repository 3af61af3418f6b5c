"""Snapshots of a set: all shards and the map of ids, each at the commit that followed the same batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from qvec.collection.collection import Collection
from qvec.common.errors import ClosedError, NotFoundError
from qvec.shards.handles import Handles
from qvec.shards.log import Log
from qvec.shards.manifest import Manifest
from qvec.shards.routes import Routes
from qvec.storage.snapshot_store import SnapshotStore


class PinnedHandles(Handles):
    """Snapshots of the shards that another handle has open; the manifest stays as it is."""

    def __init__(self, source: Handles, manifest: Manifest) -> None:
        super().__init__(source.folder, source.memory, manifest)
        with ExitStack() as stack, source.routes() as routes:
            self._snapshots = {name: stack.enter_context(source.shard(name).snapshot()) for name in manifest.names}
            self._map = stack.enter_context(Routes(SnapshotStore(routes.store)))
            self._open = stack.pop_all()

    @classmethod
    def take(cls, source: Handles) -> Self | None:
        """Snapshots that belong together, or None if a batch is being written."""
        manifest, before = source.manifest, state_of(source)
        if before is None:
            return None
        try:
            taken = cls(source, manifest)
        except (NotFoundError, ClosedError):  # other shards have replaced these
            if source.manifest is manifest:
                raise
            return None
        if state_of(source) == before and source.manifest is manifest:
            return taken
        taken.close()
        return None

    @property
    def manifest(self) -> Manifest:
        """The manifest as of the snapshot."""
        if self.is_closed:
            raise ClosedError("this snapshot of a set is closed")
        return self._manifest

    def shard(self, name: str) -> Collection:
        """The snapshot of a shard."""
        return self._snapshots[name]

    @contextmanager
    def routes(self) -> Iterator[Routes]:
        """The map from ids to shards as of the snapshot."""
        yield self._map

    def close(self) -> None:
        """End all snapshots."""
        super().close()
        self._open.close()


def state_of(handles: Handles) -> int | None:
    """The number of the last batch that all shards contain; None while a batch is being written."""
    with handles.routes() as routes:
        logged = routes.logged
    return None if any(number > logged for number in Log(handles.folder).numbers()) else logged
