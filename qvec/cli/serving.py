"""Serve a store to agents by the Model Context Protocol, over standard input and output (extra: mcp).

Tools: describe, search, get, count, facets, add and delete. Any number of servers and other processes can use a store
at the same time. With --embed, texts are embedded: sentence-transformers:NAME or fastembed:NAME.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import qvec
from qvec.common.errors import InputError
from qvec.common.extras import require

TIMEOUT = 60.0  # seconds that a call waits for other writers
EMBEDDERS = {"sentence-transformers": "SentenceTransformerEmbedder", "fastembed": "FastEmbedEmbedder"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--read-only", action="store_true", help="without add and delete")
    parser.add_argument("--embed", metavar="LIBRARY:NAME", help="the model that embeds texts")
    parser.add_argument("--memory", default="mmap", metavar="MODE", help="mmap, index, ram, or a budget in bytes")
    parser.add_argument("--max-results", type=int, default=100, metavar="N", help="records of a result (default: 100)")
    parser.add_argument("--max-rows", type=int, default=1000, metavar="N", help="records of an add (default: 1000)")
    parser.add_argument("--max-bytes", type=int, default=1 << 20, metavar="N", help="of a result (default: 1048576)")
    parser.add_argument("--json", action="store_true", help="print the names of the tools as JSON, and serve nothing")


def run(args: argparse.Namespace) -> int:
    require("mcp")
    from qvec.integrations.mcp import READING, WRITING, Limits, make_server  # late: it needs the extra

    limits = Limits(args.max_results, args.max_rows, args.max_bytes)
    mode: Any = "r" if args.read_only else "rw"
    memory: Any = int(args.memory) if args.memory.isdecimal() else args.memory
    with qvec.open(args.store, mode, memory=memory, timeout=TIMEOUT, embed=embedder(args.embed)) as db:
        if args.json:
            names = READING if args.read_only else (*READING, *WRITING)
            print(json.dumps({"store": args.store, "tools": list(names)}))
            return 0
        make_server(db, read_only=args.read_only, limits=limits).run("stdio")
    return 0


def embedder(text: str | None) -> Any:
    """The function that ``--embed`` names."""
    if text is None:
        return None
    library, colon, name = text.partition(":")
    if not (colon and name and library in EMBEDDERS):
        raise InputError(f"--embed is LIBRARY:NAME with one of the libraries {', '.join(EMBEDDERS)}; got {text!r}")
    from qvec.integrations import embedders

    return getattr(embedders, EMBEDDERS[library])(name)
