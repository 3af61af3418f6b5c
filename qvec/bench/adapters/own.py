"""qvec, through its public functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from qvec.bench.adapters.base import NPROBES, Adapter, Calls, Options, Sweep, tree_bytes, widths
from qvec.codes import configs
from qvec.codes.registry import make_config
from qvec.collection.collection import Collection
from qvec.collection.open import create
from qvec.collection.open import open as open_collection
from qvec.common import __version__
from qvec.common.errors import InputError
from qvec.common.types import Float32Array

TRIED_ROWS = 64  # rows that a configuration is tried on
SEARCHED = ("codes", "graph", "lists", "vectors")  # parts of the file
OVERSAMPLES = (1, 2, 3, 5, 10, 20, 40)
INDEXES: dict[str, tuple[str, Options]] = {
    "flat": ("Flat", {}),
    "hnsw": ("HNSW", {}),
    "packed": ("HNSW", {"layout": "packed"}),
    "ivf": ("IVF", {}),
}


class Own(Adapter):
    """A collection: built in one ``add``, closed, and opened as a reader for the searches.

    Options: ``code``; ``index``: a key of INDEXES; ``originals``; ``memory``; ``batch``: rows per ``add``, 0 for all;
    and the options of the index's configuration, such as ``m``.
    """

    module = "qvec"
    package = "qvec"
    defaults: ClassVar[Options] = {"code": "int8", "index": "hnsw", "originals": "f32", "memory": "mmap", "batch": 0}

    @classmethod
    def check_options(cls, name: str, options: Mapping[str, Any]) -> None:
        index = options.get("index", cls.defaults["index"])
        if index not in INDEXES:
            raise InputError(f"index is {index!r}; it is one of {', '.join(INDEXES)}")
        fixed = INDEXES[index][1]
        own = [field.name for field in fields(_config(index)) if field.name not in fixed]
        for key in options:
            if key not in (*cls.defaults, *own):
                raise InputError(f"{name} has no option {key!r}; it has: {', '.join((*cls.defaults, *own))}")
        super().check_options(name, {key: value for key, value in options.items() if key in cls.defaults})
        if options.get("batch", 0) < 0:
            raise InputError(f"{name}: batch is {options['batch']}; the least is 0, all rows in one add")

    def build(self, base: Float32Array, threads: int) -> None:
        rows = self.options["batch"] or len(base)
        with self._created() as db:
            for start in range(0, len(base), rows):
                db.add(base[start : start + rows], threads=threads)

    def finish(self) -> int:
        self.db = open_collection(self.path, "r", memory=self.options["memory"])
        return tree_bytes(self.path)

    def parts(self) -> dict[str, int]:
        sizes = asdict(self.db.stats())
        return {name: sizes[f"{name}_bytes"] for name in SEARCHED}

    def sweep(self, k: int) -> Sweep:
        index = self.options["index"]
        if index == "flat":
            return {"oversample": OVERSAMPLES}
        return {"nprobe": self._nprobes()} if index == "ivf" else {"ef": widths(k)}

    def _nprobes(self) -> list[int]:
        """Return values of nprobe up to the number of lists, by default four times the root of the rows."""
        lists = self.options.get("nlist", "auto")
        most = max(1, int(2 * len(self.db) ** 0.5)) if lists == "auto" else lists
        return [nprobe for nprobe in NPROBES if nprobe <= most]

    def calls(self, k: int, point: Mapping[str, Any], threads: int) -> Calls:
        search = partial(self.db.search, k=k, **point)
        return Calls(search, partial(search, threads=threads), attrgetter("ids"))

    def check(self) -> None:
        """Raise InputError if code, index, dimension and metric do not fit together.

        Tries the configuration on random vectors, as few as the code or the lists need: some errors occur only then.
        """
        lists = self.options.get("nlist")
        rows = max(TRIED_ROWS, make_config(self.options["code"]).min_samples, lists if isinstance(lists, int) else 0)
        with self._created() as db:
            db.add(np.random.default_rng(0).standard_normal((rows, self.dim), np.float32))
        open_collection(self.path, "r", memory=self.options["memory"]).close()
        self.path.unlink()

    @property
    def path(self) -> Path:
        """The file of the collection."""
        return self.folder / "own.qvec"

    def _created(self) -> Collection:
        options = self.options
        kind, given = options["index"], {key: each for key, each in options.items() if key not in self.defaults}
        try:
            index = _config(kind)(**given, **INDEXES[kind][1])
        except TypeError:
            raise InputError(f"qvec {__version__} has no index {kind!r}") from None
        return create(
            self.path, self.dim, metric=self.metric, code=options["code"], index=index, originals=options["originals"]
        )


def _config(index: str) -> Any:
    """Return the class of an index's configuration."""
    try:
        return getattr(configs, INDEXES[index][0])
    except AttributeError:
        raise InputError(f"qvec {__version__} has no index {index!r}") from None
