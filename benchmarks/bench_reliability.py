"""The reliability suite (docs/reliability.md): kills, power cuts, damages, crafted files, full disks, forks.

    python benchmarks/bench_reliability.py [R1 R4 ...] [--scale short|nightly] [--out FILE] [--folder DIR] [--seed N]
    python benchmarks/bench_reliability.py R1 --only requantize --rounds 200

Runs all numbers (the short form without R17, the sanitizers), or those named, and prints a line for each; adds a JSON
line for each to FILE (default: benchmarks/results/reliability.jsonl). Exit code 1 where any fails. ``--only`` and
``--rounds`` choose workloads and how much of each is done (kills, images, files, cycles, seconds: what it counts).
"""

from __future__ import annotations

import argparse
import platform
import random
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lmdb  # noqa: TID251 - its version is a fact of the run
from rich.console import Console
from rich.table import Table

import qvec
from qvec import _kernels

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "reliability"), str(ROOT / "tests")]

import suite  # noqa: E402
from figures import Figures, Job  # noqa: E402


def facts(args: argparse.Namespace) -> dict[str, Any]:
    """The conditions of the measurement."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "scale": args.scale,
        "only": args.only,
        "rounds": args.rounds,
        "seed": args.seed,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "qvec": qvec.__version__,
        "commit": commit.stdout.strip(),
        "lmdb": ".".join(map(str, lmdb.version())),
        "py-lmdb": lmdb.__version__,
        "simd": _kernels.simd_level(),
        "machine": platform.platform(),
    }


def shown(figures: Figures) -> list[str]:
    """A line of the table."""
    amounts = ", ".join(
        f"{name} {count}"
        for name, count in figures.amounts.items()
        if not name.startswith(("usual, ", "untrusted, ", "seconds"))
    )
    failed = figures.amounts.get("failures", len(figures.failures))
    return [
        figures.name,
        figures.what,
        amounts,
        f"{figures.amounts['seconds']:.0f}",
        str(failed),
        "FAIL" if failed else "pass",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="R", help=f"of {' '.join(suite.NAMES)}; default: all")
    parser.add_argument("--scale", choices=("short", "nightly"), default="short")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "reliability.jsonl")
    parser.add_argument("--folder", help="where files are made and damaged; default: the system's for temporary files")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--only", nargs="+", default=[], metavar="WORKLOAD", help="of the numbers named")
    parser.add_argument("--rounds", type=int, help="of each workload, in place of what --scale says")
    args = parser.parse_args()
    if args.only and not args.names:
        parser.error("--only needs the number whose workloads these are")
    if unknown := set(args.names) - set(suite.NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    console, table, failed = Console(), Table("", "what", "amount", "s", "failures", ""), 0
    for name in args.names or suite.names(args.scale):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            job = Job(args.scale, Path(folder), args.seed, tuple(args.only), args.rounds)
            figures = suite.run(name, job)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        figures.write(args.out, **facts(args))
        table.add_row(*shown(figures))
        console.print(" ".join(shown(figures)), style="red" if figures.failures else None, markup=False)
        for text in figures.failures[:5]:
            console.print(f"    {text[:500]}", markup=False)
        failed += bool(figures.failures)
    console.print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
