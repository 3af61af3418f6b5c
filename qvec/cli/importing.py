"""Add the vectors of a file to a store, creating the store if it is not there yet.

Files: .npy .npz .fvecs .bvecs .ivecs .fbin .u8bin .i8bin .ibin, and .hdf5 of ann-benchmarks (extra: hdf5).
Ids, payloads and dimensions are checked against the vectors before anything is written. Each batch is one
commit: if the import stops, the batches before are stored.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

import qvec
from qvec.console import human_bytes, progress
from qvec.datasets import hdf5_metric, load_ids, load_payload, load_vectors
from qvec.datasets.sidecars import Ids, Payload
from qvec.datasets.vectors import HDF5_SUFFIXES
from qvec.errors import InputError
from qvec.types import MAX_DIM, CodeKind, Metric, OnConflict

BATCH, MAX_BATCH = 8192, 1 << 20
SAMPLE = 16_384  # rows; ranges and means are known well from far fewer
NEW_STORE = ("metric", "code", "index")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", type=Path, help="the store's file")
    parser.add_argument("file", metavar="FILE", type=Path, help="the vectors, one row each")
    new = parser.add_argument_group("for a new store (an existing one keeps what it has)")
    new.add_argument("--metric", choices=get_args(Metric), help="default: the HDF5 file's own, else cosine")
    new.add_argument("--code", choices=("auto", *get_args(CodeKind)), help="how vectors are coded (default: auto)")
    new.add_argument("--index", choices=("auto", "flat", "hnsw", "ivf"), help="how they are searched (default: auto)")
    rows = parser.add_argument_group("rows")
    rows.add_argument("--dim", type=_dim, default="auto", metavar="N", help="stop unless vectors have N dimensions")
    rows.add_argument("--key", metavar="NAME", help="array of an .npz or .hdf5 file (default: train, or the only one)")
    rows.add_argument("--ids", metavar="FILE", type=Path, help="an id a row: .npy, or text with one a line")
    rows.add_argument("--payload", metavar="FILE", type=Path, help="a JSON object or null a row: .jsonl, .jsonl.gz")
    rows.add_argument(
        "--on-conflict",
        choices=get_args(OnConflict),
        default="error",
        help="what to do with an id that is stored already (default: error)",
    )
    rows.add_argument(
        "--batch",
        type=_batch,
        default=BATCH,
        metavar="N",
        help=f"rows of one commit, 1 to {MAX_BATCH} (default: {BATCH})",
    )


def run(args: argparse.Namespace) -> int:
    rows = _read(args)
    existed = args.store.exists()
    start = time.perf_counter()
    try:
        with _opened(args) if existed else _created(args, rows) as db:
            result = _add(db, args, rows)
            count, size = len(db), db.stats().file_bytes
    except BaseException:
        if not existed:
            _remove_if_empty(args.store)
        raise
    seconds = time.perf_counter() - start
    done = f"{result.added:,} added, {result.replaced:,} replaced, {result.skipped:,} skipped in {seconds:.1f} s"
    print(f"{args.store}: {done}; it holds {count:,} vectors in {human_bytes(size)}")
    return 0


@dataclass(frozen=True)
class _Rows:
    """What is imported: a vector, and maybe an id and a payload, for each row."""

    vectors: NDArray[Any]
    ids: Ids | None
    payload: list[Payload | None] | None


@dataclass
class _Result:
    added: int = 0
    replaced: int = 0
    skipped: int = 0


def _read(args: argparse.Namespace) -> _Rows:
    vectors = load_vectors(args.file, args.key)
    n, dim = vectors.shape
    if args.dim not in ("auto", dim):
        raise InputError(f"{args.file} has vectors of dimension {dim}; --dim says {args.dim}")
    ids = load_ids(args.ids) if args.ids else None
    payload = load_payload(args.payload) if args.payload else None
    for path, column in ((args.ids, ids), (args.payload, payload)):
        if column is not None and len(column) != n:
            raise InputError(f"{path} has {len(column)} rows, {args.file} has {n}")
    return _Rows(vectors, ids, payload)


def _created(args: argparse.Namespace, rows: _Rows) -> qvec.Collection:
    metric = args.metric or (hdf5_metric(args.file) if args.file.suffix in HDF5_SUFFIXES else "cosine")
    return qvec.create(
        args.store,
        rows.vectors.shape[1],
        metric=metric,
        code=args.code or "auto",
        index=args.index or "auto",
        ids="str" if isinstance(rows.ids, list) else "int64",
        sample=_sample(rows.vectors, args.batch),
    )


def _sample(vectors: NDArray[Any], batch: int) -> NDArray[np.float32] | None:
    """Rows from the whole file to train the code on; None where the first batch is the whole file."""
    if len(vectors) <= batch:
        return None
    rows = np.linspace(0, len(vectors) - 1, min(SAMPLE, len(vectors))).astype(np.int64)
    return np.asarray(vectors[rows], np.float32)


def _opened(args: argparse.Namespace) -> qvec.Collection:
    db = qvec.open(args.store, mode="rw")
    stats = db.stats()
    for name in NEW_STORE:
        asked, stored = getattr(args, name), getattr(stats, name)
        if asked not in (None, "auto", stored):
            db.close()
            raise InputError(f"{args.store} has {name} {stored}; --{name} {asked} is for a new store")
    return db


def _add(db: qvec.Collection, args: argparse.Namespace, rows: _Rows) -> _Result:
    ids = rows.ids
    if isinstance(ids, np.ndarray) and db.stats().ids == "str":
        ids = [str(value) for value in ids]
    result, total = _Result(), len(rows.vectors)
    with progress(f"importing {args.file.name}", "vectors") as report:
        for start in range(0, total, args.batch):
            batch = slice(start, start + args.batch)
            try:
                added = db.add(
                    np.asarray(rows.vectors[batch], np.float32),
                    None if ids is None else ids[batch],
                    None if rows.payload is None else rows.payload[batch],
                    on_conflict=args.on_conflict,
                )
            except InputError as error:
                where = f"{args.file}, batch that begins at row {start}"
                raise InputError(f"{where}: {error} ({start} rows before it are done)") from error
            result.added += added.added
            result.replaced += added.replaced
            result.skipped += added.skipped
            report(min(start + args.batch, total), total)
    return result


def _remove_if_empty(store: Path) -> None:
    """Leave nothing of a store that this import made and could put nothing into."""
    if not store.exists():
        return
    with qvec.open(store, mode="r") as db:
        empty = len(db) == 0
    if empty:
        store.unlink()
        Path(f"{store}-lock").unlink(missing_ok=True)


def _dim(text: str) -> int | str:
    return text if text == "auto" else _between(text, 1, MAX_DIM)


def _batch(text: str) -> int:
    return _between(text, 1, MAX_BATCH)


def _between(text: str, low: int, high: int) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is no integer from {low} to {high}")
    return int(text)
