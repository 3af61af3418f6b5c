"""Embed every stored text again with another model (of sentence-transformers or fastembed), and use its vectors.

Searches and writes continue during the call. Calling again continues an interrupted call. The replaced collection stays
next to STORE, as STORE.previous, until --discard.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import qvec
from qvec.cli.serving import embedder
from qvec.cli.writing import add_timeout
from qvec.common.console import progress
from qvec.common.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument(
        "--embed", metavar="LIBRARY:NAME", help="the model: sentence-transformers:NAME or fastembed:NAME"
    )
    parser.add_argument(
        "--field", metavar="NAME", help="the payload key of the texts (default: the text field, or text)"
    )
    parser.add_argument("--skip-missing", action="store_true", help="leave out vectors without a text")
    parser.add_argument("--batch", type=int, default=256, metavar="N", help="texts embedded at a time (default: 256)")
    parser.add_argument("--restart", action="store_true", help="discard what an interrupted call has done")
    parser.add_argument("--undo", action="store_true", help="switch back to the replaced collection")
    parser.add_argument("--discard", action="store_true", help="remove the replaced or unfinished collection")
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    if args.undo and args.discard:
        raise InputError("give --undo or --discard")
    function = embedder(args.embed)
    if function is None and not (args.undo or args.discard):
        raise InputError("give the new model as --embed")
    with qvec.open(args.store, timeout=args.timeout) as db:
        if args.discard:
            done: dict[str, Any] = {"discarded": db.discard_reembed()}
            text = "the other collection was removed" if done["discarded"] else "there is no other collection"
        else:
            _change(db, function, args)
            done = {"dim": db.dim, "model": db.model, "count": len(db)}
            text = f"{len(db):,} vectors of {db.dim} dimensions, model {db.model}"
    print(json.dumps(done) if args.json else text)
    return 0


def _change(db: qvec.Collection, function: Any, args: argparse.Namespace) -> None:
    if args.undo:
        db.undo_reembed(function)
        return
    dim = len(function(["dimension"])[0])
    missing: Any = "skip" if args.skip_missing else "error"
    with progress("re-embedding", "rows") as report:
        db.reembed(
            function,
            dim=dim,
            field=args.field,
            missing=missing,
            batch=args.batch,
            restart=args.restart,
            progress=report,
        )
