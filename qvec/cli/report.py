"""Write one HTML page about a store: contents, sizes, generations of codes, recall curves, drift and latency.

Nothing is written to the store, and the page fetches nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np

import qvec
from qvec.cli.output import print_json
from qvec.common import plots
from qvec.common.console import human_bytes, progress
from qvec.common.tables import as_html, html_table
from qvec.schema.validation import check_count

MAX_QUERIES = 10_000
STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --line: #d9dde5; --paper: #fff; --raised: #f5f6f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ee; --line: #353b49; --paper: #14171e; --raised: #1d212b; }
}
body { margin: 0 auto; padding: 1rem; max-width: 60rem; color: var(--ink); background: var(--paper);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
section { overflow-x: auto; margin: 1.5rem 0; }
table { border-collapse: collapse; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: left; }
td { font-variant-numeric: tabular-nums; }
thead { background: var(--raised); }
@media (max-width: 40rem) { table { font-size: 13px; } th, td { padding: .2rem .3rem; } }
img { display: block; max-width: min(100%, 38rem); height: auto; margin: 1rem 0; }
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: STORE with .html in addition)")
    parser.add_argument(
        "-n", type=int, default=200, metavar="N", help="searches that are timed, of stored rows (default: 200)"
    )
    parser.add_argument("--evaluate", action="store_true", help="also measure every code, as `qvec evaluate` does")
    parser.add_argument("--json", action="store_true", help="print one JSON object: the file and its bytes")


def run(args: argparse.Namespace) -> int:
    n = check_count("-n", args.n, 1, MAX_QUERIES)
    out = args.out or Path(f"{args.store}.html")
    with qvec.open(args.store, mode="r") as db:
        sections = list(page(db, n, args.evaluate))
    title = escape(f"{Path(args.store).name}: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "".join(f"<section>{section}</section>" for section in sections)
    html = f'<!doctype html><html lang="en"><head>{head}<title>{title}</title><style>{STYLE}</style></head>'
    out.write_text(f"{html}<body><h1>{title}</h1>{body}</body></html>\n", "utf-8")
    if args.json:
        print_json({"file": str(out), "bytes": out.stat().st_size})
    else:
        print(f"{out}: {human_bytes(out.stat().st_size)}")
    return 0


def page(db: qvec.Collection, n: int, evaluate: bool) -> Iterator[str]:
    """The sections of the page in HTML."""
    yield _contents(db)
    yield _sizes(db.stats())
    yield _generations(db)
    curves = db.recall_curves()
    yield (
        "<p>No recall curves are stored: <code>qvec tune</code> measures them.</p>"
        if curves is None
        else (as_html(curves))
    )
    yield as_html(db.drift())
    if len(db):
        yield _latency(db, n)
        if evaluate:
            with progress("evaluate", "codes") as report:
                yield as_html(db.evaluate(progress=report))


def _contents(db: qvec.Collection) -> str:
    fields = ", ".join(f"{name}: {kind}" for name, kind in db.fields.items()) or "none"
    rows = [
        ("vectors", f"{len(db):,}"),
        ("dimensions", db.dim),
        ("metric", db.metric),
        ("code", db.code),
        ("index", db.index),
        ("model", db.model or "none"),
        ("fields", fields),
        ("durability", db.durability),
    ]
    return html_table("Contents", ("what", "value"), rows)


def _sizes(stats: qvec.Stats) -> str:
    sizes = {name: getattr(stats, name) for name in stats.__dataclass_fields__ if name.endswith("_bytes")}
    total, count = max(1, sizes["file_bytes"]), max(1, stats.count)
    rows = [
        (name.removesuffix("_bytes"), human_bytes(size), f"{100 * size / total:.1f} %", f"{size / count:,.0f}")
        for name, size in sizes.items()
    ]
    parts = {name.removesuffix("_bytes"): size / 1e6 for name, size in sizes.items() if name != "file_bytes"}
    table = html_table("Sizes", ("part", "bytes", "share", "bytes per vector"), rows)
    return table + plots.as_html(lambda axes: plots.bars(axes, parts, "MB"), "megabytes of each part of the file")


def _generations(db: qvec.Collection) -> str:
    columns = ("number", "code", "code_size", "method", "created", "n_samples", "rows", "active")
    rows = [[_shown(name, getattr(generation, name)) for name in columns] for generation in db.generations()]
    return html_table("Generations of codes", columns, rows)


def _shown(name: str, value: object) -> object:
    return str(value)[: len("2026-12-01T12:00")].replace("T", " ") if name == "created" else value


def _latency(db: qvec.Collection, n: int) -> str:
    """Times of single searches for stored rows, 10 hits each, with the default options."""
    ids = db.ids()
    chosen = np.random.default_rng(0).choice(len(ids), min(n, len(ids)), replace=False)
    queries = db.get([ids[i] for i in chosen.tolist()]).vectors
    db.search(queries[0], include=())
    times = []
    for query in queries:
        began = time.perf_counter()
        db.search(query, include=())
        times.append(1000 * (time.perf_counter() - began))
    rows = [(f"p{q}", f"{np.percentile(times, q):.3f} ms") for q in (50, 90, 99)]
    note = f"{len(times):,} single searches for 10 neighbors of stored rows, default options, one thread"
    plot = plots.as_html(lambda axes: plots.histogram(axes, times, "milliseconds", "searches"), "times of searches")
    return html_table("Latency", ("percentile", "time"), rows, note) + plot
