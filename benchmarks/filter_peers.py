"""Filtered searches of other libraries behind the same three calls. Libraries that are not installed are skipped."""

from __future__ import annotations

import importlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

import qvec
from qvec.datasets import Workload

K = 10
M, EF_CONSTRUCTION = 16, 200  # of graphs, where they can be chosen
Columns = dict[str, npt.NDArray[np.int64]]
Ids = npt.NDArray[np.int64]


class Contestant(ABC):
    """A set with integer columns. ``prepare`` returns a search of one query among rows with column < limit."""

    module: ClassVar[str]
    name: ClassVar[str]
    efforts: ClassVar[tuple[int, ...]] = (10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 130, 160, 250, 400, 800, 1600)

    @abstractmethod
    def __init__(self, data: Workload, columns: Columns, folder: Path) -> None: ...

    @abstractmethod
    def prepare(self, column: str, limit: int, effort: int) -> Callable[[npt.NDArray[np.float32]], Ids]: ...


class Qvec(Contestant):
    module, name = "qvec", "qvec"

    def __init__(self, data: Workload, columns: Columns, folder: Path) -> None:
        fields: dict[str, Any] = dict.fromkeys(columns, "int")
        self.db = qvec.create(folder / "a.qvec", data.base.shape[1], metric=data.metric, index="hnsw", fields=fields)
        self.db.add(data.base, payloads=list(rows(columns)))

    def prepare(self, column: str, limit: int, effort: int) -> Callable[[npt.NDArray[np.float32]], Ids]:
        where = {column: {"$lt": limit}}
        return lambda query: self.db.search(query, K, ef=effort, where=where, include=()).ids


class Faiss(Contestant):
    """faiss with a bitmap that is made before the time is measured."""

    module, name = "faiss", "faiss HNSW, selector"

    def __init__(self, data: Workload, columns: Columns, folder: Path) -> None:
        import faiss

        self.faiss, self.columns, self.unit = faiss, columns, data.metric == "cosine"
        metric = faiss.METRIC_L2 if data.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self.index = faiss.IndexHNSWFlat(data.base.shape[1], M, metric)
        self.index.hnsw.efConstruction = EF_CONSTRUCTION
        self.index.add(normal(data.base) if self.unit else data.base)
        faiss.omp_set_num_threads(1)

    def prepare(self, column: str, limit: int, effort: int) -> Callable[[npt.NDArray[np.float32]], Ids]:
        bits = np.packbits(self.columns[column] < limit, bitorder="little")
        selector = self.faiss.IDSelectorBitmap(bits)
        params = self.faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
        params.kept = (selector, bits)

        def search(query: npt.NDArray[np.float32]) -> Ids:
            found: Ids = self.index.search(normal(query[None]) if self.unit else query[None], K, params=params)[1][0]
            return found

        return search


class Chroma(Contestant):
    module, name = "chromadb", "chroma"

    def __init__(self, data: Workload, columns: Columns, folder: Path) -> None:
        import chromadb

        space = {"cosine": "cosine", "ip": "ip", "l2": "l2"}[data.metric]
        hnsw = {"space": space, "ef_construction": EF_CONSTRUCTION, "max_neighbors": M}
        client = chromadb.PersistentClient(str(folder / "chroma"))
        self.collection = client.create_collection("bench", configuration={"hnsw": hnsw})
        metadata = list(rows(columns))
        for part in parts(len(data.base), 5000):
            names, held = [str(j) for j in part], [metadata[j] for j in part]
            self.collection.add(ids=names, embeddings=data.base[part], metadatas=held)

    def prepare(self, column: str, limit: int, effort: int) -> Callable[[npt.NDArray[np.float32]], Ids]:
        self.collection.modify(configuration={"hnsw": {"ef_search": effort}})
        where = {column: {"$lt": limit}}

        def search(query: npt.NDArray[np.float32]) -> Ids:
            found = self.collection.query(query_embeddings=[query], n_results=K, where=where, include=[])
            return np.array(found["ids"][0], np.int64)

        return search


class Lance(Contestant):
    module, name = "lancedb", "lancedb IVF_HNSW_SQ"
    efforts = (1, 2, 4, 8, 16, 32, 64)

    def __init__(self, data: Workload, columns: Columns, folder: Path) -> None:
        import lancedb
        import pyarrow

        dim = data.base.shape[1]
        vectors = pyarrow.FixedSizeListArray.from_arrays(data.base.reshape(-1), dim)
        table = pyarrow.table({"id": np.arange(len(data.base)), "vector": vectors, **columns})
        self.table = lancedb.connect(str(folder / "lance")).create_table("bench", table)
        self.table.create_index(metric=data.metric.replace("ip", "dot"), index_type="IVF_HNSW_SQ")
        for column in columns:
            self.table.create_scalar_index(column)

    def prepare(self, column: str, limit: int, effort: int) -> Callable[[npt.NDArray[np.float32]], Ids]:
        condition = f"{column} < {limit}"

        def search(query: npt.NDArray[np.float32]) -> Ids:
            found = self.table.search(query).where(condition, prefilter=True).select(["id", "_distance"]).limit(K)
            rows_found = found.nprobes(effort).ef(32 + 16 * effort).refine_factor(2).to_arrow()
            return np.asarray(rows_found["id"])

        return search


class Qdrant(Contestant):
    module, name = "qdrant_edge", "qdrant edge"

    def __init__(self, data: Workload, columns: Columns, folder: Path) -> None:
        import qdrant_edge as q

        self.q = q
        distance = {"cosine": q.Distance.Cosine, "ip": q.Distance.Dot, "l2": q.Distance.Euclid}[data.metric]
        graph = q.HnswIndexConfig(m=M, ef_construct=EF_CONSTRUCTION, full_scan_threshold=10_000)
        vectors = q.EdgeVectorParams(size=data.base.shape[1], distance=distance)
        place = folder / "qdrant"
        place.mkdir()
        self.shard = q.EdgeShard.create(str(place), q.EdgeConfig(vectors=vectors, hnsw_config=graph))
        payload = list(rows(columns))
        for part in parts(len(data.base), 5000):
            points = [q.Point(j, data.base[j].tolist(), payload[j]) for j in part]
            self.shard.update(q.UpdateOperation.upsert_points(points))
        for column in columns:
            self.shard.update(q.UpdateOperation.create_field_index(column, q.PayloadSchemaType.Integer))
        self.shard.optimize()

    def prepare(self, column: str, limit: int, effort: int) -> Callable[[npt.NDArray[np.float32]], Ids]:
        q = self.q
        condition = q.Filter(must=[q.FieldCondition(column, range=q.RangeFloat(lt=float(limit)))])
        params = q.SearchParams(hnsw_ef=effort)

        def search(query: npt.NDArray[np.float32]) -> Ids:
            request = q.SearchRequest(q.Query.Nearest(query.tolist()), K, filter=condition, params=params)
            return np.array([point.id for point in self.shard.search(request)], np.int64)

        return search


class Zvec(Contestant):
    module, name = "zvec", "zvec"

    def __init__(self, data: Workload, columns: Columns, folder: Path) -> None:
        import zvec

        self.zvec = zvec
        metric = {"cosine": zvec.MetricType.COSINE, "ip": zvec.MetricType.IP, "l2": zvec.MetricType.L2}[data.metric]
        index = zvec.HnswIndexParam(metric_type=metric, m=M, ef_construction=EF_CONSTRUCTION)
        vector = zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, data.base.shape[1], index)
        inverted = zvec.InvertIndexParam(enable_range_optimization=True)
        fields = [zvec.FieldSchema(column, zvec.DataType.INT64, index_param=inverted) for column in columns]
        schema = zvec.CollectionSchema("bench", fields, vector)
        self.collection = zvec.create_and_open(str(folder / "zvec"), schema)
        payload = list(rows(columns))
        for part in parts(len(data.base), 500):
            docs = [zvec.Doc(str(j), vectors={"vector": data.base[j]}, fields=payload[j]) for j in part]
            self.collection.insert(docs)
        self.collection.optimize()

    def prepare(self, column: str, limit: int, effort: int) -> Callable[[npt.NDArray[np.float32]], Ids]:
        zvec, condition = self.zvec, f"{column} < {limit}"

        def search(query: npt.NDArray[np.float32]) -> Ids:
            asked = zvec.Query("vector", vector=query, param=zvec.HnswQueryParam(ef=effort))
            found = self.collection.query(asked, topk=K, filter=condition, output_fields=[])
            return np.array([int(doc.id) for doc in found], np.int64)

        return search


def parts(n: int, size: int) -> Iterator[range]:
    """Rows 0 to n - 1, ``size`` at a time."""
    return (range(i, min(i + size, n)) for i in range(0, n, size))


def rows(columns: Columns) -> Iterator[dict[str, int]]:
    """Payloads, row by row."""
    for values in zip(*(column.tolist() for column in columns.values()), strict=True):
        yield dict(zip(columns, values, strict=True))


def normal(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def installed(names: list[str]) -> list[type[Contestant]]:
    """The named contestants whose modules can be imported."""
    kinds = [kind for kind in (Qvec, Faiss, Chroma, Lance, Qdrant, Zvec) if kind.module in names]
    for kind in list(kinds):
        try:
            importlib.import_module(kind.module)
        except ImportError:
            print(f"{kind.name}: not installed")
            kinds.remove(kind)
    return kinds


def folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bench-")


ALL = ("qvec", "faiss", "chromadb", "lancedb", "qdrant_edge", "zvec")
