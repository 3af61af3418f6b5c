"""What building a graph costs, in CPU seconds, and how good the graph is: rows scored and hops at equal recall.

    python benchmarks/bench_build.py [--set NAME] [--grown N] [--rows N] [--seeds 4] [--code int8] [--layout compact]
                                     [--threads 1] [--against CHECKOUT] [--hnswlib] [--skip-quality] [--noise R]

Each seed shuffles the rows. `link` is the CPU time of an add less that of the same add without an index. --against runs
the same in another checkout of qvec, alternating with this one. --hnswlib builds with M=16, ef_construction=200.
Private memory: the most that the add takes, in relation to the float32 vectors. --noise adds Gaussian noise of R times
its length to each query.
Queries per CPU second are of batches on one thread. The searches of the tables re-rank their whole pool.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

RECALLS = (0.90, 0.95, 0.98, 0.99)
POOLS = (10, 12, 14, 16, 20, 24, 32, 40, 52, 64, 80, 100, 128, 160, 200, 256, 320, 448, 640, 1000)
K = 10
CODES = {"int8": "Int8()", "int4": "Int4()", "rabitq2": "RaBitQ(2)", "rabitq4": "RaBitQ(4)", "mixed": "Mixed(bits=2)"}


def cpu() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def private_bytes() -> int:
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


class Peak:
    """The most private memory that a block takes in addition to what was there before, sampled by a thread."""

    def __enter__(self) -> Peak:
        self.before, self.most, self.done = private_bytes(), 0, threading.Event()
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def sample(self) -> None:
        while not self.done.wait(0.02):
            self.most = max(self.most, private_bytes() - self.before)

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


def at_recall(recalls: list[float], values: list[float], recall: float) -> float | None:
    """Interpolate the logarithm of a value at a recall; None outside of what was measured."""
    for i in range(1, len(recalls)):
        if recalls[i - 1] <= recall <= recalls[i] and recalls[i] > recalls[i - 1]:
            share = (recall - recalls[i - 1]) / (recalls[i] - recalls[i - 1])
            return float(np.exp((1 - share) * np.log(values[i - 1]) + share * np.log(values[i])))
    return None


def measure(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Build one graph in this process and search it."""
    import qvec

    data = load(options.data)
    order = np.random.default_rng(seed).permutation(len(data["base"]))
    base = np.ascontiguousarray(data["base"][order], np.float32)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    truth = place[data["truth"][:, :K]]
    code = eval(f"qvec.{CODES[options.code]}")
    result: dict[str, Any] = {"from": str(Path(qvec.__file__).parents[1]), "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        for name, index in (("flat", qvec.Flat()), ("add", qvec.HNSW(layout=options.layout))):
            db = qvec.create(f"{folder}/{name}.qvec", base.shape[1], metric=str(data["metric"]), code=code, index=index)
            start = cpu()
            with Peak() as peak:
                db.add(base, threads=options.threads)
            result[name] = cpu() - start
        result["link"] = result["add"] - result["flat"]
        result["private"] = peak.most / base.nbytes
        if options.skip_quality:
            return result
        result["problems"] = [str(problem) for problem in db.verify()]
        queries = data["queries"]
        recalls, figures = [], []
        for ef in POOLS:
            found = db.search(queries, K, ef=ef, oversample=ef // K)
            recalls.append(
                float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(found.ids, truth, strict=True)]) / K)
            )
            effort: dict[str, Any] = {"ef": ef, "oversample": ef // K}
            try:
                work = db.search(queries, K, include=["explanation"], **effort).explanation
            except (TypeError, ValueError):  # before explanations were part of `include`
                work = db.search(queries, K, explain=True, **effort).explanation
            start = cpu()
            for _ in range(2):
                db.search(queries, K, ef=ef, oversample=ef // K)
            rate = 2 * len(queries) / (cpu() - start)
            figures.append((work.evaluations / len(queries), work.hops / len(queries), rate))
            if recalls[-1] > max(RECALLS) + 0.002:
                break
        for name, values in zip(("scored", "hops", "rate"), zip(*figures, strict=True), strict=True):
            result[name] = [at_recall(recalls, list(values), recall) for recall in RECALLS]
        db.close()
    return result


def hnswlib_cpu(options: argparse.Namespace) -> float:
    """CPU seconds of hnswlib's build."""
    import hnswlib

    data = load(options.data)
    base = np.ascontiguousarray(data["base"], np.float32)
    index = hnswlib.Index(str(data["metric"]), base.shape[1])
    index.init_index(len(base), M=16, ef_construction=200)
    start = cpu()
    index.add_items(base, num_threads=options.threads)
    return cpu() - start


def load(folder: str) -> dict[str, Any]:
    """The set that the parent process has written: a checkout may have no reader for it."""
    return {path.stem: np.load(path, mmap_mode="r") for path in Path(folder).glob("*.npy")}


def write(options: argparse.Namespace, folder: str) -> None:
    """Write the set for the child processes."""
    import sets

    from qvec.datasets import exact_knn

    data = sets.grown(options.set, options.grown) if options.grown else sets.workload(options.set, options.rows)
    queries, truth = data.queries.astype(np.float32), data.truth
    if options.noise:
        noise = np.random.default_rng(7).standard_normal(queries.shape, np.float32)
        lengths = np.linalg.norm(queries, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
        queries += options.noise * lengths * noise
        truth, _ = exact_knn(data.base, queries, K, data.metric)
    arrays = {"base": data.base, "queries": queries, "truth": truth, "metric": data.metric}
    for name, values in arrays.items():
        np.save(Path(folder) / f"{name}.npy", values)


def child(checkout: str, data: str, seed: int) -> dict[str, Any]:
    """Measure in a process of its own that imports qvec from a checkout."""
    command = [sys.executable, __file__, *sys.argv[1:], "--data", data, "--child", str(seed)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": checkout}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def shown(values: list[float | None]) -> str:
    return " ".join(f"{value:8.1f}" if value is not None else "       -" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="demo")
    parser.add_argument("--grown", type=int)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--code", default="int8", choices=CODES)
    parser.add_argument("--layout", default="compact")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--against")
    parser.add_argument("--hnswlib", action="store_true")
    parser.add_argument("--skip-quality", action="store_true")
    parser.add_argument("--noise", type=float, default=0)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(measure(options, options.child)))
        return
    with tempfile.TemporaryDirectory() as options.data:
        write(options, options.data)
        compare(options)
        if options.hnswlib:
            print(f"hnswlib: {hnswlib_cpu(options):.2f} s")


def compare(options: argparse.Namespace) -> None:
    """Build and measure in the checkouts alternately, and print the figures."""
    here = str(Path(__file__).resolve().parents[1])
    checkouts = [*([str(Path(options.against).resolve())] if options.against else []), here]
    runs: dict[str, list[dict[str, Any]]] = {checkout: [] for checkout in checkouts}
    for seed in range(options.seeds):
        for checkout in checkouts:
            run = child(checkout, options.data, seed)
            runs[checkout].append(run)
            times = f"add {run['add']:.2f} s, link {run['link']:.2f} s, private memory {run['private']:.2f}"
            print(f"{checkout} seed {seed}: {times}")
            for name in () if options.skip_quality else ("scored", "hops", "rate"):
                print(f"    {name:<7} {shown(run[name])}   {'; '.join(run['problems'])}", flush=True)
    for checkout, found in runs.items():
        links = [run["link"] for run in found]
        print(f"{checkout}: mean link {np.mean(links):.2f} s, add {np.mean([run['add'] for run in found]):.2f} s")
        for name in () if options.skip_quality else ("scored", "hops", "rate"):
            each = [[np.nan if v is None else v for v in run[name]] for run in found]
            print(f"    {name:<7} {shown(list(np.mean(each, axis=0)))}")


if __name__ == "__main__":
    main()
