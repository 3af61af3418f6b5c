"""Another embedding model for a collection: a new file takes its name, and the old one is kept (ADR 33).

The new collection is a second file, ``PATH.reembed``, with vectors of the new model and the same ids, payloads and
fields. When it is complete, it takes the name of the present file, which becomes ``PATH.previous``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, get_args

import numpy as np

from qvec.codes.configs import CodeConfig, IndexConfig
from qvec.codes.registry import make_config, samples_needed
from qvec.collection.creation import new_store
from qvec.collection.embedding import TEXT, Embedding
from qvec.collection.second_file import Copying, Rows, Texts, WithoutText, declared, record_changes
from qvec.common.errors import InputError, LockedError
from qvec.common.types import Metric, NDArray, Originals, check_choice, check_flag
from qvec.index import Progress
from qvec.maintenance.state_check import state_codec
from qvec.rows.lookup import live_rows
from qvec.schema.config import Config, index_config
from qvec.schema.state import Reembedding, State
from qvec.schema.validation import as_float32, as_stored, check_count
from qvec.storage import atomic_file
from qvec.storage.store import Store

SAMPLE = 2048  # texts of the sample that a code is trained on
MAX_BATCH = 65_536


class OpenRows(Rows, Protocol):
    """The calls of an open file."""

    def close(self) -> None: ...


Opens = Callable[[Store], OpenRows]
"""Returns the calls of an open file."""


class ReembedKeywords(TypedDict, total=False):
    """Options of the new collection; see :func:`qvec.create`."""

    metric: Metric
    code: str | CodeConfig
    index: str | IndexConfig
    originals: Originals


@dataclass(frozen=True)
class Request:
    """The arguments of :meth:`qvec.Collection.reembed`."""

    function: Any
    dim: int
    model: str | None
    field: str | None
    missing: WithoutText
    batch: int
    restart: bool
    progress: Progress | None
    options: ReembedKeywords

    def texts(self, state: State) -> Texts:
        """Check the arguments that do not concern the new file. Raises InputError."""
        check_choice("missing", self.missing, get_args(WithoutText))
        check_flag("restart", self.restart)
        if unknown := sorted(set(self.options) - set(ReembedKeywords.__annotations__)):
            raise InputError(f"reembed takes no option {unknown[0]!r}")
        embedding = Embedding(self.function, check_count("batch", self.batch, 1, MAX_BATCH))
        if self.model is not None and embedding.model not in (None, self.model):
            raise InputError(f"model is {self.model!r}, but function.model is {embedding.model!r}")
        if not isinstance(self.field, str | None):
            raise InputError(f"field must be the key of payloads that holds the text, got {self.field!r}")
        names = [name for name, field in state.complete_fields.items() if field.type == "text"]
        return Texts(embedding, self.field or (names[0] if len(names) == 1 else TEXT), self.missing)

    def config(self, config: Config, state: State, model: str | None) -> Config:
        """The configuration of the new file. Raises InputError."""
        code = self.options.get("code", config.code)
        index = self.options.get("index", state.own_index or config.index or "auto")
        return Config(
            self.dim, self.options.get("metric", config.metric), config.ids,
            self.options.get("originals", config.originals), make_config(code), index_config(index),
            model if self.model is None else self.model, config.seed,
        )  # fmt: skip


def reembed(store: Store, config: Config, opens: Opens, request: Request) -> None:
    """See :meth:`qvec.Collection.reembed`."""
    with store.read() as snap:
        state: State = snap.state
    texts, pending, path = request.texts(state), state.reembedding, store.path + atomic_file.REEMBEDDED
    if pending is not None and pending.stage == "replaced":
        raise InputError(
            f"{store.path + atomic_file.PREVIOUS} is the collection of an earlier reembed(): call discard_reembed() "
            "or undo_reembed() first"
        )
    if request.restart:
        discard(store)
        pending = None
    if pending is not None and pending.field != texts.field:
        raise InputError(
            f"an unfinished reembed() takes texts from {pending.field!r}, not {texts.field!r}; restart=True"
        )
    assert texts.embedding is not None
    wanted = request.config(config, state, texts.embedding.model)
    _check_texts(store, texts)
    if pending is None or not os.path.exists(path):
        made = _new_file(store, wanted, texts)
        record_changes(store, Reembedding("copying", texts.field))
    else:
        made = _unfinished_file(store, wanted)
    target = opens(made)
    try:
        copying = Copying(store, texts, target, config.ids, request.progress)
        copying.copy_all()

        def switch() -> None:
            record_changes(made, Reembedding("replaced", texts.field))
            target.close()
            atomic_file.switch(path, store.path)

        copying.end(switch)
    finally:
        target.close()


def undo(store: Store, config: Config, opens: Opens, function: Any) -> None:
    """See :meth:`qvec.Collection.undo_reembed`."""
    embedding = None if function is None else Embedding(function)
    with store.read() as snap:
        pending: Reembedding | None = snap.state.reembedding
    if pending is None or pending.stage != "replaced":
        raise InputError(f"{store.path} has not replaced another collection, or that was discarded")
    previous = Store.open(store.path + atomic_file.PREVIOUS, state_codec=state_codec, timeout=store.timeout)
    target = opens(previous)
    try:
        if previous.env.handles > 1:
            raise LockedError(
                f"{previous.path} is open in this process: close its snapshots, and close or reopen() its handles"
            )
        _check_model(embedding, previous)

        def switch() -> None:
            record_changes(previous, None)
            target.close()
            atomic_file.switch_back(store.path)

        Copying(store, Texts(embedding, pending.field, "skip"), target, config.ids).end(switch)
    finally:
        target.close()


def discard(store: Store) -> bool:
    """Remove the second file, unfinished or replaced. Returns whether there was one."""
    record_changes(store, None)
    suffixes = atomic_file.REEMBEDDED, atomic_file.REEMBEDDED_DRAFT, atomic_file.PREVIOUS
    found = [path for path in (store.path + suffix for suffix in suffixes) if os.path.exists(path)]
    for path in found:
        atomic_file.remove(path)
    return bool(found)


def reopened(store: Store, kept: Embedding | None, function: Any) -> tuple[Store | None, Embedding | None]:
    """Open the file that the path of a store refers to now, None if it is the same file; and choose the function for
    its texts, which is ``kept`` unless that has the tag of another model. Raises InputError."""
    embedding = None if function is None else Embedding(function)
    if store.source is not store:
        raise InputError("a snapshot is of one commit: reopen the collection that it was made from")
    fresh = None if store.env.pair.is_named(store.path) else store.open_again()
    try:
        _check_model(embedding, fresh or store)
    except InputError:
        if fresh is not None:
            fresh.close()
        raise
    if embedding is None and kept is not None and kept.model in (None, (fresh or store).config["model"]):
        embedding = kept
    return fresh, embedding


def _check_texts(store: Store, texts: Texts) -> None:
    """Raise InputError naming the first id without a text, before anything is written."""
    with store.read() as snap:
        rows = live_rows(snap)
        for start in range(0, len(rows) if texts.missing == "error" else 0, SAMPLE):
            texts.read(snap, rows[start : start + SAMPLE])


def _new_file(store: Store, config: Config, texts: Texts) -> Store:
    """Create the file, and train its code on texts that are spread over all rows."""
    with store.read() as snap:
        rows, fields, expires = live_rows(snap), declared(snap), snap.state.expires
        needed = samples_needed(config.code, config.dim)
        spread = rows[np.linspace(0, len(rows) - 1, min(max(SAMPLE, needed), len(rows))).astype(np.int64)]
        found = texts.read(snap, spread)[2]
    sample: NDArray[Any] | None = None
    if found:
        given = as_stored("vectors", texts.vectors(found), config.dim, config.metric, config.form)
        sample = given if config.form is not None else as_float32(given)
        sample = sample if len(sample) >= needed else None
    from qvec.filters.schema import check_fields

    path, draft = store.path + atomic_file.REEMBEDDED, store.path + atomic_file.REEMBEDDED_DRAFT
    for leftover in (path, draft):
        atomic_file.discard(leftover)
    options: dict[str, Any] = {"durability": "full" if store.env.durable else "relaxed", "timeout": store.timeout}
    return new_store(path, config, sample, None, None, check_fields(fields), expires, draft=draft, **options)


def _unfinished_file(store: Store, config: Config) -> Store:
    """Open the file of a call that has not ended. Raises InputError if it has other options."""
    made = Store.open(store.path + atomic_file.REEMBEDDED, state_codec=state_codec, timeout=store.timeout)
    found = Config.from_dict(dict(made.config))
    if found != config:
        made.close()
        raise InputError(f"an unfinished reembed() has other options; restart=True begins again: {found}")
    record_changes(made, None)  # a process may have died between marking the file and switching it in
    return made


def _check_model(embedding: Embedding | None, store: Store) -> None:
    """Raise InputError for a function with the tag of another model."""
    model = store.config["model"]
    if embedding is not None and embedding.model not in (None, model):
        raise InputError(f"{store.path} is of model {model!r}, not {embedding.model!r}")
