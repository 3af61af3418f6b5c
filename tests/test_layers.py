"""The floors: imports go down only, some packages have one importer, and importing qvec is cheap."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import qvec

PACKAGE = Path(qvec.__file__).parent

# From the ground up. A unit is a module or a sub-package of qvec; "" is qvec/__init__.py. Units on one line do not know
# each other.
FLOORS = (
    {"common"},
    {"_kernels"},
    {"storage"},
    {"codes"},
    {"schema"},
    {"filters", "index"},
    {"rows"},
    {"search"},
    {"quality"},
    {"maintenance"},
    {"collection"},
    {""},
    {"datasets", "torch"},
    {"bench", "demo", "integrations", "interchange", "qat", "ray"},
    {"cli"},
    {"__main__"},
)
RESTRICTED = {
    "lmdb": {"storage"},
    "msgpack": {"storage"},
    "pickle": set(),
    "marshal": set(),
}
OPTIONAL = {"qvec.common.console": {"rich", "tqdm"}}  # imported late, and only if they are installed
CORE_DEPENDENCIES = ("numpy", "lmdb", "msgpack", "pyroaring")
CORE_FLOORS = FLOORS[: FLOORS.index({""}) + 1]


def unit_of(module: str) -> str:
    """``qvec.index.hnsw`` -> ``index``; ``qvec`` -> the empty string."""
    return module.split(".")[1] if "." in module else ""


def floor_of(unit: str) -> int:
    for floor, units in enumerate(FLOORS):
        if unit in units:
            return floor
    raise AssertionError(f"qvec.{unit} stands on no floor: give it one in FLOORS")


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(("qvec", *(part for part in parts if part != "__init__"))), path


def is_module(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.is_dir() or any(path.parent.glob(f"{path.name}.*"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Names of all modules imported anywhere, at run time or for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            module = str(node.module)
            members = [f"{module}.{alias.name}" for alias in node.names]
            inside = module == "qvec"
            yield from (member if inside and is_module(member) else module for member in members)


def violations(module: str, source: str) -> list[str]:
    """What in a module's source goes against the floors."""
    unit = unit_of(module)
    found = []
    for name in imports(ast.parse(source)):
        top = name.split(".")[0]
        if top == "qvec":
            other = unit_of(name)
            if other != unit and floor_of(other) >= floor_of(unit):
                found.append(f"{module} imports {name}, which is not below it")
        elif unit not in RESTRICTED.get(top, {unit}):
            found.append(f"{module} imports {top}, which only {sorted(RESTRICTED[top]) or 'nobody'} may")
        elif floor_of(unit) < len(CORE_FLOORS) and top not in {
            *sys.stdlib_module_names,
            *CORE_DEPENDENCIES,
            *OPTIONAL.get(module, ()),
        }:
            found.append(f"{module} imports {top}, which is no dependency of the core")
    return found


@pytest.mark.parametrize(("module", "path"), [pytest.param(*found, id=found[0]) for found in modules()])
def test_a_module_imports_only_what_is_below_it(module: str, path: Path) -> None:
    floor_of(unit_of(module))
    assert violations(module, path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("qvec.storage.store", "from qvec.codes.registry import train", "qvec.codes.registry, which is not below"),
        (
            "qvec.codes.int8",
            "def f():\n    import qvec.collection.collection",
            "qvec.collection.collection, which is not below",
        ),
        ("qvec.collection.collection", "import lmdb", "imports lmdb"),
        ("qvec.search.engine", "from msgpack import packb", "imports msgpack"),
        ("qvec.storage.records", "import pickle", "imports pickle, which only nobody may"),
        ("qvec.common.errors", "import h5py", "imports h5py, which is no dependency"),
        ("qvec.search.engine", "import qvec", "imports qvec, which is not below"),
    ],
)
def test_an_import_that_goes_up_is_found(module: str, source: str, message: str) -> None:
    (found,) = violations(module, source)
    assert message in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("qvec.storage.store", "import lmdb\nfrom qvec.common.errors import QvecError"),
        ("qvec.codes.int8", "from qvec.codes.base import Quantizer"),
        ("qvec.cli", "import rich\nfrom qvec import create, datasets"),
    ],
)
def test_an_import_that_goes_down_is_allowed(module: str, source: str) -> None:
    assert violations(module, source) == []


def run(code: str, **variables: str) -> str:
    """Standard output of a fresh interpreter, with environment variables besides those that are set."""
    command, env = [sys.executable, "-c", code], {**os.environ, **variables}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def test_importing_qvec_loads_no_package_besides_its_dependencies() -> None:
    code = f"""
import sys, {", ".join(CORE_DEPENDENCIES)}
before = set(sys.modules)
import qvec
print(*sorted({{name.split(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names))
"""
    loaded = set(run(code).split()) - set(CORE_DEPENDENCIES)  # parts of these that only qvec asks for
    assert {name for name in loaded if not name.startswith("_cython")} == {"qvec"}  # Cython's shared types


def test_importing_qvec_takes_little_beside_importing_numpy(tmp_path: Path) -> None:
    """NumPy's import, 50 ms where a tenth of a second was allowed for ours, is the measure of the machine's speed."""
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}  # once, as where it is installed
    code = f"""
import time
start = time.process_time()  # not the clock on the wall: other processes may hold the processors
import numpy
numpy_s = time.process_time() - start
import {", ".join(CORE_DEPENDENCIES)}
start = time.process_time()
import qvec
print(numpy_s, time.process_time() - start)
"""
    numpy_s, own_s = zip(*(map(float, run(code, **compiled).split()) for _ in range(5)), strict=True)
    assert min(own_s) < 1.5 * min(numpy_s)
