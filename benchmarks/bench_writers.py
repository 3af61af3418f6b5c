"""Several writers of one file: fairness and waits, and durable adds by exclusive and shared handles.

    python benchmarks/bench_writers.py fair [--commits 2000]
    python benchmarks/bench_writers.py add [--rows 60000] [--base CHECKOUT]
    python benchmarks/bench_writers.py mixed [--processes 16] [--calls 1000] [--folder DIR]

fair: two processes make durable commits at the same time; waits of each commit, errors. add: milliseconds of one
durable add to a graph of a given number of rows, by an exclusive and by a shared handle, and with ``--base`` by
another checkout, interleaved. mixed: R23 of the reliability suite (tests/reliability/many_writers.py) at this size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DIM = 64

WRITER = """
import json, sys, time
import numpy as np, qvec
path, commits, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
db, waits, errors = qvec.open(path, timeout=30), [], 0
store = db._store
acquire = store.env.queue.acquire
def timed(*args, **options):
    begun = time.perf_counter()
    acquire(*args, **options)
    waits.append(time.perf_counter() - begun)
store.env.queue.acquire = timed
x = np.random.default_rng(number).normal(size=(1, 64))
print("ready", flush=True)
sys.stdin.readline()
begun = time.perf_counter()
for i in range(commits):
    try:
        db.add(x, ids=[number * 10**7 + i])
    except qvec.LockedError:
        errors += 1
print(json.dumps({"waits": waits, "errors": errors, "seconds": time.perf_counter() - begun}), flush=True)
"""

ADDER = """
import sys, time
import numpy as np, qvec
path, exclusive, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
options = {} if exclusive == "base" else {"exclusive": exclusive == "exclusive"}
rng = np.random.default_rng(first)
with qvec.open(path, **options) as db:
    for i in range(300):
        x = rng.normal(size=(1, 64))
        begun = time.perf_counter()
        db.add(x, ids=[first + i])
        if i >= 50:
            print(time.perf_counter() - begun)
"""


def python(code: str, *arguments: object, root: Path = ROOT) -> subprocess.Popen[str]:
    """A process that runs code with the package of a checkout."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def fair(folder: Path, commits: int) -> dict[str, Any]:
    """Two writers at the same time."""
    import qvec

    path = folder / "fair.qvec"
    qvec.create(path, DIM, index="flat").close()
    writers = [python(WRITER, path, commits, number) for number in (1, 2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        print(file=writer.stdin, flush=True)
    said = [json.loads(writer.communicate()[0]) for writer in writers]
    figures: dict[str, Any] = {"commits": commits, "errors": [each["errors"] for each in said]}
    for number, each in enumerate(said, 1):
        waits = 1e3 * np.array(each["waits"])
        figures[f"writer {number}"] = {
            "mean wait ms": round(float(waits.mean()), 3), "p99 wait ms": round(float(np.quantile(waits, 0.99)), 3),
            "p99 / mean": round(float(np.quantile(waits, 0.99) / waits.mean()), 2),
            "max ms": round(float(waits.max()), 1),
            "commits per second": round(commits / each["seconds"]),
        }  # fmt: skip
    with qvec.open(path) as db:
        figures["rows"], figures["problems"] = len(db), db.verify()
    return figures


def add(folder: Path, rows: int, base: Path | None) -> dict[str, Any]:
    """Durable adds of one row: median ms of each kind, and relative to the base; three rounds in alternation."""
    roots = {"exclusive": ROOT, "shared": ROOT} | ({"base": base} if base else {})
    paths = {name: folder / f"{name}.qvec" for name in roots}
    fill = (
        "import sys, numpy as np, qvec\nwith qvec.create(sys.argv[1], 64, index='hnsw') as db:\n"
        "    db.add(np.random.default_rng(0).normal(size=(int(sys.argv[2]), 64)))\n"
    )
    for name, path in paths.items():
        assert python(fill, path, rows, root=roots[name]).wait() == 0
    times: dict[str, list[float]] = {name: [] for name in roots}
    for turn in range(5):
        for name, path in paths.items():
            said = python(ADDER, path, name, 10**7 * (turn + 1), root=roots[name]).communicate()[0]
            times[name] += [1e3 * float(line) for line in said.split()]
    medians = {name: round(float(np.median(each)), 3) for name, each in times.items()}
    ratios = {f"{name} / base": round(medians[name] / medians["base"], 3) for name in ("exclusive", "shared") if base}
    return {
        "rows": rows,
        "median ms": medians,
        **ratios,
        "shared / exclusive": round(medians["shared"] / medians["exclusive"], 3),
    }


def mixed(folder: Path, processes: int, calls: int) -> dict[str, Any]:
    """R23 at another size."""
    sys.path.insert(0, str(ROOT / "tests/reliability"))
    import many_writers
    from figures import Job

    many_writers.WRITERS["nightly"] = processes
    begun = time.monotonic()
    found = many_writers.run(Job("nightly", folder, 1, rounds=calls))
    return {**found.amounts, "failures": found.failures, "seconds": round(time.monotonic() - begun, 1)}


def main() -> None:
    """Print the figures of a part as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("fair", "add", "mixed"))
    parser.add_argument("--commits", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where the files are made; default: the temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        if args.part == "fair":
            found = fair(Path(folder), args.commits)
        elif args.part == "add":
            found = add(Path(folder), args.rows, args.base)
        else:
            found = mixed(Path(folder), args.processes, args.calls)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
