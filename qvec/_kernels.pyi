from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Condition, RLock
from typing import Any, NoReturn, TypeAlias, TypeVar, final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Buffer

Floats: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]
T = TypeVar("T")

# codec.pxi

def simd_level() -> str: ...
def simd_levels() -> list[str]: ...
def crc32c(data: bytes | bytearray | memoryview | NDArray[Any], crc: int = 0) -> int: ...
def seal_pairs(prefix: bytes, names: list[bytes], payloads: list[bytes]) -> tuple[list[tuple[bytes, bytes]], int]: ...
def plain_bytes(value: object, depth: int) -> int: ...
def plain_norm2(x: object, dim: int) -> float: ...
def transform(x: Floats, padded: int, normalize: bool, mean: Floats | None, signs: Bytes | None) -> Floats: ...
def offset_rows(offsets: Floats) -> Bytes: ...
def offset_values(rows: Bytes, dim: int) -> Floats: ...

# project.pxi

PANEL: int

def project(x: Floats, panels: Floats, *, simd: str | None = None) -> Floats: ...

@final
class QueryMap:
    def __init__(
        self,
        dim: int,
        width: int,
        padded: int,
        normalize: bool,
        mean: Floats | None,
        panels: Floats | None,
        signs: Bytes | None,
    ) -> None: ...

def fastscan_encode(residuals: Floats, center: Floats, metric: str) -> tuple[Bytes, Floats]: ...
def fastscan_table(q: Floats) -> tuple[Bytes, float]: ...
def fastscan_sums(codes: Bytes, table: Bytes, *, simd: str | None = None) -> NDArray[np.int32]: ...

class Codec:
    def __init__(
        self,
        kind: str,
        metric: str,
        dim: int,
        *,
        lower: Floats | None = None,
        step: Floats | None = None,
        integers: bool = False,
        rounding: str = "nearest",
        simd: str | None = None,
        bits: int | None = None,
        widths: Bytes | None = None,
        center: Floats | None = None,
        offsets: Bytes | None = None,
    ) -> None: ...
    @property
    def kind(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def data_size(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def spare_bytes(self) -> int: ...
    @property
    def query_size(self) -> int: ...
    @property
    def n_centroids(self) -> int: ...
    @property
    def has_factors(self) -> bool: ...
    @property
    def has_ranges(self) -> bool: ...
    @property
    def simd(self) -> str: ...
    def encode(self, x: Floats) -> Bytes: ...
    def decode(self, rows: Bytes) -> Floats: ...
    def prepare(self, q: Floats) -> Bytes: ...
    def prepare_rows(self, rows: Bytes) -> Bytes: ...
    def score(self, prepared: Bytes, rows: Bytes) -> Floats: ...

# column.pxi: blocks and columns

def page_of(value: Buffer) -> tuple[int, int]: ...
def chunk_entries(psize: int) -> int: ...
def keep_forever(thing: object) -> None: ...
def trim_heap() -> None: ...

@final
class Column:
    def __init__(
        self,
        name: str,
        id: int,
        generation: int,
        stride: int,
        rows_per_block: int,
        pages: int,
        psize: int,
        *,
        verify: bool = True,
        writable: bool = False,
        row_sums: bool = False,
    ) -> None: ...
    whole_after: int
    @property
    def row_sums(self) -> bool: ...
    @property
    def name(self) -> str: ...
    @property
    def writable(self) -> bool: ...
    @property
    def id(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def rows_per_block(self) -> int: ...
    @property
    def pages(self) -> int: ...
    @property
    def n_blocks(self) -> int: ...
    @property
    def n_rows(self) -> int: ...
    @property
    def private_bytes(self) -> int: ...
    def resize(self, n_rows: int) -> None: ...
    def read(self, rows: ArrayLike) -> NDArray[np.uint8]: ...
    def read_range(self, start: int, stop: int) -> NDArray[np.uint8]: ...
    def write(self, start: int, rows: NDArray[np.uint8]) -> None: ...
    def put(self, rows: ArrayLike, values: NDArray[np.uint8]) -> None: ...
    def attach(self, base: int, size: int) -> None: ...
    def load(self, chunk: int, value: Buffer, crc: int) -> None: ...
    def place(self, block: int, value: Buffer) -> None: ...
    @property
    def resident(self) -> bool: ...
    @property
    def resident_bytes(self) -> int: ...
    def clone(self, *, writable: bool = False) -> Column: ...
    def check(self, block: int) -> bool: ...
    def dirty(self) -> NDArray[np.int64]: ...
    def seal(self, block: int, txn_id: int) -> memoryview: ...
    def set_page(self, block: int, value: Buffer) -> None: ...
    def discard(self, block: int) -> None: ...
    def pack_chunk(self, chunk: int, txn_id: int) -> tuple[bytes, int]: ...
    def release(self) -> None: ...

def make_resident(columns: Iterable[Column], fd: int, budget: int | None = None) -> None: ...

# Search (kernels/search/search.pxi)

WORD_ROWS: int
CHUNK_ROWS: int

def bits_between(
    values: Column,
    n: int,
    bounds: NDArray[np.uint64],
    bits: NDArray[np.uint64],
    *,
    simd: str | None = None,
) -> None: ...
def bits_roaring(data: bytes | memoryview, chunk: int, n: int, bits: NDArray[np.uint64]) -> bool: ...
def roaring_count(data: bytes | memoryview, chunk: int, n: int, bits: NDArray[np.uint64]) -> int: ...
def roaring_fill(data: bytes | memoryview, chunk: int, value: int, values: NDArray[np.uint32]) -> bool: ...
def bits_histogram(values: NDArray[np.uint32], bits: NDArray[np.uint64], counts: NDArray[np.int64]) -> None: ...
def bits_set(rows: NDArray[np.uint32], n: int, bits: NDArray[np.uint64]) -> None: ...
def bits_count(words: NDArray[np.uint64]) -> int: ...
def bits_rows(words: NDArray[np.uint64]) -> NDArray[np.uint32]: ...

class Finder:
    columns: list[Column]

@final
class Selection:
    n: int
    excluded: NDArray[np.uint64] | None
    rows: NDArray[np.uint32] | None
    seeds: NDArray[np.uint32] | None
    def __init__(
        self,
        n: int,
        n_allowed: int,
        excluded: NDArray[np.uint64] | None = None,
        rows: NDArray[np.uint32] | None = None,
        seeds: NDArray[np.uint32] | None = None,
    ) -> None: ...
    @property
    def n_allowed(self) -> int: ...

@final
class SearchParams:
    def __init__(self, k: int, *, ef: int = 0, nprobe: int = 0, candidates: int = 0, exact: bool = False) -> None: ...
    @property
    def k(self) -> int: ...
    @property
    def ef(self) -> int: ...
    @property
    def nprobe(self) -> int: ...
    @property
    def candidates(self) -> int: ...
    @property
    def exact(self) -> bool: ...
    def replace(self, *, ef: int | None = None, nprobe: int | None = None) -> SearchParams: ...

@final
class Deadline:
    seconds: float
    def __init__(self, seconds: float) -> None: ...
    @property
    def left(self) -> float: ...
    def watch(self, items: Iterable[T]) -> Iterator[T]: ...
    def check(self) -> int: ...
    def fail(self) -> NoReturn: ...

@final
class Searcher:
    hops: int
    evaluations: int
    reranked: int
    kernel_ns: int
    def __init__(
        self,
        codec: Codec,
        codes: Column,
        n: int,
        finder: Finder | None = None,
        rerank: Codec | None = None,
        vectors: Column | None = None,
        map: QueryMap | None = None,
        unindexed: NDArray[np.uint32] | None = None,
        timed: bool = False,
    ) -> None: ...
    @property
    def phase_ns(self) -> tuple[int, int, int, int]: ...
    def search(
        self, q: Floats, params: SearchParams, selection: Selection, deadline: Deadline | None = None
    ) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]: ...
    def search_into(
        self,
        q: Floats,
        params: SearchParams,
        selection: Selection,
        rows: NDArray[np.int64],
        distances: Floats,
        counts: NDArray[np.int64],
        start: int,
        stop: int,
        deadline: Deadline | None = None,
    ) -> None: ...

# The graph (kernels/graph/graph.pxi)

@final
class GraphFinder(Finder):
    def __init__(self, codec: Codec, codes: Column, adjacency: Column, n: int, entries: NDArray[np.uint32]) -> None: ...

@final
class Linker:
    def __init__(
        self,
        codec: Codec,
        codes: Column,
        adjacency: Column,
        n: int,
        entries: NDArray[np.uint32],
        root: int,
        alpha: float,
        fill: float,
        deleted: NDArray[np.uint64] | None = None,
    ) -> None: ...
    @property
    def changed(self) -> NDArray[np.uint32]: ...
    def set_entries(self, entries: NDArray[np.uint32], root: int) -> None: ...
    def set_repeats(self, repeats: NDArray[np.uint64]) -> None: ...
    def set_distinct(self, distinct: bool) -> None: ...
    def link_duplicates(self, rows: NDArray[np.uint32], first: NDArray[np.uint32]) -> None: ...
    def begin(self, rows: NDArray[np.uint32]) -> None: ...
    def link_out(self, ef: int, n_reverse: int) -> None: ...
    def pending(self, rows: NDArray[np.uint32], first: int, stop: int) -> None: ...
    def group(self) -> None: ...
    def link_in(self) -> None: ...
    def finish(self) -> None: ...

@final
class PartitionLinker:
    n_assign: int
    n_clusters: int
    n_parts: int
    def __init__(
        self,
        codec: Codec,
        codes: Column,
        adjacency: Column,
        n: int,
        rows: NDArray[np.uint32],
        root: int,
        alpha: float,
        fill: float,
        *,
        fanout: int,
        leaf_fanout: int,
        nearest: int,
        n_leaders: int,
        seed: int,
    ) -> None: ...
    @property
    def changed(self) -> NDArray[np.uint32]: ...
    @property
    def part_bytes(self) -> int: ...
    @property
    def cluster_bytes(self) -> int: ...
    def spill(self, n_in_memory: int, buffer: Buffer) -> None: ...
    def assign(self, unit: int) -> None: ...
    def group(self) -> None: ...
    def cluster(self, unit: int) -> None: ...
    def prune(self, unit: int) -> None: ...
    def reverse(self) -> None: ...
    def write(self, unit: int) -> None: ...
    def tree(self, equal: NDArray[np.uint32], first: NDArray[np.uint32]) -> None: ...

def pair_keys(
    codec: Codec, rows: Bytes, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]: ...
def first_equals(codec: Codec, codes: Column, rows: NDArray[np.uint32]) -> NDArray[np.uint32]: ...

@final
class GraphRepair:
    def __init__(
        self,
        codec: Codec,
        codes: Column,
        adjacency: Column,
        n: int,
        root: int,
        alpha: float,
        deleted: NDArray[np.uint64],
        removing: NDArray[np.uint64],
    ) -> None: ...
    @property
    def changed(self) -> NDArray[np.uint32]: ...
    def replace_root(self) -> int | None: ...
    def begin(self, rows: NDArray[np.uint32]) -> None: ...
    def relink(self) -> None: ...
    def reparent_children(self) -> None: ...

def reachable(
    codec: Codec,
    codes: Column,
    adjacency: Column,
    n: int,
    entries: NDArray[np.uint32],
    root: int,
    tree_only: bool = False,
) -> NDArray[np.uint64]: ...

# Packed nodes (kernels/graph/nodes.pxi)

def node_shape(codec: Codec, degree: int) -> tuple[int, int]: ...

@final
class Packer:
    def __init__(
        self, codec: Codec, codes: Column, adjacency: Column, nodes: Column, n: int, signs: NDArray[np.uint8]
    ) -> None: ...
    def begin(self, rows: NDArray[np.uint32]) -> None: ...
    def run(self) -> None: ...
    def wrong(self, start: int, stop: int) -> NDArray[np.uint32]: ...

@final
class PackedFinder(Finder):
    def __init__(
        self,
        codec: Codec,
        codes: Column,
        nodes: Column,
        n: int,
        degree: int,
        signs: NDArray[np.uint8],
        entries: NDArray[np.uint32],
    ) -> None: ...

# Inverted lists (kernels/ivf/ivf.pxi)

LIST_BYTES: int
MAX_COPIES: int

def list_block_bytes(dims: int) -> int: ...

@final
class Lists:
    def __init__(
        self,
        blocks: Column,
        lists: Column,
        centroids: Column,
        slots: Column,
        dim: int,
        metric: str,
        signs: Bytes,
        n_lists: int,
        n: int,
        n_blocks: int,
        n_free: int,
        free_block: int,
    ) -> None: ...
    @property
    def n_lists(self) -> int: ...
    @property
    def copies(self) -> int: ...
    @property
    def dims(self) -> int: ...
    @property
    def n_blocks(self) -> int: ...
    @property
    def n_free(self) -> int: ...
    @property
    def free_block(self) -> int: ...
    def vectors(self, x: Floats) -> Floats: ...
    def begin(self, centroids: Floats, spreads: Floats) -> None: ...
    def assign(self, y: Floats, copies: int) -> tuple[NDArray[np.uint32], Floats]: ...
    def append(
        self,
        rows: NDArray[np.uint32],
        y: Floats,
        owners: NDArray[np.uint32],
        copies: NDArray[np.uint8],
        losses: Floats | None = None,
    ) -> None: ...
    def remove(self, rows: NDArray[np.uint32]) -> None: ...
    def move(self, old: NDArray[np.uint32], new: NDArray[np.uint32]) -> None: ...
    def holds(self, rows: NDArray[np.uint32], y: Floats) -> NDArray[np.bool_]: ...
    def decode(self, rows: NDArray[np.uint32]) -> tuple[Floats, Floats]: ...
    def center(self, rotated: Floats) -> Floats: ...

@final
class ListFinder(Finder):
    def __init__(
        self,
        lists: Lists,
        codec: Codec,
        codes: Column,
        comparable: bool,
        original: Codec | None = None,
        originals: Column | None = None,
    ) -> None: ...

# Reads and prepared searches (kernels/search/prepared.pxi)

def fork_epoch() -> int: ...
def count_fork() -> None: ...

class EnvironmentBase:
    lmdb: Any
    lock: RLock
    idle: Condition
    open_reads: int
    waiting: int
    is_exclusive: bool

class ViewBase:
    txn_id: int
    users: int
    derived: dict[Any, Any]
    columns: dict[str, Column]
    state: Any

class SnapshotBase:
    env: Any
    txn: Any
    view: Any
    epoch: int
    thread: int
    def __init__(self, env: EnvironmentBase, txn: Any, view: ViewBase) -> None: ...
    def live(self) -> Any: ...
    @property
    def derived(self) -> dict[Any, Any]: ...
    @property
    def columns(self) -> Mapping[str, Column]: ...
    @property
    def state(self) -> Any: ...
    @property
    def txn_id(self) -> int: ...

class ResultArrays:
    ids: Any
    distances: Any
    zero_score: float
    _counts: Any
    _payloads: list[Any] | None
    _extras: Any

class StoreBase:
    env: Any
    view: Any
    joined: Any
    path: Any
    snapshot_type: Any
    is_closed: bool
    epoch: int
    open_snapshots: set[Any]
    running: int
    searches: int
    @property
    def is_sampled(self) -> bool: ...
    def begin(self, deadline: Deadline | None = None) -> Any: ...
    def end(self, snapshot: Any) -> None: ...
    def search_prepared(self, query: Any, raw: tuple[Any, ...]) -> Any: ...

@final
class PreparedSearch:
    raw: tuple[Any, ...]
    options: Any
    plan: SearchParams
    def __init__(
        self,
        raw: tuple[Any, ...],
        options: Any,
        plan: SearchParams,
        searcher: Searcher,
        params: SearchParams,
        selection: Selection,
        *,
        dim: int,
        max_norm2: float,
        hits: type | None,
        ids: Column | None,
        payloads: bool,
        zero_score: float,
        extras: object,
    ) -> None: ...
    def find(
        self, query: object, deadline: Deadline | None = None
    ) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]] | None: ...

def find_prepared(derived: dict[str, Any], raw: tuple[Any, ...]) -> PreparedSearch | None: ...
def add_prepared(derived: dict[str, Any], search: PreparedSearch) -> None: ...
def ids_of_rows(ids: Column, rows: NDArray[np.int64]) -> NDArray[np.int64]: ...

# posting lists of text and sparse fields

MAX_TERM_BYTES: int
SEGMENT_STRIDE: int
LENGTHS_PER_ROW: int

def split_ascii(text: str) -> list[str] | None: ...

class TermBatch:
    kind: str
    def __init__(
        self,
        kind: str,
        words_of: Callable[[str], Sequence[str]] | None = None,
        term_of: Callable[[str], str | None] | None = None,
    ) -> None: ...
    @property
    def n_docs(self) -> int: ...
    @property
    def n_postings(self) -> int: ...
    @property
    def first_row(self) -> int: ...
    @property
    def last_row(self) -> int: ...
    def add_text(self, row: int, text: str) -> int: ...
    def add_words(self, row: int, words: Sequence[str]) -> int: ...
    def add_weights(self, row: int, ids: NDArray[np.uint32], weights: NDArray[np.float32]) -> None: ...
    def encode(self, part_bytes: int, lengths: Column | None) -> NDArray[np.uint8]: ...

class Segment:
    def __init__(self, column: Column, kind: str, valid: NDArray[np.uint64] | None, first: int) -> None: ...
    @property
    def n_terms(self) -> int: ...
    @property
    def n_docs(self) -> int: ...
    @property
    def first_row(self) -> int: ...
    @property
    def last_row(self) -> int: ...
    @property
    def n_postings(self) -> int: ...
    def terms(self) -> list[tuple[bytes, int]]: ...

def merge_segments(
    segments: list[Segment],
    kind: str,
    part_bytes: int,
    first_row: int,
    last_row: int,
    n_docs: int,
    lengths: Column | None,
) -> NDArray[np.uint8]: ...

class PostingField:
    n_docs: int
    is_text: bool
    def __init__(
        self,
        segments: list[Segment],
        lengths: Column | None,
        n_docs: int,
        tokens: float,
        k1: float,
        b: float,
        counts: dict[bytes, int] | None = None,
    ) -> None: ...
    def document_frequency(self, term: bytes) -> int: ...
    def set_bits(self, term: bytes, n: int, bits: NDArray[np.uint64]) -> None: ...

def search_postings(
    fields: list[PostingField],
    terms: list[tuple[int, bytes, float]],
    n: int,
    k: int,
    excluded: NDArray[np.uint64] | None,
    *,
    deadline: Deadline | None = None,
    simd: str | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32], tuple[int, int, int]]: ...
