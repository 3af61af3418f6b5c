"""Add the vectors of a file, or of another vector store, to a store; create the store if it does not exist.

Files: .npy .npz .fvecs .bvecs .ivecs .fbin .u8bin .i8bin .ibin, and .hdf5 of ann-benchmarks (extra: hdf5), with ids and
payloads in separate files; .jsonl and .csv, with vectors, ids and payloads together; .parquet and .arrow (extra:
arrow), whose other columns are the payload. Other stores: .faiss index files (extra: faiss), hnswlib's (--format
hnswlib), Chroma's and LanceDB's directories (extras: chroma, lancedb). Each batch is one commit: if the import stops,
the earlier batches are stored.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, get_args

import qvec
from qvec.cli.codes import as_code
from qvec.cli.output import print_json
from qvec.cli.stdin import as_file
from qvec.cli.writing import add_timeout
from qvec.codes.configs import HNSW
from qvec.common.console import human_bytes, progress
from qvec.common.errors import InputError
from qvec.common.types import MAX_DIM, Metric, OnConflict
from qvec.datasets.text_files import CSV_SUFFIXES
from qvec.interchange import Source, SourceFormat, add_from, create_for, open_source
from qvec.interchange.copying import BATCH

MAX_BATCH = 1 << 20
NEW_STORE = ("metric", "code", "index", "originals", "model")
INDEXES = ("auto", "flat", "hnsw", "packed", "ivf")
ORIGINALS = ("f32", "f16", "none")  # a file has one form of its vectors
READING = ("key", "ids", "payloads", "vector", "id", "payload", "columns", "skip", "table", "document")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", type=Path, help="the store's file")
    parser.add_argument("file", metavar="FILE", type=Path, help="the rows, or a directory; - for standard input")
    formats = get_args(SourceFormat)
    parser.add_argument(
        "--format",
        choices=formats,
        metavar="NAME",
        help=f"the format of FILE: {', '.join(formats)} (default: by its suffix)",
    )
    new = parser.add_argument_group("for a new store")
    new.add_argument("--metric", metavar="|".join(get_args(Metric)), help="default: that of FILE, else cosine")
    new.add_argument(
        "--code",
        metavar="NAME",
        help="the code of vectors, such as int8, rabitq4, or one with options: mixed:bits=2.5; of embeddings that come "
        "as integers or packed bits: prequantized:dtype=int8, uint8, binary or ubinary (default: auto)",
    )
    new.add_argument("--index", choices=INDEXES, help="the index (default: auto)")
    new.add_argument("--originals", choices=ORIGINALS, help="how to store vectors themselves (default: f32)")
    new.add_argument("--model", metavar="NAME", help="a tag of the embedding model")
    new.add_argument(
        "--field",
        action="append",
        type=_field,
        default=[],
        metavar="NAME=TYPE",
        help="a payload field to filter by: keyword, int, float, bool, datetime, or a list as keyword[]; repeatable",
    )
    new.add_argument(
        "--text-field",
        action="append",
        type=_text_field,
        default=[],
        metavar="NAME[=STEMMER]",
        help="a payload field to search for words, for example body or body=english (extra: text); repeatable",
    )
    new.add_argument("--expires", metavar="FIELD", help="the datetime field with the times at which vectors expire")
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print the numbers of rows as one JSON object")
    rows = parser.add_argument_group("rows")
    rows.add_argument("--dim", type=_dim, default="auto", metavar="N", help="fail unless vectors have N dimensions")
    rows.add_argument("--key", metavar="NAME", help="array of an .npz or .hdf5 file (default: train, or the only one)")
    rows.add_argument(
        "--ids", metavar="FILE", type=Path, help="an id for each row: .npy, .jsonl, or text with one on each line"
    )
    rows.add_argument(
        "--payloads",
        metavar="FILE",
        help="a JSON object or null for each row: .jsonl, .jsonl.gz",
    )
    rows.add_argument("--vector", metavar="COLUMN", help="a table's column of vectors (default: the only one)")
    rows.add_argument("--id", metavar="COLUMN", help="a table's column of ids (default: id, if there is one)")
    rows.add_argument("--payload", metavar="COLUMN", help="a table's column of JSON objects")
    rows.add_argument("--columns", metavar="LIST", type=_names, help="payload columns to read, separated by commas")
    rows.add_argument("--skip", metavar="LIST", type=_names, help="columns to leave out, separated by commas")
    rows.add_argument("--document", metavar="KEY", help="the payload key of Chroma's documents (default: document)")
    rows.add_argument("--table", metavar="NAME", help="the table or collection of a directory (default: the only one)")
    rows.add_argument(
        "--on-conflict",
        choices=get_args(OnConflict),
        default="error",
        help="for an id that is already stored (default: error)",
    )
    rows.add_argument(
        "--batch",
        type=_batch,
        default=BATCH,
        metavar="N",
        help=f"rows of one commit, 1 to {MAX_BATCH} (default: {BATCH})",
    )


def run(args: argparse.Namespace) -> int:
    with as_file(args.file, args.format or "jsonl") as file:
        return import_rows(args, file)


def import_rows(args: argparse.Namespace, file: Path) -> int:
    """Add the rows of a file."""
    options = {name: getattr(args, name) for name in READING}
    if args.format == "csv" or (args.format is None and file.suffix.lower() in CSV_SUFFIXES):
        options["types"] = dict(args.field) or None
    source = open_source(file, args.format, **options)
    if args.dim not in ("auto", source.dim):
        raise InputError(f"{args.file} has vectors of dimension {source.dim}; --dim says {args.dim}")
    existed = args.store.exists()
    start = time.perf_counter()
    try:
        with _opened(args) if existed else _created(args, source) as db:
            with progress(f"importing {args.file.name}", "vectors") as report:
                copied = add_from(db, source, on_conflict=args.on_conflict, batch_size=args.batch, progress=report)
            count, size = len(db), db.stats().file_bytes
    except BaseException:
        if not existed:
            _remove_if_empty(args.store)
        raise
    seconds = time.perf_counter() - start
    if source.note:
        print(f"qvec: note: {source.note}", file=sys.stderr)
    done = f"{copied.added:,} added, {copied.replaced:,} replaced, {copied.skipped:,} skipped in {seconds:.1f} s"
    if args.json:
        numbers = {"added": copied.added, "replaced": copied.replaced, "skipped": copied.skipped}
        print_json({"store": str(args.store), **numbers, "count": count, "bytes": size, "seconds": seconds})
    else:
        print(f"{args.store}: {done}; now {count:,} vectors in {human_bytes(size)}")
    return 0


def _created(args: argparse.Namespace, source: Source) -> qvec.Collection:
    index = HNSW(layout="packed") if args.index == "packed" else args.index or "auto"
    fields = {**source.fields, **dict(args.field), **dict(args.text_field)}
    options: dict[str, Any] = {"index": index, "fields": fields, "timeout": args.timeout}
    options |= {name: getattr(args, name) for name in ("originals", "model", "expires") if getattr(args, name)}
    if args.code is not None:
        options["code"] = as_code(args.code)
    return create_for(source, args.store, metric=args.metric, batch_size=args.batch, **options)


def _opened(args: argparse.Namespace) -> qvec.Collection:
    db = qvec.open(args.store, mode="rw", timeout=args.timeout)
    stats = db.stats()
    for name in NEW_STORE:
        asked, stored = getattr(args, name), getattr(stats, name)
        asked = "hnsw" if asked == "packed" else asked
        if name == "code" and asked is not None and ":" in asked:
            db.close()
            raise InputError(f"{args.store} exists; the options of --code {asked} are for a new store")
        if asked not in (None, "auto", stored):
            db.close()
            raise InputError(f"{args.store} has {name} {stored}; --{name} {asked} is for a new store")
    if args.expires is not None:
        db.close()
        raise InputError(f"{args.store} exists; --expires is for a new store")
    for name, kind in args.field:
        if db.fields.get(name) != kind:
            db.close()
            raise InputError(f"{args.store} has no field {name} of type {kind}; --field is for a new store")
    for name, _ in args.text_field:
        if db.fields.get(name) != "text":
            db.close()
            raise InputError(f"{args.store} has no text field {name}; --text-field is for a new store")
    return db


def _names(text: str) -> list[str]:
    return text.split(",")


def _field(text: str) -> tuple[str, str]:
    name, equals, kind = text.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=TYPE")
    return name, kind


def _text_field(text: str) -> tuple[str, qvec.Text]:
    name, _, stemmer = text.partition("=")
    return name, qvec.Text(stemmer=stemmer or None)


def _remove_if_empty(store: Path) -> None:
    """Remove a store that this import created, if it is empty."""
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
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from {low} to {high}")
    return int(text)
