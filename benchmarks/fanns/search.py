"""Run the filtered queries of https://github.com/spcl/fanns-benchmark on an index of construct.py.

    python search.py QUERY_VECTORS QUERY_ATTRIBUTES GROUND_TRUTH INDEX FILTER K EF

The arguments and the printed lines are those of the project's programs for query execution: single queries on one
thread, and the share of the true neighbors that were found. The time includes the evaluation of the filters.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from formats import FILTERS, conditions, neighbors
from process import print_process

import qvec
from qvec import InputError
from qvec.datasets import load_vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("vectors", "attributes", "ground_truth", "path"):
        parser.add_argument(name, type=Path)
    parser.add_argument("filter", choices=FILTERS)
    parser.add_argument("k", type=int)
    parser.add_argument("ef", type=int)
    args = parser.parse_args()
    queries = np.ascontiguousarray(load_vectors(args.vectors), np.float32)
    filters = conditions(args.attributes, args.filter)
    truth = neighbors(args.ground_truth, args.k)
    if not len(queries) == len(filters) == len(truth):
        raise InputError(f"{len(queries)} queries, {len(filters)} conditions and {len(truth)} rows of true neighbors")
    with qvec.open(args.path, "r") as db:
        start = time.perf_counter()
        found = [
            db.search(query, args.k, where=where, ef=args.ef).ids for query, where in zip(queries, filters, strict=True)
        ]
        seconds = time.perf_counter() - start
    right = sum(len(np.intersect1d(ids, row)) for ids, row in zip(found, truth, strict=True))
    print_process()
    print(f"Queries per second: {len(queries) / seconds:.3f}")
    print(f"Recall: {right / max(1, sum(map(len, truth))):.3f}")


if __name__ == "__main__":
    main()
