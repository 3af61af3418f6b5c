"""Import, opening, and memory of readers.

    python benchmarks/bench_open.py [--set NAME] [--rows 60000] [--json FILE]

Each measurement has a new process. Opening is timed from qvec.open to the first answer, without the import; the file is
in the page cache. Memory, from /proc/self/smaps_rollup, is the growth by opening and by a thousand queries.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import report
import sets

import qvec
from qvec.datasets import Workload

IMPORT = "import time; t = time.perf_counter(); import {}; print(1000 * (time.perf_counter() - t))"
OPEN = """
import sys, time
import numpy as np
import qvec
query = np.load(sys.argv[2])[0]
t = time.perf_counter()
db = qvec.open(sys.argv[1], "r")
ids = db.search(query, 10).ids
print(1000 * (time.perf_counter() - t))
"""
READ = """
import json, sys
import numpy as np
import qvec

def memory():
    with open("/proc/self/smaps_rollup") as lines:
        fields = (line.split() for line in lines if line.startswith(("Rss", "Pss:", "Anonymous")))
        return {name.rstrip(":"): int(kib) / 1024 for name, kib, _ in fields}

queries = np.load(sys.argv[2])
before = memory()
db = qvec.open(sys.argv[1], "r")
for query in queries[:1000]:
    db.search(query, 10)
opened = memory()
print(json.dumps([before, {name: opened[name] - before[name] for name in opened}]), flush=True)
sys.stdin.readline()
print(json.dumps(memory()), flush=True)
sys.stdin.readline()
"""


def measure(data: Workload, folder: Path, repeats: int) -> dict[str, float]:
    path, queries = folder / "open.qvec", folder / "queries.npy"
    np.save(queries, data.queries)
    with qvec.create(path, data.base.shape[1], metric=data.metric, index="hnsw") as db:
        db.add(data.base)
    imports = [float(report.fresh_python(IMPORT.format("qvec"))) for _ in range(repeats)]
    numpy = [float(report.fresh_python(IMPORT.format("numpy"))) for _ in range(repeats)]
    openings = [float(report.fresh_python(OPEN, path, queries)) for _ in range(repeats)]
    size = path.stat().st_size / 2**20
    (before, grown), readers = four_readers(path, queries)
    return {
        "import qvec, ms, min": min(imports),
        "import qvec, ms, median": float(np.median(imports)),
        "import numpy alone, ms, median": float(np.median(numpy)),
        "open to first answer, ms, min": min(openings),
        "open to first answer, ms, median": float(np.median(openings)),
        "file, MiB": size,
        "anonymous memory of Python, numpy and qvec before, MiB": before["Anonymous"],
        "anonymous memory that a reader adds, MiB": grown["Anonymous"],
        "anonymous memory that a reader adds, % of the file": 100 * grown["Anonymous"] / size,
        **{
            f"reader {i} of 4, {name}, MiB": value
            for i, found in enumerate(readers, 1)
            for name, value in found.items()
        },
    }


def four_readers(path: Path, queries: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Memory of the first of four readers before and after it opens, and memory of each while all four run."""
    command = [sys.executable, "-c", READ, str(path), str(queries)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": report.ROOT}
    readers = [subprocess.Popen(command, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    try:
        added = [json.loads(reader.stdout.readline()) for reader in readers]
        totals = [ask(reader) for reader in readers]
    finally:
        for reader in readers:
            reader.communicate("\n")
    return added[0], totals


def ask(reader: subprocess.Popen[str]) -> dict[str, float]:
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdin.write("\n")
    reader.stdin.flush()
    found: dict[str, float] = json.loads(reader.stdout.readline())
    return found


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--set", default=sets.names()[-1])
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    data = sets.load(args.set, args.rows)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(data, Path(folder), args.repeats)
    report.publish("open", {"set": args.set, "rows": len(data.base), **figures}, args.json)


if __name__ == "__main__":
    main()
