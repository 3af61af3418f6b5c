"""A file of columns without a store: an array in memory."""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np

from qvec._kernels import Column

PSIZE = 4096


class File:
    """Pages in memory, laid out as LMDB lays out overflow values: page number first, value 16 bytes on."""

    def __init__(self, n_pages: int = 64) -> None:
        self.fd, name = tempfile.mkstemp()
        os.unlink(name)
        os.truncate(self.fd, n_pages * PSIZE)
        self.bytes = np.frombuffer(mmap.mmap(self.fd, n_pages * PSIZE), np.uint8)  # shared: released pages are reused
        self.next_page = 2

    def __del__(self) -> None:
        os.close(self.fd)

    def put(self, value: memoryview | bytes, page: int | None = None) -> memoryview:
        if page is None:
            page, self.next_page = self.next_page, self.next_page + -(-(len(value) + 16) // PSIZE)
        start = page * PSIZE
        self.bytes[start : start + 8] = np.frombuffer(page.to_bytes(8, "little"), np.uint8)
        self.bytes[start + 16 : start + 16 + len(value)] = np.frombuffer(value, np.uint8)
        return memoryview(self.bytes)[start + 16 : start + 16 + len(value)]

    def attach(self, column: Column) -> None:
        column.attach(self.bytes.ctypes.data, len(self.bytes))


def commit(file: File, writer: Column, txn_id: int) -> tuple[memoryview, int]:
    for block in writer.dirty().tolist():
        writer.set_page(block, file.put(writer.seal(block, txn_id)))
    writer.release()
    value, crc = writer.pack_chunk(0, txn_id)
    return file.put(value), crc
