"""Sparse vectors like those of SPLADE: recall of lists with eight-bit weights, and speed against a SciPy product.

A passage has the tf-idf weights of its terms, and for each term those of the five nearest terms by embeddings, times .3
and their cosine. A term's embedding is the mean of those of the passages with it. Queries are made likewise. Times are
CPU seconds of one thread, in alternating parts of the queries.

    QVEC_TEXT_DATA=DIR python benchmarks/bench_sparse.py [--rows N] [--queries N]

DIR is as in bench_text.py, with ``base.npy``, the embeddings of the passages.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from scipy import sparse

import qvec
from qvec.bench.text import load_texts

K, EXPANDED, SHARE, LEAST_ROWS, BATCH = 10, 5, 0.3, 30, 2000


def term_counts(texts: list[list[str]], numbers: dict[str, int]) -> sparse.csr_matrix:
    """Frequencies, [texts, terms]."""
    rows, columns, values = [], [], []
    for row, words in enumerate(texts):
        for word, count in Counter(words).items():
            if word in numbers:
                rows.append(row)
                columns.append(numbers[word])
                values.append(count)
    return sparse.csr_matrix((np.array(values, np.float32), (rows, columns)), (len(texts), len(numbers)))


def expansion(counts: sparse.csr_matrix, base: np.ndarray) -> sparse.csr_matrix:
    """[terms, terms]: 1 for a term itself, and SHARE times the cosine for its nearest terms."""
    vectors = (counts > 0).astype(np.float32).T @ base
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    vectors -= vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    n, parts = len(vectors), []
    for start in range(0, n, 1000):
        cos = vectors[start : start + 1000] @ vectors.T
        cos[np.arange(len(cos)), np.arange(start, start + len(cos))] = -1
        near = np.argpartition(-cos, EXPANDED, axis=1)[:, :EXPANDED]
        weights = np.maximum(np.take_along_axis(cos, near, 1), 0) * SHARE
        rows = np.repeat(np.arange(len(cos)), EXPANDED)
        parts.append(sparse.csr_matrix((weights.ravel(), (rows, near.ravel())), (len(cos), n)))
    return sparse.identity(n, np.float32, "csr") + sparse.vstack(parts, "csr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("QVEC_TEXT_DATA"))
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--queries", type=int, default=300)
    args = parser.parse_args()
    if args.data is None:
        parser.error("give --data, or the environment variable QVEC_TEXT_DATA")
    texts, queries = load_texts(Path(args.data), args.rows, args.queries)
    words = [text.split(" ") for text in texts]
    seen = Counter(word for one in words for word in set(one))
    numbers = {word: i for i, word in enumerate(w for w, n in seen.items() if LEAST_ROWS <= n < len(words) / 10)}
    base = np.load(Path(args.data) / "base.npy", mmap_mode="r")[: len(words)].astype(np.float32)
    counts = term_counts(words, numbers)
    idf = sparse.diags(np.log(len(words) / np.array([seen[word] for word in numbers], np.float32)))
    expanded = expansion(counts[: len(base)], base)
    x = (counts.log1p() @ idf @ expanded).astype(np.float32).tocsr()
    q = (term_counts(queries, numbers) @ idf @ expanded).astype(np.float32).tocsr()
    print(f"{x.shape[0]:,} rows with {x.nnz / x.shape[0]:.0f} ids, queries with {q.nnz / q.shape[0]:.0f}")
    with tempfile.TemporaryDirectory() as folder:
        db = qvec.create(Path(folder) / "a.qvec", 1, metric="l2", code="f32", index="flat", fields={"s": "sparse"})
        begin = time.process_time()
        for start in range(0, x.shape[0], BATCH):
            part = x[start : start + BATCH]
            db.add(np.zeros((part.shape[0], 1), np.float32), sparse={"s": part})
        db.optimize()
        print(f"indexed {x.shape[0] / (time.process_time() - begin):,.0f} rows/CPU s")
        seconds = dict.fromkeys(("scipy", "qvec", "qvec, lists only"), 0.0)
        found = dict.fromkeys(seconds, 0.0)
        for i in range(q.shape[0]):
            begin = time.process_time()
            products = np.asarray((x @ q[i].T).todense()).ravel()
            best = np.argpartition(-products, K)[:K]
            seconds["scipy"] += time.process_time() - begin
            least = products[best].min() * (1 - 1e-6)
            for name, options in (("qvec", {}), ("qvec, lists only", {"oversample": 0})):
                begin = time.process_time()
                hits = db.search(sparse=(q[i].indices, q[i].data), k=K, include=(), **options)
                seconds[name] += time.process_time() - begin
                found[name] += (products[hits.ids[: len(hits)]] >= least).sum() / K
        for name, used in seconds.items():
            recall = f"recall@{K} {found[name] / q.shape[0]:.4f}" if found[name] else ""
            print(f"{name:<18} {q.shape[0] / used:>9,.0f} queries/s {recall}")
        db.close()


if __name__ == "__main__":
    main()
