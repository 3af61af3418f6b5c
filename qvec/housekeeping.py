"""The part of a collection that tells how the file is, and keeps it fit."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from qvec.errors import InputError
from qvec.statistics import collect_stats
from qvec.types import Stats, check_flag
from qvec.upkeep import Upkeep

if TYPE_CHECKING:  # imported when it is called
    from qvec.maintenance import Maintenance


class Housekeeping(Upkeep):
    """What :class:`qvec.collection.Collection` inherits of calls that look after the file."""

    def stats(self) -> Stats:
        """Counts and sizes as of the last commit."""
        with self._store.read() as snap:
            return collect_stats(snap, self._store, self._config)

    def verify(self, *, deep: bool = True) -> list[str]:
        """Check every block, record, id and edge of the last commit; the problems found, none when it is sound.

        deep: besides checksums, counts, the id map and whether a walk reaches every row, make anew what follows from
        originals and payloads (codes, packed nodes, entries of lists, indexes of fields), and compare.
        """
        from qvec.verify import verify_snapshot

        check_flag("deep", deep)
        if self._store.in_transaction:
            raise InputError(
                "verify() checks what is in the file; inside a transaction that is not what it has written"
            )
        with self._store.read() as snap:
            return verify_snapshot(snap, self._config, self._quantizer, self._originals, deep)

    @cached_property
    def _maintenance(self) -> Maintenance:
        from qvec.maintenance import Maintenance

        return Maintenance(self._store, self._writer)
