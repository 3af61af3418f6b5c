"""Contestants of a benchmark: codes and indexes of qvec, and peers (other libraries) that are installed."""

from __future__ import annotations

import importlib
import importlib.util
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from qvec.bench.adapters.base import Adapter
from qvec.bench.adapters.own import Own
from qvec.common import __version__
from qvec.common.errors import InputError
from qvec.common.types import Metric

PEERS = {
    "hnswlib": "hnswlib:Hnswlib",
    "faiss-flat": "faiss:FaissFlat",
    "faiss-hnsw-sq8": "faiss:FaissHnswSq8",
    "faiss-ivf-pqfs": "faiss:FaissIvfPqFastScan",
    "faiss-ivf-rabitq": "faiss:FaissIvfRabitq",
    "usearch": "usearch:Usearch",
    "rabitqlib-symqg": "rabitqlib:RabitqlibSymqg",
    "rabitqlib-hnsw": "rabitqlib:RabitqlibHnsw",
    "rabitqlib-ivf": "rabitqlib:RabitqlibIvf",
    "vsag-hgraph": "vsag:VsagHgraph",
    "glass": "glass:Glass",
    "scann": "scann:Scann",
    "zvec-hnsw-int8": "zvec:ZvecHnswInt8",
    "lancedb-ivf-hnsw-sq": "lancedb:LancedbIvfHnswSq",
}
OWN = "qvec"
ANY_INDEX = "int8"  # a code that fits every index


@dataclass(frozen=True)
class Contestant:
    """``adapter``: ``module:Class``. ``options``: options that differ from the adapter's defaults.

    ``sweep``: values of search parameters, instead of the adapter's own.
    """

    name: str
    adapter: str
    options: Mapping[str, Any] = field(default_factory=dict)
    sweep: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def own(self) -> bool:
        """Whether the contestant is qvec."""
        return self.adapter == locate(OWN)

    @property
    def version(self) -> str:
        """Version of the library."""
        package = adapter_class(self.adapter).package
        if self.own:
            return __version__
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "unknown"


def own_contestants(
    codes: Sequence[str],
    indexes: Sequence[str],
    dim: int,
    metric: Metric,
    sweep: Mapping[str, Sequence[Any]] | None = None,
) -> tuple[list[Contestant], dict[str, str]]:
    """Return qvec with each code and each index, given as ``name`` or ``name:option=value,...``, and the combinations
    that cannot be measured with the reasons.

    Each combination is tried on an empty collection. InputError: a name or option does not exist, or does not fit the
    dimension or the metric, or no code fits the index.
    """
    found, skipped = [], {}
    for code in codes:
        for text in indexes:
            index, options = parse(text)
            options = {"code": code, "index": index, **options}
            name = labeled(f"{OWN} {code} {index}", options, ("code", "index"))
            Own.check_options(name, options)
            try:
                _try(options, dim, metric)
            except InputError as error:
                _check_apart(options, dim, metric)
                skipped[name] = str(error)
            else:
                found.append(Contestant(name, locate(OWN), options, sweep or {}))
    return unique(found), skipped


def _try(options: Mapping[str, Any], dim: int, metric: Metric) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Own(metric, dim, Path(folder), options).check()


def _check_apart(options: Mapping[str, Any], dim: int, metric: Metric) -> None:
    """Raise InputError if the code fits no index, or if the index fits no code: then the arguments are wrong."""
    _try({"code": options["code"], "index": "flat"}, dim, metric)
    try:
        _try({**options, "code": "f32"}, dim, metric)
    except InputError:
        _try({**options, "code": ANY_INDEX}, dim, metric)


def choose_peers(
    names: Sequence[str], metric: Metric, sweep: Mapping[str, Sequence[Any]] | None = None
) -> tuple[list[Contestant], dict[str, str]]:
    """Return the peers to measure, and the peers that cannot be measured with the reasons.

    A name is a peer, the first part of several names (``faiss``), "all", or ``module:Class`` of another adapter. It may
    have options: ``hnswlib:M=32,ef_construction=400``. InputError: an unknown name or option.
    """
    chosen, skipped = [], {}
    for text in names:
        for name, adapter, options in _expanded(text):
            try:
                kind = adapter_class(adapter)
            except ImportError as error:
                raise InputError(f"peer {name!r}: {error}") from error
            kind.check_options(name, options)
            if importlib.util.find_spec(kind.module.partition(".")[0]) is None:
                skipped[name] = f"{kind.package} is not installed"
            elif metric not in kind.metrics:
                skipped[name] = f"it has no metric {metric}"
            else:
                chosen.append(Contestant(labeled(name, options), adapter, options, sweep or {}))
    return unique(chosen), skipped


def _expanded(text: str) -> Iterable[tuple[str, str, dict[str, Any]]]:
    """Name, adapter and options of each peer that the text names."""
    if re.fullmatch(r"[\w.]+:[A-Za-z_]\w*", text):
        return [(text.partition(":")[2], text, {})]
    name, options = parse(text)
    fitting = [peer for peer in PEERS if name in ("all", peer) or peer.startswith(name + "-")]
    if not fitting:
        raise InputError(f"peer is {name!r}; it is one of {', '.join(PEERS)}, the first part of some, or all")
    return [(peer, locate(peer), options) for peer in fitting]


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Split ``name:key=value,...`` into the name and its options; numbers are converted."""
    name, colon, rest = text.partition(":")
    options = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = part.partition("=")
        if not (name and key and equals and value):
            raise InputError(f"{text!r} is not of the form name:key=value,key=value")
        options[key.strip()] = number(value.strip())
    return name, options


def number(text: str) -> int | float | str:
    """Convert the text to a number if it is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def labeled(name: str, options: Mapping[str, Any], known: Sequence[str] = ()) -> str:
    """Return the name followed by the options that are not in ``known``."""
    return " ".join([name, *(f"{key}={value}" for key, value in options.items() if key not in known)])


def unique(contestants: Sequence[Contestant]) -> list[Contestant]:
    """Drop repeated contestants; keep the order."""
    return list({contestant.name: contestant for contestant in contestants}.values())


def locate(name: str) -> str:
    """Return the ``module:Class`` of a named contestant."""
    return f"qvec.bench.adapters.{PEERS[name]}" if name != OWN else "qvec.bench.adapters.own:Own"


def adapter_class(path: str) -> type[Adapter]:
    """Return the adapter class that ``module:Class`` names; ImportError or InputError."""
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if not (isinstance(found, type) and issubclass(found, Adapter)):
        raise InputError(f"{path} is not an adapter: {module} has no subclass of Adapter called {name!r}")
    return found
