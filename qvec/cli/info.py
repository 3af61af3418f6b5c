"""Show what a store holds: its shape, its code and index, and the bytes that each part takes."""

from __future__ import annotations

import argparse
import dataclasses
import json

import qvec
from qvec.console import human_bytes, print_table


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="r") as db:
        stats = dataclasses.asdict(db.stats()) | {"fields": dict(db.fields)}
    if args.json:
        print(json.dumps(stats))
    else:
        print_table(args.store, ("what", "value"), [(name, _readable(name, value)) for name, value in stats.items()])
    return 0


def _readable(name: str, value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{field}={kind}" for field, kind in value.items()) or "none"
    if value is None:
        return "none"
    if not isinstance(value, int):
        return str(value)
    return f"{value:,} ({human_bytes(value)})" if name.endswith("_bytes") else f"{value:,}"
