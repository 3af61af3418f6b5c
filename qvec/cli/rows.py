"""Print stored rows."""

from __future__ import annotations

import argparse
import json

from qvec.cli.output import print_json
from qvec.common.console import print_table
from qvec.common.text_tables import shortened
from qvec.rows.results import Records

SHOWN_VALUES, PAYLOAD_WIDTH = 3, 200  # of a row in a table


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options of `print_rows`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object for each vector, a line each")
    parser.add_argument("--no-vectors", dest="vectors", action="store_false", help="omit vectors")


def print_rows(records: Records, args: argparse.Namespace) -> None:
    """Print ids, payloads and vectors."""
    rows = list(zip(records.ids.tolist(), records.vectors, records.payloads, strict=True))
    if args.json:
        for id, vector, payload in rows:
            print_json({"id": id, **({"vector": vector.tolist()} if args.vectors else {}), "payload": payload})
        return
    cells = []
    for id, vector, payload in rows:
        text = "" if payload is None else json.dumps(payload, ensure_ascii=False, default=str)
        values = ", ".join(f"{value:.4g}" for value in vector[:SHOWN_VALUES])
        dots = ", ..." if len(vector) > SHOWN_VALUES else ""
        cells.append((id, *((f"[{values}{dots}]",) if args.vectors else ()), shortened(text, PAYLOAD_WIDTH)))
    print_table("", ("id", *(("vector",) if args.vectors else ()), "payload"), cells)
