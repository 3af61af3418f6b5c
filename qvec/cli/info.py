"""Show the shape, code and index of a store, and the bytes of each part."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import qvec
from qvec.cli.output import print_json
from qvec.common.console import human_bytes, print_table

PARTS = "_bytes"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument(
        "--graph", action="store_true", help="also the degree and reach of the graph (reads the whole graph)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="r") as db:
        stats = dataclasses.asdict(db.stats(graph=args.graph)) | {"fields": dict(db.fields)}
    if args.json:
        print_json(stats)
        return 0
    facts = {name: value for name, value in stats.items() if not name.endswith(PARTS)}
    print_table(args.store, ("what", "value"), [(name, _readable(stats, name, value)) for name, value in facts.items()])
    sizes = {name.removesuffix(PARTS): value for name, value in stats.items() if name.endswith(PARTS)}
    print_table("", ("part", "bytes", "share", "a vector"), [_size(name, n, stats) for name, n in sizes.items()])
    return 0


def _size(name: str, n: int, stats: dict[str, Any]) -> tuple[str, str, str, str]:
    share, each = 100 * n / max(1, stats["file_bytes"]), n / max(1, stats["count"])
    return name, human_bytes(n), f"{share:.1f} %", f"{each:,.0f}"


def _readable(stats: dict[str, Any], name: str, value: Any) -> str:
    if name == "deleted" and value:
        return f"{value:,} ({100 * value / (value + stats['count']):.1f} % of the rows)"
    if name == "snapshots":
        held = [f"{pin['age']:.0f} s old, {pin['commits_behind']} commits behind" for pin in value]
        return "; ".join(held) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{field}={kind}" for field, kind in value.items()) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
