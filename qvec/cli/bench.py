"""Measure qvec's codes and indexes together with installed peers.

DATASET is "demo", an .hdf5 file of ann-benchmarks, a folder with base.*, queries.* and optionally gt.* and meta.json,
or a file of vectors with --queries. Each contestant builds and searches in a separate process. At each point of the
sweep, the contestants run one after the other. True neighbors are computed if the data contains none. With --text,
DATASET is a folder with passages.jsonl.gz and queries.jsonl, and full-text search is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from qvec import bench
from qvec.bench.contestants import PEERS, number
from qvec.bench.html import write_report
from qvec.bench.plot import plot_bytes, plot_recall
from qvec.bench.table import print_points, print_summary, print_texts
from qvec.bench.text import load_texts, run_text
from qvec.bench.text_contestants import PEERS as TEXT_PEERS
from qvec.cli.output import print_json
from qvec.common.console import progress
from qvec.common.errors import InputError, MissingExtraError
from qvec.common.types import Metric
from qvec.datasets import Workload, grow, load_workload, with_noise
from qvec.demo.corpus import demo_workload


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="file, folder, or demo")
    parser.add_argument(
        "--text", action="store_true", help=f"measure full-text search; peers are {', '.join(TEXT_PEERS)}"
    )
    data = parser.add_argument_group("data")
    data.add_argument("--queries", type=Path, metavar="FILE", help="query vectors, in place of the data's own")
    data.add_argument("--truth", type=Path, metavar="FILE", help="rows of the exact neighbors of each query")
    data.add_argument("--metric", choices=get_args(Metric), help="in place of the data's own")
    data.add_argument("--rows", type=int, metavar="N", help="take the first N vectors")
    data.add_argument("--max-queries", type=int, metavar="N", help="take the first N queries")
    data.add_argument(
        "--noise",
        type=float,
        metavar="R",
        help="add Gaussian noise of R times their length to the queries, which are then unlike the vectors",
    )
    data.add_argument("--grow", type=int, metavar="N", help="measure on N mixtures of the vectors, kept in --out")
    who = parser.add_argument_group("contestants (options of one: NAME:key=value,key=value)")
    who.add_argument("--codes", nargs="*", default=["int8"], metavar="CODE", help="codes of qvec (default: int8)")
    who.add_argument(
        "--indexes", nargs="*", default=["hnsw"], metavar="INDEX", help="flat, hnsw, packed, ivf (default: hnsw)"
    )
    who.add_argument(
        "--peers",
        nargs="*",
        default=["all"],
        metavar="PEER",
        help=f"{', '.join(PEERS)}, the first part of some, module:Class, or all (default: all that are installed)",
    )
    how = parser.add_argument_group("measuring")
    how.add_argument("-k", "--k", type=int, default=10, metavar="N", help="neighbors of each query (default: 10)")
    how.add_argument("--threads", type=int, default=2, metavar="N", help="threads of a build (default: 2)")
    how.add_argument("--batch-threads", type=int, default=1, metavar="N", help="threads of a batch (default: 1)")
    how.add_argument("--rounds", type=int, default=3, metavar="N", help="trials at each point (default: 3)")
    how.add_argument(
        "--recall",
        nargs="+",
        type=float,
        default=list(bench.TARGETS),
        metavar="R",
        help="recalls to compare queries/s at (default: 0.9 0.95 0.98 0.99)",
    )
    how.add_argument(
        "--sweep", nargs="*", default=[], metavar="NAME=V,V", help="values of a search parameter: ef=16,32,64"
    )
    how.add_argument("--trial-seconds", type=float, default=10.0, metavar="S", help="end a trial after S seconds")
    how.add_argument("--build-timeout", type=float, default=7200.0, metavar="S", help="stop a build after S seconds")
    how.add_argument("--trial-timeout", type=float, default=300.0, metavar="S", help="stop a trial after S seconds")
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=Path, metavar="DIR", help="write points.jsonl, report.html and plots here")
    out.add_argument("--json", action="store_true", help="print one JSON object, and no tables")
    out.add_argument("--points", action="store_true", help="print every point, too")


def run(args: argparse.Namespace) -> int:
    if args.text:
        return run_texts(args)
    settings = bench.Settings(
        k=args.k,
        build_threads=args.threads,
        batch_threads=args.batch_threads,
        rounds=args.rounds,
        trial_seconds=args.trial_seconds,
        build_timeout=args.build_timeout,
        trial_timeout=args.trial_timeout,
    )
    check_targets(args.recall)
    sweep = parse_sweep(args.sweep)
    workload = load(args)
    dim, metric = workload.base.shape[1], workload.metric
    own, unfit = bench.own_contestants(args.codes, args.indexes, dim, metric, sweep)
    peers, absent = bench.choose_peers(args.peers, metric, sweep)
    contestants, skipped = [*own, *peers], unfit | absent
    notice: Callable[[str], None] = partial(print, file=sys.stderr if args.json else sys.stdout)
    for name, reason in skipped.items():
        notice(f"{name}: skipped: {reason}")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    with progress("measuring", "trials") as report:
        result = bench.run(workload, contestants, settings, skipped=skipped, progress=report, notice=notice)
    if args.json:
        print_json(dataclasses.asdict(result))
    else:
        if args.points:
            print_points(result)
        print_summary(result, args.recall)
    if args.out is not None:
        write(result, args.out, args.recall, notice)
    measured = {entry.contestant for entry in result.entries if entry.contestant not in result.failed}
    return 0 if measured.issuperset(each.name for each in contestants if each.own) else 1


def run_texts(args: argparse.Namespace) -> int:
    """Measure full-text search on a folder of texts."""
    for name in ("queries", "truth", "metric", "noise", "grow", "out"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name} does not go with --text")
    texts, queries = load_texts(Path(args.dataset), args.rows, args.max_queries)
    with progress("measuring", "steps") as report:
        result = run_text(texts, queries, args.peers, args.k, report)
    if args.json:
        print_json(dataclasses.asdict(result))
        return 0
    print_texts(result)
    return 0


def write(result: bench.Result, folder: Path, targets: Sequence[float], notice: Callable[[str], None]) -> None:
    """Write the points, the report of all runs in the folder, and plots if matplotlib is installed."""
    file = folder / "points.jsonl"
    before = bench.load_lines(file) if file.exists() else []
    bench.write_lines(result, file)
    write_report([*before, result], folder / "report.html")
    try:
        plot_recall(result, folder / "recall_qps.png")
        plot_bytes(result, folder / "recall_bytes.png", targets)
    except MissingExtraError as error:
        notice(f"no plots: {error}")
    notice(f"written to {folder}: {', '.join(sorted(file.name for file in folder.iterdir() if file.is_file()))}")


def load(args: argparse.Namespace) -> Workload:
    """Load the workload that the arguments describe."""
    with progress("exact neighbors", "rows") as report:
        if args.dataset == "demo":
            workload = demo(args)
        else:
            workload = load_workload(
                args.dataset,
                args.k,
                queries=args.queries,
                truth=args.truth,
                metric=args.metric,
                rows=args.rows,
                max_queries=args.max_queries,
                progress=report,
            )
        if args.noise is not None:
            workload = with_noise(workload, args.noise, progress=report)
        if args.grow is None:
            return workload
        if args.out is None:
            raise InputError("--grow keeps what it makes: name a folder with --out")
        return grow(workload, args.grow, args.out / f"{workload.name}-{args.grow}", progress=report)


def demo(args: argparse.Namespace) -> Workload:
    """The passages and questions that come with the package."""
    for name in ("queries", "truth", "metric"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name} does not go with demo, which has its own")
    return demo_workload(args.k, args.rows, args.max_queries)


def check_targets(targets: Sequence[float]) -> None:
    for target in targets:
        if not 0 < target <= 1:
            raise InputError(f"--recall is {target:g}; it is above 0 and at most 1")


def parse_sweep(texts: Sequence[str]) -> dict[str, list[Any]]:
    """``ef=16,32`` -> {"ef": [16, 32]}."""
    sweep = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and all(values.split(","))):
            raise InputError(f"--sweep {text!r} is not of the form NAME=VALUE,VALUE")
        sweep[name] = [number(value) for value in values.split(",")]
    return sweep
