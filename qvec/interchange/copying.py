"""Copying the rows of a source into a collection, batch by batch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qvec.codes.configs import Prequantized
from qvec.codes.prequantized_input import is_bits
from qvec.codes.registry import make_config
from qvec.collection.collection import Collection
from qvec.collection.open import create
from qvec.common.console import as_progress
from qvec.common.errors import InputError
from qvec.common.types import Metric, OnConflict
from qvec.interchange.base import Source

if TYPE_CHECKING:
    from qvec.index import Progress

BATCH = 4096  # rows of one transaction: linking them takes about a second
SAMPLE_ROWS = 16_384  # for the training of the code


@dataclass
class Copied:
    """Numbers of rows that a copy added, replaced and skipped."""

    added: int = 0
    replaced: int = 0
    skipped: int = 0


def create_for(
    source: Source,
    path: str | os.PathLike[str],
    *,
    metric: Metric | None = None,
    batch_size: int = BATCH,
    **options: Any,
) -> Collection:
    """Create a collection that fits a source: dimension, kind of ids, fields, and metric (cosine if unknown).

    The vectors are packed bits if the code is :class:`qvec.Prequantized` of a form of bits. If the source has more than
    one batch, the code is trained on a sample of all rows. options: see :func:`qvec.create`.
    """
    chosen = metric or source.metric or "cosine"
    sample = source.sample(SAMPLE_ROWS) if source.rows > batch_size else None
    options = {"ids": source.id_kind or "int64", "fields": source.fields, "sample": sample} | options
    code = make_config(options.get("code", "auto"))
    packed = isinstance(code, Prequantized) and is_bits(code.dtype)
    return create(path, source.dim * 8 if packed else source.dim, metric=chosen, **options)


def add_from(
    db: Collection,
    source: Source,
    *,
    on_conflict: OnConflict = "error",
    batch_size: int = BATCH,
    progress: Progress | bool | None = None,
) -> Copied:
    """Add all rows of a source, with one commit per batch: after an error, the earlier batches are stored.

    Integer ids become strings in a collection with string ids. Without ids, rows are numbered. InputError names the
    source and the batch. progress: called with (done, total) rows; True: show a bar.
    """
    strings, copied, done, report = db.stats().ids == "str", Copied(), 0, as_progress(progress, "import")
    for batch in source.batches(batch_size):
        ids = [str(i) for i in batch.ids] if strings and isinstance(batch.ids, np.ndarray) else batch.ids
        try:
            result = db.add(batch.vectors, ids, batch.payloads, on_conflict=on_conflict)
        except InputError as error:
            where = f"{source.name}, batch that begins at row {done}"
            raise InputError(f"{where}: {error} ({done} rows before it are done)") from error
        copied.added += result.added
        copied.replaced += result.replaced
        copied.skipped += result.skipped
        done += len(batch.vectors)
        if report is not None:
            report(done, source.rows)
    return copied
