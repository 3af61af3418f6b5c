"""Make the golden files of the format version that this checkout writes: ``python tests/golden/make.py``.

Each released version of the format has files here, with their expected answers. The files of a version are never
regenerated after its release.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import qvec
from qvec.storage.header import FORMAT_VERSION

HERE = Path(__file__).parent
DIM, N = 16, 150
COLLECTIONS: dict[str, dict[str, Any]] = {
    "graph": {"index": qvec.HNSW(m=8, ef_construction=60), "code": "int8", "metric": "cosine"},
    "packed": {"index": qvec.HNSW(m=16, ef_construction=60, layout="packed"), "code": "int4", "metric": "l2"},
    "lists": {"index": qvec.IVF(nlist=4), "code": "binary", "metric": "ip", "ids": "str"},
    "plain": {"index": "flat", "code": "rabitq2", "metric": "l2", "originals": "none"},
    "halves": {"index": "flat", "code": "int8", "metric": "cosine", "originals": "f16"},
}
FIELDS: dict[str, Any] = {"n": "int", "tag": "keyword", "tags": "keyword[]", "body": "text", "lexical": "sparse"}


def vectors() -> Any:
    """Whole numbers, the same on every machine and in every release of NumPy."""
    i = np.arange(N * DIM, dtype=np.int64)
    return ((i * 7919 + i // DIM * 104_729) % 2003 - 1000).astype(np.float32).reshape(N, DIM) / 64


def name(ids: str, i: int) -> int | str:
    return f"x{i}" if ids == "str" else i


def payload(i: int) -> dict[str, Any]:
    text = " ".join(f"word{i * j % 17}" for j in range(1, 2 + i % 9))
    weights = [[i % 11, 20 + i % 7], [1.5, 0.5 + i % 4]]
    return {"n": i, "tag": f"t{i % 3}", "tags": ["a", "b"][: i % 3], "body": text, "lexical": weights}


def make(path: Path, options: dict[str, Any]) -> None:
    ids, x = options.get("ids", "int64"), vectors()
    with qvec.create(path, DIM, fields=FIELDS, **options) as db:
        names = [name(ids, i) for i in range(N)]
        db.add(x, names, [payload(i) for i in range(N)], threads=1)
        db.delete(names[20:30])


def answers(db: qvec.Collection) -> dict[str, Any]:
    """The expected answers of a file. Vectors are multiples of 1/64."""
    x = vectors()
    where = {"n": {"$gte": 40}, "tag": "t1", "tags": {"$contains": "a"}}
    hits = [db.search(x[:20], 5, exact=True), db.search(x[5], 5, exact=True, where=where)]
    records = next(iter(db.scan(batch_size=1000)))
    return {
        "length": len(db),
        "text": db.search(text="word3 word5 word8", k=8).ids.tolist(),
        "sparse": db.search(sparse={3: 1.0, 25: 2.0}, k=8).ids.tolist(),
        "ids": [hit.ids.tolist() for hit in hits],
        "payloads": [{key: one[key] for key in one if key != "lexical"} if one else one for one in hits[1].payloads],
        "count": db.count(where),
        "scan": records.ids.tolist(),
        "vectors": np.round(64 * records.vectors[:3].astype(np.float64), 3).tolist(),
        "verify": db.verify(),
    }


def main() -> None:
    for kind, options in COLLECTIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.qvec"
            make(path, options)
            with qvec.open(path, "r") as db:
                said = answers(db)
            (HERE / f"{FORMAT_VERSION}-{kind}.qvec.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
            (HERE / f"{FORMAT_VERSION}-{kind}.json").write_text(json.dumps(said) + "\n")


if __name__ == "__main__":
    sys.exit(main())
