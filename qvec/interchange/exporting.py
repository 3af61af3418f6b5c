"""Export of a collection's rows to files that other programs read, in bounded memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from qvec.collection.collection import Collection
from qvec.common.console import as_progress
from qvec.common.errors import InputError
from qvec.common.extras import require
from qvec.common.tables import REST, PayloadColumns, arrow_type, payload_arrays, to_json, vector_array
from qvec.common.types import Where, check_choice
from qvec.interchange.arrow import FIELDS, MARK
from qvec.interchange.sources import IPC_SUFFIXES, PARQUET_SUFFIXES
from qvec.interchange.staging import LinesWriter, NpyWriter, Staging
from qvec.rows.results import Records

if TYPE_CHECKING:
    from qvec.index import Progress

ExportFormat = Literal["npy", "parquet", "arrow"]
BATCH = 8192  # rows read at a time; also rows of a Parquet row group
_BY_SUFFIX: dict[str, ExportFormat] = {
    ".npy": "npy",
    **dict.fromkeys(PARQUET_SUFFIXES, "parquet"),
    **dict.fromkeys(IPC_SUFFIXES, "arrow"),
}


@dataclass(frozen=True)
class Exported:
    """``rows``: number written. ``files``: the file of vectors first."""

    rows: int
    files: list[Path]


def export(
    db: Collection,
    path: str | os.PathLike[str],
    format: ExportFormat | None = None,
    *,
    where: Where | None = None,
    payloads: bool = True,
    overwrite: bool = False,
    batch_size: int = BATCH,
    progress: Progress | bool | None = None,
) -> Exported:
    """Write all stored rows in row order, as :meth:`Collection.get` returns them.

    format: default, determined by the suffix. ``"parquet"`` (.parquet .pq) and ``"arrow"`` (.arrow .feather; the IPC
    file format) need the extra ``arrow``. They have the columns ``id``, ``vector`` (lists of ``dim`` float32), one for
    each payload key whose values have one type, and ``payload`` with the remaining keys as JSON. ``"npy"`` writes the
    vectors, float32 [n, dim], the ids to ``NAME.ids.npy`` (integers) or ``NAME.ids.jsonl`` (strings), and payloads, if
    there are any, to ``NAME.payload.jsonl``.
    where: only rows matching a filter. payloads: whether to write payloads. progress: called with (done, total) rows;
    True: show a bar.

    Raises ExistsError unless ``overwrite``; InputError if the suffix is unknown, or the format cannot represent a
    payload; MissingExtraError. Files appear once they are complete; after an error there are none.
    """
    target = Path(path)
    chosen = _format_of(target) if format is None else format
    check_choice("format", chosen, get_args(ExportFormat))
    rows = _Rows(db, where, payloads, batch_size, as_progress(progress, "export"))
    with Staging(overwrite) as staging:
        _WRITERS[chosen](rows, target, staging)
    return Exported(rows.done, staging.files)


@dataclass
class _Rows:
    """The rows to export; counts those that are done."""

    db: Collection
    where: Where | None
    payloads: bool
    batch_size: int
    progress: Progress | None
    done: int = 0

    def __iter__(self) -> Iterator[Records]:
        total = len(self.db)
        for records in self.db.scan(self.batch_size, where=self.where):
            yield records
            self.done += len(records.ids)
            if self.progress is not None:
                self.progress(self.done, max(total, self.done))

    def columns(self) -> PayloadColumns:
        """Find the columns that the payloads need."""
        columns = PayloadColumns()
        for records in self.db.scan(self.batch_size, where=self.where) if self.payloads else ():
            columns.observe(records.payloads)
        return columns


def _write_npy(rows: _Rows, target: Path, staging: Staging) -> None:
    like = rows.db.get([])
    ints = like.ids.dtype != object
    payload_target, any_payload = target.with_suffix(".payload.jsonl"), False
    with (
        staging.part(target).open("wb") as vectors_file,
        staging.part(target.with_suffix(".ids.npy" if ints else ".ids.jsonl")).open("wb") as ids_file,
        staging.part(payload_target).open("w", encoding="utf-8") as payload_file,
    ):
        vectors = NpyWriter(vectors_file, like.vectors)
        ids = NpyWriter(ids_file, like.ids) if ints else LinesWriter(ids_file)
        for records in rows:
            vectors.append(records.vectors)
            ids.append(records.ids)
            if rows.payloads:
                lines = zip(records.ids.tolist(), records.payloads, strict=True)
                payload_file.writelines(to_json(*line) + "\n" for line in lines)
                any_payload = any_payload or any(value is not None for value in records.payloads)
        vectors.finish()
        ids.finish()
    if not any_payload:
        staging.drop(payload_target)


def _write_parquet(rows: _Rows, target: Path, staging: Staging) -> None:
    _write_arrow(rows, staging.part(target), require("pyarrow.parquet").ParquetWriter)


def _write_ipc(rows: _Rows, target: Path, staging: Staging) -> None:
    _write_arrow(rows, staging.part(target), require("pyarrow.ipc").new_file)


_WRITERS: dict[str, Callable[[_Rows, Path, Staging], None]] = {
    "npy": _write_npy,
    "parquet": _write_parquet,
    "arrow": _write_ipc,
}


def _write_arrow(rows: _Rows, file: Path, writer: Callable[[str, Any], Any]) -> None:
    pa = require("pyarrow")
    kinds = rows.columns().kinds(("id", "vector"))
    schema = _schema(rows, kinds)
    with writer(str(file), schema) as out:
        for records in rows:
            ids = records.ids.tolist()
            columns = {"id": pa.array(ids, schema.field("id").type), "vector": vector_array(records.vectors)}
            if rows.payloads:
                columns |= payload_arrays(ids, records.payloads, kinds)
            out.write_batch(pa.record_batch(columns, schema=schema))


def _schema(rows: _Rows, kinds: dict[str, str]) -> Any:
    from qvec.filters.schema import to_plain_declared

    pa = require("pyarrow")
    like = rows.db.get([])
    ids = pa.string() if like.ids.dtype == object else pa.int64()
    fields = {"id": ids, "vector": vector_array(like.vectors).type}
    if rows.payloads:
        fields |= {key: arrow_type(kind) for key, kind in kinds.items()} | {REST: pa.string()}
    fields_of = rows.db.declarations.items() if rows.payloads else ()
    declared = json.dumps({name: to_plain_declared(kind) for name, kind in fields_of})
    return pa.schema(list(fields.items()), metadata={MARK: rows.db.stats().metric, FIELDS: declared})


def _format_of(path: Path) -> ExportFormat:
    suffix = path.suffix.lower()
    if suffix not in _BY_SUFFIX:
        raise InputError(f"{path}: unknown suffix {path.suffix!r}; exports are {' '.join(_BY_SUFFIX)}")
    return _BY_SUFFIX[suffix]
