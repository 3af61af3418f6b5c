"""Several writers of one file: fairness and waits, and durable adds by exclusive and shared handles.

    python benchmarks/bench_writers.py fair [--commits 2000]
    python benchmarks/bench_writers.py add [--rows 60000] [--base CHECKOUT]
    python benchmarks/bench_writers.py mixed [--processes 16] [--calls 1000] [--folder DIR]
    python benchmarks/bench_writers.py readers [--processes 16] [--seconds 10] [--rows 60000]
    python benchmarks/bench_writers.py loop [--seconds 10] [--rows 60000] [--pool N]

fair: two processes make durable commits at the same time; waits of each commit, errors. add: milliseconds of one
durable add to a graph of a given number of rows, by an exclusive and by a shared handle, and with ``--base`` by
another checkout, interleaved. mixed: R23 of the reliability suite (tests/reliability/many_writers.py) at this size.
readers: CPU time of a search in four reading processes while that many processes write, relative to that with one
writer, in alternation. loop: how late a timer of an event loop is while 100 tasks search and one writes.
"""

from __future__ import annotations

import argparse
import asyncio
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


READER = """
import json, sys, time
import numpy as np, qvec
path, seconds, dim = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
queries = np.random.default_rng(0).normal(size=(1000, dim)).astype(np.float32)
with qvec.open(path, "r") as db:
    db.search(queries[0], 10)
    print("ready", flush=True)
    sys.stdin.readline()
    stop, cpu, done = time.monotonic() + seconds, time.process_time(), 0
    first = db._store.view.txn_id
    while time.monotonic() < stop:
        db.search(queries[done % 1000], 10)
        done += 1
    cpu = time.process_time() - cpu
    print(json.dumps({"searches": done, "cpu": cpu, "commits": db._store.view.txn_id - first}), flush=True)
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


def readers(folder: Path, processes: int, rows: int, seconds: float) -> dict[str, Any]:
    """CPU time of a search in four processes, while others make the calls of R23."""
    sys.path.insert(0, str(ROOT / "tests/reliability"))
    import many_writers
    from child import start

    import qvec

    path, dim = folder / "readers.qvec", many_writers.DIM
    with qvec.create(path, dim, index="hnsw", fields={"version": "int"}) as db:
        db.add(np.random.default_rng(1).normal(size=(rows, dim)), ids=np.arange(10**9, 10**9 + rows))
    said: dict[int, list[dict[str, float]]] = {1: [], processes: []}
    for number in (1, processes) * 3:
        reading = [python(READER, path, seconds, dim) for _ in range(4)]
        for reader in reading:
            assert reader.stdout is not None
            reader.stdout.readline()
        first = 100 * len(said[number]) + (1 if number == 1 else 20)  # ids of their own
        writing = [start(many_writers.__file__, "write", path, first + i, 10**6) for i in range(number)]
        logs = [path.with_suffix(f".{first + i}.log") for i in range(number)]
        while not all(log.exists() and "end" in log.read_text() for log in logs):  # until all of them write
            time.sleep(0.1)
        for reader in reading:
            print(file=reader.stdin, flush=True)
        said[number] += [json.loads(reader.communicate()[0]) for reader in reading]
        for writer in writing:
            writer.kill()
            writer.communicate()
    found: dict[str, Any] = {"rows": rows}
    for number, each in said.items():
        found[f"{number} writers"] = {
            "CPU us per search": round(1e6 * sum(one["cpu"] for one in each) / sum(one["searches"] for one in each), 1),
            "searches": sum(one["searches"] for one in each),
            "commits per second": round(sum(one["commits"] for one in each) / len(each) / seconds),
        }
    few, many = (found[f"{number} writers"]["CPU us per search"] for number in said)
    with qvec.open(path) as db:
        return {**found, "ratio": round(many / few, 3), "problems": db.verify()}


def loop(folder: Path, rows: int, seconds: float, pool: int | None) -> dict[str, Any]:
    """How late a timer of one millisecond is in a loop whose tasks search and write."""
    import qvec.aio

    rng, late, calls = np.random.default_rng(0), [], {"searches": 0, "commits": 0}
    queries = rng.normal(size=(1000, DIM)).astype(np.float32)

    async def run() -> None:
        async with await qvec.aio.create(folder / "loop.qvec", DIM, index="hnsw", pool=pool or qvec.aio.THREADS) as db:
            await db.add(rng.normal(size=(rows, DIM)))
            stop = time.perf_counter() + seconds

            async def search() -> None:
                while time.perf_counter() < stop:
                    await db.search(queries[calls["searches"] % 1000], 10)
                    calls["searches"] += 1

            async def write() -> None:
                while time.perf_counter() < stop:
                    await db.add(rng.normal(size=(1, DIM)))
                    calls["commits"] += 1

            async def tick() -> None:
                while time.perf_counter() < stop:
                    begun = time.perf_counter()
                    await asyncio.sleep(0.001)
                    late.append(time.perf_counter() - begun - 0.001)

            await asyncio.gather(write(), tick(), *(search() for _ in range(100)))

    asyncio.run(run())
    quantiles = {f"p{q} ms": round(1e3 * float(np.quantile(late, q / 100)), 2) for q in (50, 90, 99, 99.9)}
    return {"rows": rows, "ticks": len(late), **quantiles, "max ms": round(1e3 * max(late), 2), **calls}


def main() -> None:
    """Print the figures of a part as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("fair", "add", "mixed", "readers", "loop"))
    parser.add_argument("--commits", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pool", type=int, help="reading threads of loop; default: that of qvec.aio")
    parser.add_argument("--folder", type=Path, help="where the files are made; default: the temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        if args.part == "fair":
            found = fair(Path(folder), args.commits)
        elif args.part == "add":
            found = add(Path(folder), args.rows, args.base)
        elif args.part == "readers":
            found = readers(Path(folder), args.processes, args.rows, args.seconds)
        elif args.part == "loop":
            found = loop(Path(folder), args.rows, args.seconds, args.pool)
        else:
            found = mixed(Path(folder), args.processes, args.calls)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
