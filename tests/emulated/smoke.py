"""The whole package in one process, as it runs on another architecture or page size: prints "ok" if all is well.

    smoke.py FOLDER LEVEL PAGE_BYTES GOLDEN

LEVEL: of SIMD, which must be the machine's best. GOLDEN: folder of files that another machine has written.
"""

from __future__ import annotations

import gzip
import itertools
import json
import mmap
import sys
from pathlib import Path
from typing import Any

import numpy as np

import qvec
from qvec import shards
from qvec._kernels import simd_levels

DIM, N, K = 48, 700, 10
CODES = ("f32", "f16", "bf16", "int8", "int4", "ternary", "binary", "rabitq1", "rabitq4", "rabitq8", "mixed")
RNG = np.random.default_rng(0)
CENTERS = RNG.normal(size=(20, DIM))
X = (CENTERS[RNG.integers(0, 20, N)] + 0.5 * RNG.normal(size=(N, DIM))).astype(np.float32)
Q = (X[:20] + 0.1 * RNG.normal(size=(20, DIM))).astype(np.float32)


def nearest(rows: Any) -> list[set[int]]:
    far = ((Q[:, None].astype(np.float64) - X[rows][None]) ** 2).sum(axis=2)
    return [{*np.asarray(rows)[np.argsort(line)[:K]].tolist()} for line in far]


def recall(found: Any, rows: Any) -> float:
    pairs = zip(found.ids.tolist(), nearest(rows), strict=True)
    return float(np.mean([len({*line} & truth) / K for line, truth in pairs]))


def check_code(folder: Path, code: str) -> None:
    with qvec.create(folder / f"{code}.qvec", DIM, metric="l2", code=code, fields={"n": "int"}) as db:
        db.add(X, payloads=[{"n": i} for i in range(N)])
        assert recall(db.search(Q, K, exact=True), np.arange(N)) == 1.0
        assert recall(db.search(Q, K, oversample=40), np.arange(N)) > 0.9, code
        some = db.search(Q, K, where={"n": {"$gte": 300, "$lt": 600}}, oversample=40)
        assert recall(some, np.arange(300, 600)) > 0.9, code
        db.delete(np.arange(0, N, 2))
        db.optimize()
        assert recall(db.search(Q, K, oversample=40), np.arange(1, N, 2)) > 0.9, code
        assert db.verify() == [], code


def check_index(folder: Path, name: str, index: Any) -> None:
    with qvec.create(folder / f"{name}.qvec", DIM, metric="cosine", index=index, code="int8") as db:
        db.add(X)
        exact = db.search(Q, K, exact=True).ids.tolist()
        found = db.search(Q, K, ef=200).ids if name != "ivf" else db.search(Q, K, nprobe=15).ids
        assert np.mean([len({*a} & {*b}) / K for a, b in zip(found.tolist(), exact, strict=True)]) > 0.95, name
        db.backup(folder / f"{name}-copy.qvec")
    with qvec.open(folder / f"{name}-copy.qvec", "r", memory="ram") as copy:
        assert copy.search(Q, K, exact=True).ids.tolist() == exact
        assert copy.verify() == []


def check_text(folder: Path) -> None:
    """Text, sparse and fused searches against sums in float64."""
    words = [[f"w{int(i)}" for i in np.minimum(RNG.zipf(1.5, 1 + row % 40), 300)] for row in range(N)]
    weights = [{int(i): float(1 + i % 7) for i in RNG.choice(90, 6, replace=False)} for _ in range(N)]
    fields: dict[str, Any] = {"body": qvec.Text(positions=True), "lexical": "sparse"}
    with qvec.create(folder / "text.qvec", DIM, metric="cosine", fields=fields) as db:
        for start in range(0, N, 100):
            part = slice(start, start + 100)
            texts = [{"body": " ".join(line)} for line in words[part]]
            db.add(X[part], payloads=texts, sparse={"lexical": weights[part]})
        db.delete(np.arange(0, N, 5))
        live = [row for row in range(N) if row % 5]
        for query in (("w1",), ("w2", "w40"), ("w1", "w3", "w7", "w90")):
            best = np.sort(bm25([words[row] for row in live], query))[::-1][:K]
            np.testing.assert_allclose(db.search(text=" ".join(query), k=K).scores, best, rtol=1e-5)
        by_weights = [sum(w * weights[row].get(i, 0.0) for i, w in weights[3].items()) for row in live]
        np.testing.assert_allclose(db.search(sparse=weights[3], k=K).scores, np.sort(by_weights)[::-1][:K], rtol=1e-2)
        fused = db.search(X[7], K, text=" ".join(words[7]), sparse=weights[7], where={"body": {"$match": words[7][0]}})
        assert fused.ids[0] == 7
        phrase = db.search(text=f'"{words[9][0]} {words[9][1]}"', k=N).ids.tolist()
        adjacent = {row for row in live if (words[9][0], words[9][1]) in itertools.pairwise(words[row])}
        assert {*phrase} - {-1} == adjacent
        db.optimize()
        db.erase([row for row in live if row % 50 == 1])
        assert db.verify() == []


def bm25(texts: list[list[str]], query: tuple[str, ...]) -> Any:
    lengths = np.array([*map(len, texts)], np.float64)
    scores = np.zeros(len(texts))
    for word in query:
        often = np.array([text.count(word) for text in texts], np.float64)
        found = (often > 0).sum()
        idf = np.log(1 + (len(texts) - found + 0.5) / (found + 0.5))
        scores += idf * often / (often + 1.2 * (0.25 + 0.75 * lengths / lengths.mean()))
    return scores


def check_set(folder: Path) -> None:
    shards.create(folder / "set", DIM, metric="l2", partition="cluster", shards=3, sample=X)
    block = shards.write_block(folder / "set", "b", X, np.arange(N))
    shards.commit(folder / "set", [shards.merge(folder / "set", number, [block]) for number in range(3)])
    with shards.open(folder / "set") as index:
        index.upsert(X[:5], np.arange(N, N + 5))
        assert index.search(X[7], 1).ids.tolist() == [7]
        assert index.verify() == []


def check_golden(folder: Path, golden: Path) -> None:
    """Files of another machine, possibly with pages of another size."""
    for packed in sorted(golden.glob("*.qvec.gz")):
        path = folder / packed.name.removesuffix(".gz")
        path.write_bytes(gzip.decompress(packed.read_bytes()))
        expected = json.loads((golden / path.name.replace(".qvec", ".json")).read_text())
        with qvec.open(path) as db:
            assert db.verify() == [], path.name
            assert len(db) > 0
            assert expected


def main(folder: Path, level: str, page: int, golden: Path) -> None:
    assert qvec.simd_level() == level, (qvec.simd_level(), simd_levels())
    assert page == mmap.PAGESIZE, mmap.PAGESIZE
    for code in CODES:
        check_code(folder, code)
    for name, index in (("flat", "flat"), ("hnsw", "hnsw"), ("packed", "packed"), ("ivf", qvec.IVF(nlist=16))):
        check_index(folder, name, index)
    check_text(folder)
    check_set(folder)
    check_golden(folder, golden)
    print("ok")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
