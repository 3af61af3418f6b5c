"""What shards cost: building, bytes, searches and routed writes by the size of a shard, and by that of large sets.

    python benchmarks/bench_shards.py [--set wiki-minilm-384] [--sizes 12500 25000 50000] [--total 10e6 100e6 1e9]

Vectors are mixtures of the rows of a real set, in collections of int8 codes, a graph and float16 originals. Costs of a
row are slopes between the sizes (least squares), those of a search a line over the logarithm of the size. CPU seconds
are those of the process. `--recall` measures, on the real set, how many of 32 shards by cluster a search has to ask;
`--seeds N` repeats the division with N seeds, and searches the vectors of the asked shards exactly.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import sets

from qvec import shards
from qvec.datasets.grow import mixtures
from qvec.shards.partition import assign, learn, ranked

QUERIES, K = 500, 10
GB = 1e9
MACHINE_GB, MACHINE_CORES = 64, 16
SHARD_ROWS = 4_000_000
GROUPS = 32


def cpu() -> float:
    return time.process_time()


def measured(folder: Path, x: Any, queries: Any, metric: Any) -> dict[str, float]:
    """The costs of a set of one shard."""
    dim = x.shape[1]
    shards.create(folder, dim, metric=metric, code="int8", index="hnsw", originals="f16", sample=x[:16_384])
    start = cpu()
    block = shards.write_block(folder, "a", x, np.arange(len(x)), threads=1)
    built = cpu() - start
    start = cpu()
    entry = shards.commit(folder, [block]).shards[0]
    committed = cpu() - start
    with shards.open(folder) as index:
        options: dict[str, Any] = {"include": (), "ef": 96, "threads": 1}
        exact = index.search(queries, K, exact=True, include=()).ids
        found = index.search(queries, K, **options).ids
        recall = np.mean([len({*a} & {*b}) / K for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
        start = cpu()
        for query in queries:
            index.search(query, K, **options)
        searched = (cpu() - start) / len(queries)
        ids = np.arange(len(x), len(x) + 1000)
        start = cpu()
        index.upsert(x[:1000] * np.float32(0.999), ids)
        upserted = (cpu() - start) / 1000
        routes = (folder / str(index.manifest.routes)).stat().st_size
    return {
        "rows": len(x),
        "build_us": built / len(x) * 1e6,
        "commit_us": committed / len(x) * 1e6,
        "bytes": entry.bytes / len(x),
        "route_bytes": routes / len(x),
        "search_us": searched * 1e6,
        "recall": float(recall),
        "upsert_us": upserted * 1e6,
    }


def slope(results: list[dict[str, float]], name: str) -> float:
    """Cost of one more row, by least squares of the total over the number of rows."""
    rows = np.array([result["rows"] for result in results])
    return float(np.polyfit(rows, rows * [result[name] for result in results], 1)[0])


def plan(results: list[dict[str, float]], totals: list[float], dim: int) -> None:
    """Bytes, cores and machines of large sets."""
    rows = np.array([result["rows"] for result in results])
    line = np.polyfit(np.log(rows), [result["search_us"] for result in results], 1)
    search_us = float(np.polyval(line, np.log(SHARD_ROWS)))
    build_us, row_bytes = slope(results, "build_us") + slope(results, "commit_us"), slope(results, "bytes")
    hot_bytes = -(-dim // 64) * 64 + 16 + 132 + 8  # code with its factors, adjacency list, id
    route_bytes = slope(results, "route_bytes")
    print(
        f"\na row: {build_us:.0f} us to build, {row_bytes:.0f} bytes, {hot_bytes} of them hot, {route_bytes:.1f} of "
        "routes"
    )
    print(f"a search of a shard of {SHARD_ROWS:,}: {search_us:.0f} us by the line over log(rows)")
    print(f"{'vectors':>14}{'shards':>8}{'GB':>9}{'hot GB':>9}{'machines':>10}{'build core-h':>14}", end="")
    print(f"{'core-ms a query, all':>22}{'a quarter':>11}")
    for total in totals:
        count = max(1, round(total / SHARD_ROWS))
        hot = total * (hot_bytes + route_bytes) / GB
        machines = int(-(-hot // (0.8 * MACHINE_GB)))
        print(f"{total:14,.0f}{count:8}{total * row_bytes / GB:9,.0f}{hot:9,.0f}{machines:10}", end="")
        print(
            f"{total * build_us / 3.6e9:14.1f}{count * search_us / 1e3:22.1f}{-(-count // 4) * search_us / 1e3:11.1f}"
        )


def recall_of_asked(name: str, folder: Path) -> None:
    """Recall of a search that asks some of 32 shards by cluster, on the vectors and queries of a real set."""
    found = sets.load(name)
    shards.create(
        folder, found.base.shape[1], metric=found.metric, partition="cluster", shards=GROUPS, sample=found.base
    )
    blocks = [
        shards.write_block(folder, f"b{i}", found.base[i : i + 20_000], np.arange(i, min(i + 20_000, len(found.base))))
        for i in range(0, len(found.base), 20_000)
    ]
    shards.commit(folder, [shards.merge(folder, number, blocks, threads=1) for number in range(GROUPS)])
    with shards.open(folder) as index:
        recalls = index.measure(found.queries, K)
        sizes = [shard.rows for shard in index.manifest.shards]
        print(f"{name}: {GROUPS} shards by cluster, {min(sizes)} to {max(sizes)} rows; recall@{K} by asked shards:")
        print("  ".join(f"{count}: {recalls[count - 1]:.4f}" for count in (1, 2, 4, 6, 8, 12, 16)))
        for count in (8, GROUPS):
            ids = index.search(found.queries, K, ask=count, include=()).ids
            hits = [len({*a} & {*b[:K]}) / K for a, b in zip(ids.tolist(), found.truth.tolist(), strict=True)]
            print(f"searches of the codes and graphs, {count} asked: {np.mean(hits):.4f}")


def recall_by_seeds(name: str, seeds: int) -> None:
    """Recall of exact searches in the first shards of a partition, for several seeds of it."""
    found = sets.load(name)
    base, queries, truth = (np.asarray(x) for x in (found.base, found.queries, found.truth[:, :K]))
    for seed in range(seeds):
        clusters = learn(base.astype(np.float32), GROUPS, found.metric, seed)
        shard = assign(base, clusters, found.metric)
        order = ranked(queries.astype(np.float32), clusters, found.metric, GROUPS)
        recalls = [(shard[truth][:, :, None] == order[:, None, :count]).any(axis=2).mean() for count in (4, 8, 12)]
        print(
            f"seed {seed}: recall@{K} in the first 4, 8, 12 shards:", "  ".join(f"{r:.4f}" for r in recalls), flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", default=sets.names()[-1])
    parser.add_argument("--sizes", nargs="+", type=int, default=[12_500, 25_000, 50_000])
    parser.add_argument("--total", nargs="+", type=float, default=[1e7, 1e8, 1e9])
    parser.add_argument("--recall", action="store_true")
    parser.add_argument("--seeds", type=int, default=0, help="only the recall of exact searches, of N partitions")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="qvec-shards-"))
    try:
        if args.seeds:
            recall_by_seeds(args.set, args.seeds)
            return
        if args.recall:
            recall_of_asked(args.set, work / "cluster")
            return
        source = sets.workload(args.set)
        queries = np.concatenate(list(mixtures(source.queries, QUERIES, source.metric, 1)))
        results = []
        for size in args.sizes:
            x = np.concatenate(list(mixtures(source.base, size, source.metric, 0)))
            results.append(measured(work / str(size), x, queries, source.metric))
            print("  ".join(f"{name} {value:,.4g}" for name, value in results[-1].items()), flush=True)
        plan(results, args.total, source.base.shape[1])
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
