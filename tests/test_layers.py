"""Layers: imports go down only, files do not import each other in cycles, private names stay in their package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import qvec
from helpers.source_graph import (
    cycles,
    import_graph,
    imported_names,
    include_graph,
    included_sources,
    package_of,
    parsed,
    private_uses,
    python_sources,
    untyped_lookups,
)

PACKAGE = Path(qvec.__file__).parent
SOURCES = python_sources(PACKAGE)
C_SOURCES = included_sources(PACKAGE)  # empty where qvec is installed from a wheel
CYTHON = {path: text for path, text in C_SOURCES.items() if path.endswith((".pxi", ".pyx"))}

# Packages and modules of qvec from the lowest layer up; "" is qvec/__init__.py, which names everything public. A
# package imports only from the layers below its own.
LAYERS = (
    {"common"},
    {"_kernels"},
    {"storage"},
    {"codes"},
    {"schema"},
    {"text"},
    {"filters", "index"},
    {"rows"},
    {"search"},
    {"quality"},
    {"maintenance"},
    {"collection"},
    {"datasets", "shards", "torch"},
    {"aio", "bench", "demo", "integrations", "interchange", "qat", "ray"},
    {""},
    {"cli"},
    {"__main__"},
)
RESTRICTED: dict[str, set[str]] = {"lmdb": {"storage"}, "msgpack": {"storage"}, "pickle": set(), "marshal": set()}
CORE_DEPENDENCIES = ("numpy", "lmdb", "msgpack", "pyroaring")
OPTIONAL = {
    "qvec.common.console": {"tqdm"},
    "qvec.common.text_tables": {"rich"},
    "qvec._kernels": {"typing_extensions"},
}  # a stub is not run
CORE_LAYERS = LAYERS[: LAYERS.index({"collection"}) + 1]
MAX_ENTRIES = 28  # of the folder qvec/


def layer_of(package: str) -> int:
    for layer, packages in enumerate(LAYERS):
        if package in packages:
            return layer
    raise AssertionError(f"qvec.{package} is in no layer: add it to LAYERS")


def violations(module: str, source: str) -> list[str]:
    """Imports of a module that the layers forbid, each in one line."""
    package, found = package_of(module), []
    for name, member in imported_names(parsed(source)):
        top, full = name.split(".")[0], f"{name}.{member}" if member else name
        if top == "qvec":
            other = full if name == "qvec" and package_of(full) in set().union(*LAYERS) else name
            if package_of(other) != package and layer_of(package_of(other)) >= layer_of(package):
                found.append(f"{module} imports {other}, which is not in a layer below it")
        elif package not in RESTRICTED.get(top, {package}):
            found.append(f"{module} imports {top}, which only {sorted(RESTRICTED[top]) or 'nobody'} may")
        elif (package and layer_of(package) >= len(CORE_LAYERS)) or top in OPTIONAL.get(module, ()):
            continue
        elif top not in {*sys.stdlib_module_names, *CORE_DEPENDENCIES}:
            found.append(f"{module} imports {top}, which is no dependency of the core")
    return found


def test_modules_import_only_from_lower_layers() -> None:
    assert [line for module, source in SOURCES.items() for line in violations(module, source)] == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("qvec.storage.store", "from qvec.codes.registry import train", "qvec.codes.registry, which is not in a layer"),
        ("qvec.codes.int8", "def f():\n    import qvec.collection.collection", "qvec.collection.collection, which is"),
        ("qvec.codes.int8", "if TYPE_CHECKING:\n    from qvec import search", "imports qvec.search, which is not in"),
        ("qvec.collection.collection", "import lmdb", "imports lmdb"),
        ("qvec.search.engine", "from msgpack import packb", "imports msgpack"),
        ("qvec.storage.records", "import pickle", "imports pickle, which only nobody may"),
        ("qvec.common.errors", "import h5py", "imports h5py, which is no dependency"),
        ("qvec.search.engine", "import qvec", "imports qvec, which is not in a layer below"),
    ],
)
def test_an_import_that_goes_up_is_found(module: str, source: str, message: str) -> None:
    (found,) = violations(module, source)
    assert message in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("qvec.storage.store", "import lmdb\nfrom qvec.common.errors import QvecError"),
        ("qvec.codes.int8", "from qvec import _kernels\nfrom qvec.codes.base import Quantizer"),
        ("qvec.cli", "import rich\nfrom qvec import create, datasets"),
    ],
)
def test_an_import_that_goes_down_is_allowed(module: str, source: str) -> None:
    assert violations(module, source) == []


# --- cycles between files ---


def test_no_file_imports_or_includes_itself_through_others() -> None:
    assert cycles(import_graph(SOURCES)) == []
    assert cycles(include_graph(C_SOURCES)) == []


@pytest.mark.parametrize(
    "back",
    [
        "from qvec.a.one import f",
        "def late():\n    import qvec.a.one",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from qvec.a import one",
    ],
)
def test_a_cycle_of_imports_is_found(back: str) -> None:
    sources = {"qvec": "", "qvec.a": "", "qvec.a.one": "from qvec.a import two", "qvec.a.two": "import qvec.b.three"}
    assert cycles(import_graph(sources | {"qvec.b.three": ""})) == []
    assert cycles(import_graph(sources | {"qvec.b.three": back})) == [
        "qvec.a.one -> qvec.a.two -> qvec.b.three -> qvec.a.one"
    ]


def test_a_cycle_of_includes_is_found() -> None:
    sources = {"kernels/a/x.h": '#include "b/y.h"\n#include <stdint.h>', "kernels/b/y.h": '#include "z.h"'}
    assert cycles(include_graph(sources | {"kernels/b/z.h": ""})) == []
    assert cycles(include_graph(sources | {"kernels/b/z.h": '# include "a/x.h"'})) == [
        "kernels/a/x.h -> kernels/b/y.h -> kernels/b/z.h -> kernels/a/x.h"
    ]
    assert cycles(include_graph({"_kernels.pyx": 'include "k.pxi"', "k.pxi": 'include "_kernels.pyx"'})) != []


# --- private names ---


def test_private_names_are_used_in_their_own_package_only() -> None:
    assert private_uses(SOURCES, CYTHON) == []


OWNER = "def _f(): ...\nclass A:\n    _slot: int\n    def __init__(self): self._own = 1\n    def _m(self): ..."


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("from qvec.b.owner import _f", "qvec.a.user:1 imports _f, which is private to qvec.b.owner"),
        ("from qvec.b import owner\nowner._f()", "qvec.a.user:2 uses _f, which is private to qvec.b.owner"),
        ("def g(x): return x._own", "qvec.a.user:1 uses ._own, which only classes of qvec.b define"),
        ("def g(x): x.y._m()", "qvec.a.user:1 uses ._m, which only classes of qvec.b define"),
        ("def g(x): x._slot = 2", "qvec.a.user:1 uses ._slot, which only classes of qvec.b define"),
    ],
)
def test_a_use_of_a_private_name_is_found(source: str, line: str) -> None:
    assert private_uses({"qvec.b": "", "qvec.b.owner": OWNER, "qvec.a.user": source}, {}) == [line]
    assert private_uses({"qvec.b": "", "qvec.b.owner": OWNER, "qvec.b.user": source}, {}) == []


def test_a_use_of_a_private_name_in_cython_is_found() -> None:
    cython = {"kernels/x.pxi": "cdef class K:\n    cdef int _n\n    def f(self, a):\n        return a._own + self._n"}
    found = private_uses({"qvec.b.owner": OWNER, "qvec.a.user": "def g(k): return k._n"}, cython)
    assert found == [
        "qvec.a.user:1 uses ._n, which only classes of qvec._kernels define",
        "kernels/x.pxi:4 uses ._own, which only classes of qvec.b define",
    ]


def test_the_folder_of_qvec_has_few_entries() -> None:
    ignored = {"__pycache__", "_kernels.c", "py.typed"}
    entries = [p.name for p in PACKAGE.iterdir() if p.name not in ignored and p.suffix not in (".so", ".pyd")]
    assert len(entries) <= MAX_ENTRIES, sorted(entries)


# --- typed state ---


def test_the_state_of_a_collection_is_typed() -> None:
    assert untyped_lookups(SOURCES, {"state", "entry", "pending", "index_state", "record"}) == []


def test_an_untyped_lookup_is_found() -> None:
    source = "def f(state, x):\n    state[0]\n    x.entry['n'] = state['m']"
    assert untyped_lookups({"qvec.a": source}, {"state", "entry"}) == [
        "qvec.a:3 looks up 'n' in entry, which has no type",
        "qvec.a:3 looks up 'm' in state, which has no type",
    ]


# --- the cost of an import ---


def run(code: str, **variables: str) -> str:
    """Standard output of a fresh interpreter with additional environment variables."""
    command, env = [sys.executable, "-c", code], {**os.environ, **variables}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def test_importing_qvec_loads_only_its_dependencies() -> None:
    code = f"""
import sys, {", ".join(CORE_DEPENDENCIES)}
before = set(sys.modules)
import qvec
print(*sorted({{name.split(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names))
"""
    loaded = set(run(code).split()) - set(CORE_DEPENDENCIES)  # their submodules that only qvec imports
    assert {name for name in loaded if not name.startswith("_cython")} == {"qvec"}  # Cython's shared types


@pytest.mark.alone
def test_importing_qvec_takes_at_most_half_again_as_long_as_numpy(tmp_path: Path) -> None:
    """The limit is relative to NumPy's import, since machines differ; NumPy takes about 50 ms."""
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}  # once, as where it is installed
    code = f"""
import time
start = time.process_time()  # processor time: other processes may be running
import numpy
numpy_s = time.process_time() - start
import {", ".join(CORE_DEPENDENCIES)}
start = time.process_time()
import qvec
print(numpy_s, time.process_time() - start)
"""
    numpy_s, own_s = zip(*(map(float, run(code, **compiled).split()) for _ in range(5)), strict=True)
    assert min(own_s) < 1.5 * min(numpy_s)


def test_every_folder_of_modules_is_a_package() -> None:
    """Without ``__init__.py`` a folder is missing from the wheel."""
    folders = {file.parent for file in PACKAGE.rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_the_first_add_and_search_do_not_import_what_takes_long(tmp_path: Path) -> None:
    code = f"""
import sys
import numpy as np
import qvec
with qvec.create({str(tmp_path / "a.qvec")!r}, 8) as db:
    db.add(np.eye(8, dtype=np.float32))
    db.search(np.eye(8, dtype=np.float32)[0], 1)
print(*sorted({{"numpy.ma", "asyncio", "ssl", "email"}} & set(sys.modules)))
"""
    assert run(code).split() == []
