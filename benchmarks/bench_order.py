"""Effect of the order of rows on graph searches: one graph with several orders of its rows, interleaved.

    python benchmarks/bench_order.py [--set NAME] [--layouts compact packed] [--orders random bfs clustered]

`random`: a random order. `bfs`: the order of a breadth-first walk from the root. `clustered`: recursive bisection of
the set, down to 32 rows. The graph is linked once, then all columns are reordered: all orders have the same hits and
recall. Figures are processor time of batches on one thread.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sets

import qvec
from qvec.common.console import print_table
from qvec.datasets import Workload
from qvec.index import graph_nodes
from qvec.schema.layout import ADJACENCY, CODES, IDS, NODES, VECTORS

NONE, ROW = 0xFFFFFFFF, 0x7FFFFFFF
LEAF = 32
COLUMNS = ("set, layout", "order", "links within 256 rows", "recall", "us, least", "us, median", "against the first")


def bfs(lists: npt.NDArray[np.uint32], root: int) -> npt.NDArray[np.int64]:
    seen, order = np.zeros(len(lists), bool), [np.array([root])]
    seen[root] = True
    while len(order[-1]):
        met = lists[order[-1]].reshape(-1)
        met = (met[met != NONE] & ROW).astype(np.int64)
        met = met[np.sort(np.unique(met, return_index=True)[1])]
        order.append(met[~seen[met]])
        seen[order[-1]] = True
    return np.concatenate([*order, np.flatnonzero(~seen)])


def clustered(x: sets.Float32, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Bisect the rows along the line between two means (Lloyd, on a sample), and each half again, and so on."""
    waiting, done = [np.arange(len(x))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= LEAF:
            done.append(rows)
            continue
        sample = x[rng.choice(rows, min(len(rows), 2000), replace=False)]
        means = sample[:2].copy()
        for _ in range(6):
            owner = (sample @ means.T - (means * means).sum(axis=1) / 2).argmax(axis=1)
            for i in (0, 1):
                means[i] = sample[owner == i].mean(axis=0) if (owner == i).any() else means[i]
        along = np.argsort(x[rows] @ (means[1] - means[0]), kind="stable")
        waiting += [rows[along[len(rows) // 2 :]], rows[along[: len(rows) // 2]]]
    return np.concatenate(done)


def put_in_order(path: Path, order: str, x: sets.Float32) -> float:
    """Renumber all rows of a collection that consists of a graph only; returns the share of edges to nearby rows."""
    with qvec.open(path) as db, db._store.write() as txn:
        columns, state, n = txn.columns, txn.state, txn.state.n
        lists, graph = columns[ADJACENCY].read_range(0, n).view("<u4").copy(), state.index
        rng = np.random.default_rng(0)
        makers: dict[str, Any] = {
            "random": lambda: rng.permutation(n),
            "bfs": lambda: bfs(lists, graph.root),
            "clustered": lambda: clustered(x, rng),
        }
        old = makers[order]()
        new = np.empty(n, np.uint32)
        new[old] = np.arange(n)
        there = lists != NONE
        lists[there] = new[lists[there] & ROW] | (lists[there] & ~np.uint32(ROW))
        lists, there = lists[old], there[old]
        gaps = np.abs((lists & ROW).astype(np.int64) - np.arange(n)[:, None])[there]
        columns[ADJACENCY].write(0, lists.view(np.uint8))
        for name in (CODES, VECTORS, IDS):
            columns[name].write(0, columns[name].read_range(0, n)[old])
        changed = replace(graph, root=int(new[graph.root]), entries=new[graph.entries])
        txn.state = replace(state, index=changed)
        if NODES in columns:
            source = db._access.writer(txn).index_input()
            with ThreadPoolExecutor(1) as pool:
                graph_nodes.pack_new_nodes(source, np.arange(n, dtype=np.uint32), 1, pool)
    with qvec.open(path) as db:
        db.compact()
    return float((gaps < 256).mean())


def seconds(db: qvec.Collection, queries: sets.Float32, ef: int) -> float:
    start = time.process_time()
    db.search(queries, 10, ef=ef, include=(), threads=1)
    return time.process_time() - start


def compare(data: Workload, layout: Any, folder: Path, args: argparse.Namespace) -> list[tuple[Any, ...]]:
    first = folder / f"{layout}.qvec"
    with qvec.create(first, data.base.shape[1], metric=data.metric, index=qvec.HNSW(layout=layout)) as db:
        db.add(data.base)
    near, opened = {}, {}
    for order in args.orders:
        path = folder / f"{layout}-{order}.qvec"
        shutil.copy(first, path)
        near[order] = put_in_order(path, order, data.base)
        opened[order] = qvec.open(path, "r", memory=args.memory)
    taken: dict[str, list[float]] = {order: [] for order in opened}
    for _ in range(args.rounds + 1):
        for order, db in opened.items():
            taken[order].append(seconds(db, data.queries, args.ef) / len(data.queries) * 1e6)
    lines = []
    for order, db in opened.items():
        recall = data.recall(db.search(data.queries, 10, ef=args.ef, include=()).ids, 10)
        least, middle = min(taken[order][1:]), float(np.median(taken[order][1:]))
        ratio = min(taken[args.orders[0]][1:]) / least
        figures = f"{near[order]:.1%}", f"{recall:.4f}", f"{least:.1f}", f"{middle:.1f}", f"{ratio:.3f}"
        lines.append((f"{data.name}, {layout}", order, *figures))
        db.close()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", nargs="*", default=sets.names())
    parser.add_argument("--layouts", nargs="*", default=["compact", "packed"])
    parser.add_argument("--orders", nargs="*", default=["random", "bfs", "clustered"])
    parser.add_argument("--memory", default="mmap", choices=["mmap", "ram"])
    parser.add_argument("--ef", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    for name in args.set:
        data = sets.load(name)
        for layout in args.layouts:
            with tempfile.TemporaryDirectory() as folder:
                print_table("", COLUMNS, compare(data, layout, Path(folder), args))


if __name__ == "__main__":
    main()
