"""Build an index for the filtered searches of https://github.com/spcl/fanns-benchmark.

    python construct.py DATABASE_VECTORS DATABASE_ATTRIBUTES INDEX FILTER [--index hnsw] [--m 16] ...

The arguments and the printed lines are those of the project's programs for index construction. FILTER: EM, R or EMIS.
The time includes vectors, attributes and graph, and the commit to the file INDEX. The metric is l2.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from formats import FIELD, FILTERS, attributes, field_type
from process import print_process

import qvec
from qvec.bench.external import index_of
from qvec.datasets import load_vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("attributes", type=Path)
    parser.add_argument("path", type=Path)
    parser.add_argument("filter", choices=FILTERS)
    parser.add_argument("--index", choices=("hnsw", "packed"), default="hnsw")
    parser.add_argument("--code", default="int8")
    parser.add_argument("--m", type=int, default=16)
    parser.add_argument("--ef-construction", type=int, default=200)
    args = parser.parse_args()
    vectors = np.ascontiguousarray(load_vectors(args.vectors), np.float32)
    payloads = [{FIELD: value} for value in attributes(args.attributes, args.filter)]
    index = index_of(args.index, {"m": args.m, "ef_construction": args.ef_construction})
    fields = {FIELD: field_type(args.attributes, args.filter)}
    start = time.perf_counter()
    with qvec.create(args.path, vectors.shape[1], metric="l2", code=args.code, index=index, fields=fields) as db:
        db.add(vectors, payloads=payloads)
    seconds = time.perf_counter() - start
    print_process()
    print(f"Index construction time: {seconds:.3f} s")


if __name__ == "__main__":
    main()
