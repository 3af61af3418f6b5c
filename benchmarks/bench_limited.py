"""Searches of stores that are larger than memory: queries/s, faults and bytes read under a hard limit.

    python benchmarks/bench_limited.py [--rows N] [--limit MIB] [--others CHECKOUT] [--indexes graph lists]

Each checkout builds its own files from the same mixtures of a set, in steps of 25,000 rows: `graph` is an int8 graph
that is requantized to int4, `lists` are inverted lists with rabitq1 codes. Both keep originals as f16 (--originals).
Each measurement has its own process in a memory cgroup, and one thread and one core after the first query. It begins
with nothing of the file in the page cache. After the first query, it asks --warm queries, and then those of the set,
which were not asked before; the figures are of these. `svc` is wall time without the time that the process waited for
a core. Of each load, it prints the most private memory, and the bytes written relative to the file. Without the right
to make a cgroup, nothing is limited, and faults and bytes read are the figures to compare. `--diskann` adds
diskannpy-rust.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import limited_diskann
import limits
import numpy as np

HERE = Path(__file__).resolve().parents[1]
CHUNK = 25_000
MARKS = 100_000, 300_000, 1_000_000, 3_000_000  # rows after which the bytes written are printed
K = 10
MIB = 1 << 20
COLUMNS = ("checkout", "index", "memory", "first ms", "MB", "load MB/s", "recall", "svc q/s", "q/s", "p50 ms", "p99 ms",
           "cpu ms/q", "major/q", "faults/q", "KB/q", "private MB")  # fmt: skip


def build(data: Path, path: str, index: str, rows: int, form: str) -> dict[str, Any]:
    """Build a file with the checkout on the path. Returns its bytes and the CPU seconds. For qvec: also the most
    private memory of the load, and the bytes that it wrote relative to the file, after some numbers of rows."""
    base = np.load(data / "base.npy", mmap_mode="r")[:rows]
    if index == "diskann":
        return limited_diskann.build(base, Path(path))
    import qvec

    code, kind = ("int8", "hnsw") if index == "graph" else ("rabitq1", "ivf")
    originals: dict[str, Any] = {_option(qvec.create, "f32"): form}
    began, before, ratios = time.process_time(), limits.written_bytes(), {}
    created = qvec.create(path, base.shape[1], metric="cosine", code=code, index=kind, **originals)
    with created as db, limits.peak_private() as peak:
        for start in range(0, len(base), CHUNK):
            db.add(np.asarray(base[start : start + CHUNK]), threads=1)
            if (rows := start + CHUNK) in MARKS:
                ratios[rows] = (limits.written_bytes() - before) / os.path.getsize(path)
        most = peak[0]
        if index == "graph" and form != "none":
            db.requantize("int4")
            db.drop_generation(0)
        db.compact()
    seconds = time.process_time() - began
    return {"bytes": os.path.getsize(path), "seconds": seconds, "private": most, "written": ratios}


def _option(function: Any, default: str) -> str:
    """The name of the option with this default: older checkouts have other names."""
    return next(name for name, option in inspect.signature(function).parameters.items() if option.default == default)


def measure(path: Path, data: Path, memory: str, options: dict[str, int], warm: int) -> dict[str, float]:
    """Open a file that is not in the page cache, and ask all queries once."""
    queries, truth = np.load(data / "queries.npy"), np.load(data / "gt.npy")[:, :K]
    others = np.load(data / "others.npy")[: warm + 1]
    rate = limits.sequential_rate(max(path.iterdir(), key=os.path.getsize) if path.is_dir() else path)
    began = limits.Counters.now()
    search = limited_diskann.searcher(path, K) if path.is_dir() else opened(path, memory, options)
    search(others[0])
    first = began.since()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for query in others[1:]:
        search(query)
    seconds, found = np.empty(len(queries)), np.empty((len(queries), K), np.int64)
    began = limits.Counters.now()
    for i, query in enumerate(queries):
        asked = time.perf_counter()
        found[i] = search(query)
        seconds[i] = time.perf_counter() - asked
    used, n = began.since(), len(queries)
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True))
    return {
        "first_ms": 1e3 * (first.wall - first.waited), "first_mb": first.read / 1e6, "recall": hits / truth.size,
        "load_rate": first.read / (first.wall - first.waited), "sequential_rate": rate,
        "svc": n / (used.wall - used.waited), "wall": n / used.wall, "cpu_ms": 1e3 * used.cpu / n,
        "p50": 1e3 * float(np.median(seconds)), "p99": 1e3 * float(np.quantile(seconds, 0.99)),
        "major": used.major / n, "faults": (used.major + used.minor) / n, "read": used.read / n,
        "private": limits.private_bytes() / 1e6,
    }  # fmt: skip


def opened(path: Path, memory: str, options: dict[str, int]) -> Callable[[Any], Any]:
    """Open a collection. Returns the function that searches it for ids."""
    import qvec

    db = qvec.open(path, "r", **{_option(qvec.open, "mmap"): int(memory) if memory.isdecimal() else memory})
    return lambda query: db.search(query, K, **options).ids


def child(checkout: Path, group: limits.Group, *arguments: str) -> dict[str, Any]:
    """Run this script in a process of its own with a checkout. Returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--child", str(group.folder or ""), *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {"failed": done.returncode}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def serve(folder: str, task: str, *arguments: str) -> None:
    group = limits.Group(Path(folder) if folder else None)
    group.join()
    if task == "build":
        data, path, index, rows, form = arguments
        print(json.dumps(build(Path(data), path, index, int(rows), form)))
    else:
        path, data, memory, options, warm = arguments
        print(json.dumps(measure(Path(path), Path(data), memory, json.loads(options), int(warm))))


def line(checkout: Path, index: str, memory: str, found: dict[str, Any]) -> tuple[str, ...]:
    if "failed" in found:
        return (checkout.name, index, memory, "refused or killed", *[""] * (len(COLUMNS) - 4))
    f = found
    return (
        checkout.name, index, memory, f"{f['first_ms']:,.0f}", f"{f['first_mb']:,.0f}",
        f"{f['load_rate'] / 1e6:,.0f} of {f['sequential_rate'] / 1e6:,.0f}", f"{f['recall']:.4f}", f"{f['svc']:,.0f}",
        f"{f['wall']:,.0f}", f"{f['p50']:.2f}", f"{f['p99']:.2f}", f"{f['cpu_ms']:.2f}", f"{f['major']:.1f}",
        f"{f['faults']:.1f}", f"{f['read'] / 1e3:.0f}", f"{f['private']:.0f}",
    )  # fmt: skip


def prepare(name: str, rows: int) -> Path:
    """The folder of a grown set, with queries that are only asked to warm up."""
    import sets

    from qvec.datasets.grow import mixtures

    data, folder = sets.grown(name, rows), sets.GROWN / f"{name}-{rows}"
    if not (folder / "others.npy").exists():
        source = sets.workload(name)
        np.save(folder / "others.npy", np.concatenate(list(mixtures(source.queries, 4096, data.metric, 777))))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="demo")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--limit", type=int, default=512, help="MiB")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="other checkouts, with compiled kernels")
    parser.add_argument("--indexes", nargs="*", default=["graph", "lists"])
    parser.add_argument("--memory", nargs="*", default=["mmap", "index", "400"], help="modes, or budgets in MiB")
    parser.add_argument("--originals", default="f16", choices=["f16", "f32", "none"])
    parser.add_argument("--diskann", action="store_true", help="also diskannpy-rust, which has to be installed")
    parser.add_argument("--ef", type=int, default=160)
    parser.add_argument("--nprobe", type=int, default=36)
    parser.add_argument("--warm", type=int, default=1000, help="queries before those that are measured")
    parser.add_argument("--folder", type=Path, default=HERE / "build", help="where files are built")
    parser.add_argument("--keep", type=Path, help="a folder in which built files stay for later runs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    data = prepare(args.set, args.rows)
    args.folder.mkdir(parents=True, exist_ok=True)
    size = args.rows * 384 * 12 + (1 << 30)
    with limits.disk(args.folder, size) as (folder, description), limits.group(args.limit * MIB) as group:
        limited = f"a hard limit of {args.limit} MiB" if group.folder else "no limit: it needs a memory cgroup"
        print(f"{args.rows:,} rows of {args.set}; {limited}; {description}", flush=True)
        run(args, data, folder, group)


def built(args: argparse.Namespace, checkout: Path, index: str, data: Path, folder: Path) -> Path:
    """Copy a file of an earlier run to the disk, or build it."""
    path = folder / f"{checkout.name}-{index}-{args.originals}.qvec"
    kept = args.keep and args.keep / f"{args.set}-{args.rows}-{path.name}"
    if kept and kept.exists():
        subprocess.run(["cp", "-r", str(kept), str(path)], check=True)
        return path
    made = child(checkout, limits.Group(None), "build", str(data), str(path), index, str(args.rows), args.originals)
    size = f"{made['bytes'] / 1e6:,.0f} MB"
    print(f"{checkout.name} {index}: built in {made['seconds']:.0f} CPU seconds, {size}", flush=True)
    if "written" in made:
        written = ", ".join(f"{int(rows):,} rows: {ratio:.2f}" for rows, ratio in made["written"].items())
        print(f"  private memory {made['private'] / 1e6:,.0f} MB; written, relative to the file: {written}", flush=True)
    if kept:
        subprocess.run(["cp", "-r", str(path), str(kept)], check=True)
    return path


def run(args: argparse.Namespace, data: Path, folder: Path, group: limits.Group) -> None:
    from qvec.common.console import print_table

    rows = []
    for index in [*args.indexes, *["diskann"] * args.diskann]:
        options = {"ef": args.ef} if index == "graph" else {"nprobe": args.nprobe}
        for checkout in (HERE,) if index == "diskann" else (*args.others, HERE):
            path = built(args, checkout, index, data, folder)
            for memory in ["direct"] if index == "diskann" else args.memory:
                budget = str(int(memory) * MIB) if memory.isdecimal() else memory
                arguments = str(path), str(data), budget, json.dumps(options), str(args.warm)
                found = child(checkout, group, "measure", *arguments)
                rows.append(line(checkout, index, memory, found))
                print(*rows[-1], flush=True)
                if args.json:
                    record = {"checkout": checkout.name, "index": index, "memory": memory, **found}
                    with args.json.open("a") as out:
                        print(json.dumps(record), file=out)
            subprocess.run(["rm", "-r", str(path)], check=True)
    print_table("searches under the limit", COLUMNS, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        serve(*sys.argv[2:])
    else:
        main()
