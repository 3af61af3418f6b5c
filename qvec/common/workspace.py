"""The memory that a build may take, and files for what exceeds it."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qvec.common import system
from qvec.common.errors import DiskFullError

if TYPE_CHECKING:
    import mmap

LEAST_BYTES = 256 << 20  # with memory=None
SHARE = 4  # with memory=None: a quarter of the vectors as float32


@dataclass(frozen=True)
class Workspace:
    """``memory``: bytes that the candidates and lists of a build may take; None: a quarter of the vectors as float32,
    and at least 256 MiB. ``folder``: of temporary files, which have no name; None: the system's."""

    memory: int | None = None
    folder: str | None = None

    def bytes_for(self, n: int, dim: int) -> int:
        """Bytes that a build over n vectors may take."""
        return max(LEAST_BYTES, 4 * n * dim // SHARE) if self.memory is None else self.memory

    def file(self, size: int) -> mmap.mmap:
        """A mapped temporary file of ``size`` bytes, whose space is reserved: a full disk raises DiskFullError here."""
        import mmap
        import tempfile  # late: it imports random

        with tempfile.TemporaryFile(dir=self.folder, prefix=".qvec-build-") as made:
            try:
                system.reserve_space(made.fileno(), size)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                where = self.folder or tempfile.gettempdir()
                raise DiskFullError(f"a build needs {size} bytes of temporary space in {where}: {error}") from error
            return mmap.mmap(made.fileno(), size)


DEFAULT_WORKSPACE = Workspace()
