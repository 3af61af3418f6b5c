"""Codes and indexes over a sample of the stored vectors, in memory: what a collection would be with other options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from qvec._kernels import Column
from qvec.codes.configs import HNSW, CodeConfig, IndexConfig
from qvec.codes.registry import Quantizer, make_config
from qvec.common.parallel import thread_pool
from qvec.common.types import Float32Array
from qvec.index import CodeColumn, Index, IndexInput, make_index, pack_nodes
from qvec.schema.bitmaps import words_for
from qvec.schema.config import Config
from qvec.schema.layout import ADJACENCY, CODES, DELETED, NODES, VECTORS, bitmap_column, column_in_memory, wide_column
from qvec.schema.quantizers import Quantizers, VectorReader, original_quantizer, train_code
from qvec.schema.state import IndexState, State
from qvec.search.engine import Engine

ENCODED_ROWS = 8192  # at a time
LINKING_CODE = "int8"  # graphs are linked by it, and kept for all codes


class EncodedRows(NamedTuple):
    """A quantizer and the codes of all rows."""

    config: CodeConfig
    quantizer: Quantizer
    codes: Column


@dataclass(frozen=True)
class Built:
    """An index over all rows. ``columns``: its own, without those that depend on the codes."""

    config: IndexConfig
    state: IndexState
    columns: Mapping[str, Column]

    @property
    def index(self) -> Index:
        """The index."""
        return make_index(self.config)


class View(NamedTuple):
    """What an engine needs of a snapshot."""

    state: State
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class Trial:
    """Vectors ``base``, float32 [n, dim], of a collection; each code and each index is made once."""

    config: Config
    base: Float32Array
    threads: int
    _built: dict[IndexConfig, Built] = field(default_factory=dict)

    @cached_property
    def originals(self) -> VectorReader:
        """The vectors as the collection stores them."""
        quantizer = original_quantizer(self.config)
        return VectorReader(quantizer, self._encoded(VECTORS, quantizer))

    def code(self, config: CodeConfig) -> EncodedRows:
        """Train a code and encode all rows; InputError if there are too few vectors."""
        quantizer = train_code(self.base, config, self.config).quantizer
        return EncodedRows(config, quantizer, self._encoded(CODES, quantizer))

    def build(self, config: IndexConfig) -> Built:
        """The index; graphs are linked by int8 codes."""
        if config not in self._built:
            self._built[config] = self._build(config)
        return self._built[config]

    def engine(self, coded: EncodedRows, built: Built) -> Engine:
        """Searches of an index with a code. InputError if the code does not suit the index."""
        columns = {**self._columns(coded), **built.columns}
        index, n = built.index, len(self.base)
        specs = index.columns(coded.quantizer)
        if NODES in specs:
            columns[NODES] = column_in_memory(NODES, specs[NODES], n)
            rows = np.arange(n, dtype=np.uint32)
            codes = CodeColumn(coded.quantizer.codec, coded.codes)
            with thread_pool(self.threads) as pool:
                pack_nodes(codes, columns[ADJACENCY], columns[NODES], rows, n, self.threads, pool)
        state = State(n=n, live=n, index=built.state)
        return Engine(View(state, columns), self._quantizers(coded.quantizer), index, columns)

    def _build(self, config: IndexConfig) -> Built:
        coded, index, n = self._linking, make_index(config), len(self.base)
        own = {name: column_in_memory(name, spec) for name, spec in index.columns(coded.quantizer).items()}
        nodes = own.pop(NODES, None)
        columns = {**self._columns(coded), **own}
        if nodes is not None:  # the layout decides how lists are pruned
            columns[NODES] = nodes
        data = IndexInput(columns, CodeColumn(coded.quantizer.codec, coded.codes), n, self.originals)
        state = index.extend(data, index.empty, np.arange(n, dtype=np.uint32), self.threads, None)
        return Built(config, state, own)

    @cached_property
    def _linking(self) -> EncodedRows:
        return self.code(make_config(LINKING_CODE))

    def _columns(self, coded: EncodedRows) -> dict[str, Column]:
        return {CODES: coded.codes, VECTORS: self.originals.column, DELETED: self._deleted}

    def _quantizers(self, quantizer: Quantizer) -> Quantizers:
        return Quantizers(quantizer, self.originals.quantizer if quantizer.kind != "f32" else None)

    @cached_property
    def _deleted(self) -> Column:
        return column_in_memory(DELETED, bitmap_column(DELETED), words_for(len(self.base)))

    def _encoded(self, name: str, quantizer: Quantizer) -> Column:
        column = column_in_memory(name, wide_column(name, quantizer.code_size), len(self.base))
        for start in range(0, len(self.base), ENCODED_ROWS):
            column.write(start, quantizer.encode(self.base[start : start + ENCODED_ROWS]))
        return column


def searched_bytes(engine: Engine) -> int:
    """Bytes a vector that a search for candidates reads: codes and index, without the originals."""
    columns = engine.to_copy("index")
    return round(sum(column.n_rows * column.stride for column in columns) / max(1, engine.live))


def index_label(config: IndexConfig) -> str:
    """The name that `create` accepts, without options."""
    return "packed" if isinstance(config, HNSW) and config.layout == "packed" else config.kind
