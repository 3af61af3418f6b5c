"""Find the best code, index, layout and effort that reach a recall on the stored vectors; with --apply, build them.

Exit code 1: nothing meets the target.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import qvec
from qvec.cli.evaluate import add_measuring, measuring
from qvec.cli.output import print_json
from qvec.cli.writing import add_timeout
from qvec.common.console import human_bytes, print_table, print_text, progress
from qvec.quality.choose import Choice
from qvec.quality.combinations import HEADINGS as COMBINATION_HEADINGS
from qvec.quality.combinations import IndexChoice

SPEED_QUERIES, WARM_UP = 200, 10


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--recall", type=float, default=0.95, metavar="R", help="recall to reach (default: 0.95)")
    parser.add_argument("--max-bytes", type=int, metavar="N", help="largest size of a code in bytes")
    parser.add_argument(
        "--max-p99-ms", type=float, metavar="MS", help="largest 99th percentile of the latency of a search"
    )
    parser.add_argument(
        "--indexes",
        metavar="LIST",
        help="indexes to compare, separated by commas; all; or current: choose a code for the index as it is "
        "(default: all with a limit, else current)",
    )
    parser.add_argument(
        "--minimize",
        choices=("time", "bytes"),
        help="what the best has least of (default: time, or bytes if --max-p99-ms is the only limit)",
    )
    add_measuring(parser, None)
    parser.add_argument("--apply", action="store_true", help="build what was found and make it active")
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="rw" if args.apply else "r", timeout=args.timeout) as db:
        with progress("measuring", "codes") as report:
            options = measuring(args) | {"max_bytes": args.max_bytes, "max_p99_ms": args.max_p99_ms}
            indexes = args.indexes if args.indexes in (None, "all", "current") else args.indexes.split(",")
            choice = db.choose(args.recall, **options, indexes=indexes, minimize=args.minimize, progress=report)
        found = _found(choice)
        if not args.json:
            _print_measured(choice)
            print_text(str(choice))
        if args.apply and choice.met:
            before = _measured(db)
            with progress("requantizing", "rows") as report:
                made = choice.apply(report)
            after, old = _measured(db), [each.number for each in db.generations() if not each.active]
            found |= {"generation": made.number, "before": before, "after": after, "old_generations": old}
            if not args.json:
                _print_change(args.store, found)
    if args.json:
        print_json(found)
    return 0 if choice.met else 1


def _found(choice: Choice | IndexChoice) -> dict[str, Any]:
    """What was measured and chosen, as plain data."""
    if isinstance(choice, IndexChoice):
        best = choice.best
        chosen = None if best is None else {"code": best.code, "index": best.index, **best.effort._asdict()}
        return {"met": choice.met, "chosen": chosen, "measured": choice.to_dicts(), "skipped": choice.skipped}
    row = choice.row
    chosen = None if row is None else {"code": row.code, "oversample": row.oversample}
    return {"met": choice.met, "chosen": chosen, "measured": choice.report.to_dicts()}


def _print_measured(choice: Choice | IndexChoice) -> None:
    if isinstance(choice, IndexChoice):
        print_table(choice.title, COMBINATION_HEADINGS, choice.cells())
        for name, reason in choice.skipped.items():
            print_text(f"{name}: not measured: {reason}")
    else:
        choice.report.show()


def _measured(db: qvec.Collection) -> dict[str, Any]:
    """The bytes and the speed of the active code. Speed: single searches for stored vectors, on one thread."""
    stats = db.stats()
    queries = db.get(where={}, limit=SPEED_QUERIES).vectors
    for query in queries[:WARM_UP]:  # the first searches read the file
        db.search(query, include=())
    start = time.perf_counter()
    for query in queries:
        db.search(query, include=())
    seconds = (time.perf_counter() - start) / max(1, len(queries))
    return {
        "code": stats.code,
        "code_bytes": round(stats.codes_bytes / max(1, stats.count)),
        "file_bytes": stats.file_bytes,
        "search_ms": round(1000 * seconds, 4),
    }


def _print_change(store: str, found: dict[str, Any]) -> None:
    before, after = found["before"], found["after"]
    print_table(
        f"generation {found['generation']} is active",
        ("", "before", "after"),
        [
            ("code", before["code"], after["code"]),
            ("bytes of a code", before["code_bytes"], after["code_bytes"]),
            ("file", human_bytes(before["file_bytes"]), human_bytes(after["file_bytes"])),
            ("ms of a search", f"{before['search_ms']:.3f}", f"{after['search_ms']:.3f}"),
        ],
    )
    if found["old_generations"]:
        print("the old codes are still stored; to free them:")
        for number in found["old_generations"]:
            print(f"  qvec generations {store} --drop {number}")
        print(f"  qvec compact {store}")
