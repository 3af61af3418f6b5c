"""Imports, includes and uses of private names in the source files of qvec, read from their text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

Graph = Mapping[str, Iterable[str]]
INCLUDE = re.compile(r'^\s*(?:#\s*include|include|cimport)\s+"([^"]+)"', re.MULTILINE)
CYTHON_NAME = re.compile(r"(?<![\w.])(\w+)\.(_[a-z]\w*)")
CYTHON_DECLARATION = re.compile(r"^\s*(?:cdef|def|cpdef)\b([^=(\n]*)|\b(self\._[a-z]\w*)\s*=[^=]", re.MULTILINE)
PRIVATE = re.compile(r"(?<!\w)_[a-z]\w*")


parsed = lru_cache(1000)(ast.parse)
"""The syntax tree of a source text."""


def package_of(module: str) -> str:
    """``qvec.index.hnsw`` -> ``index``; ``qvec`` -> the empty string."""
    return module.split(".")[1] if "." in module else ""


def module_of(path: Path, root: Path) -> str:
    """Dotted name of a Python file under ``root``, the folder of qvec."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(("qvec", *(part for part in parts if part != "__init__")))


def python_sources(root: Path) -> dict[str, str]:
    """Source text by module name; of the compiled module its stub."""
    paths = [*sorted(root.rglob("*.py")), *sorted(root.glob("*.pyi"))]
    return {module_of(path, root): path.read_text() for path in paths}


def included_sources(root: Path) -> dict[str, str]:
    """Source text of C and Cython files by their path below ``root``, without the C that Cython generates."""
    found = [path for end in ("c", "h", "pxi", "pyx", "pxd") for path in root.rglob(f"*.{end}")]
    return {str(path.relative_to(root)): path.read_text() for path in sorted(found) if path.name != "_kernels.c"}


# --- imports and includes ---


def imported_names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each import of a file: module and member, which is empty for ``import module``. Late and typing imports count."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from ((str(node.module), alias.name) for alias in node.names)


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Modules of ``sources`` that each of them imports. ``from qvec.a import b`` is qvec.a.b if that is a module."""
    graph: dict[str, set[str]] = {}
    for module, text in sources.items():
        named = (
            f"{name}.{member}" if f"{name}.{member}" in sources else name
            for name, member in imported_names(parsed(text))
        )
        graph[module] = {name for name in named if name in sources} - {module}
    return graph


def include_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Files of ``sources`` that each of them includes, found by the end of the path in the directive."""
    graph: dict[str, set[str]] = {}
    for path, text in sources.items():
        relative = [str(Path(path).parent / name).removeprefix("./") for name in INCLUDE.findall(text)]
        below = [f"kernels/{name}" for name in INCLUDE.findall(text)] + INCLUDE.findall(text)
        graph[path] = {name for name in (*relative, *below) if name in sources} - {path}
    return graph


def cycles(graph: Graph) -> list[str]:
    """Cycles of a graph in words, one for each strongly connected component of more than one node."""
    return sorted(" -> ".join(_cycle(graph, nodes)) for nodes in _components(graph) if len(nodes) > 1)


def _components(graph: Graph) -> list[set[str]]:
    """Strongly connected components: sets of nodes that reach each other."""
    reached = {node: _reached(graph, node) for node in graph}
    components = {frozenset({n, *(o for o in reached[n] if n in reached[o])}) for n in graph}
    return [set(nodes) for nodes in components]


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting.extend(graph.get(node, ()))
    return seen


def _cycle(graph: Graph, component: set[str]) -> list[str]:
    """A shortest path inside a component from its first node back to that node."""
    start = min(component)
    paths = [[start]]
    for path in paths:
        for other in sorted(set(graph[path[-1]]) & component):
            if other == start:
                return [*path, start]
            if not any(other in known for known in paths):
                paths.append([*path, other])
    raise AssertionError(f"no cycle in {component}")


# --- private names ---


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def private_definitions(tree: ast.AST) -> set[str]:
    """Private attributes that classes of a file define: methods, class attributes, slots and ``self._x = ...``."""
    return {
        name
        for definition in ast.walk(tree)
        if isinstance(definition, ast.ClassDef)
        for node in ast.walk(definition)
        if is_private(name := _defined(node))
    }


def _defined(node: ast.AST) -> str:
    """The name that a node in a class defines; empty if it defines none."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return name
        case ast.Name(id=name, ctx=ast.Store()):
            return name
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
            return name
    return ""


def private_imports(module: str, tree: ast.AST, modules: Iterable[str]) -> Iterator[str]:
    """Private names of other packages' modules that a module imports, or uses through an imported module."""
    modules, aliases = set(modules), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "qvec":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in modules:
                    aliases[alias.asname or alias.name] = full
                elif (
                    is_private(alias.name)
                    and package_of(str(node.module)) != package_of(module)
                    and full != "qvec._kernels"
                ):
                    yield f"{module}:{node.lineno} imports {alias.name}, which is private to {node.module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            other = aliases[node.value.id]
            if is_private(node.attr) and package_of(other) != package_of(module):
                yield f"{module}:{node.lineno} uses {node.attr}, which is private to {other}"


def private_uses(sources: Mapping[str, str], cython: Mapping[str, str]) -> list[str]:
    """Each use of a private name of another package, in a line that says where the name is defined."""
    trees = {module: parsed(text) for module, text in sources.items()}
    defined: dict[str, set[str]] = {}  # by attribute: the packages whose classes define it
    for module, tree in trees.items():
        for name in private_definitions(tree):
            defined.setdefault(name, set()).add(package_of(module))
    for path, text in cython.items():
        for declaration in CYTHON_DECLARATION.findall(text):
            for name in PRIVATE.findall(" ".join(declaration)):
                defined.setdefault(name, set()).add(cython_package(path))
    found: list[str] = []
    for module, tree in trees.items():
        found += private_imports(module, tree, sources)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                found += _foreign(f"{module}:{node.lineno}", node.attr, package_of(module), defined)
    for path, text in cython.items():
        for line, code in enumerate(text.splitlines(), 1):
            for _, name in CYTHON_NAME.findall(code.split("#")[0]):
                found += _foreign(f"{path}:{line}", name, cython_package(path), defined)
    return found


def cython_package(path: str) -> str:
    """All of ``kernels/`` and ``_kernels.pyx`` is one package; other folders are those of their Python files."""
    first = path.split("/")[0]
    return "_kernels" if first in ("kernels", "_kernels.pyx") else first


def _foreign(where: str, name: str, package: str, defined: Mapping[str, set[str]]) -> Iterator[str]:
    owners = defined.get(name, set())
    if is_private(name) and owners and package not in owners:
        yield f"{where} uses .{name}, which only classes of {', '.join(f'qvec.{o}' for o in sorted(owners))} define"


# --- untyped records ---


def untyped_lookups(sources: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Each ``name["key"]`` or ``x.name["key"]`` in the sources: a look-up by string in a record that has no type."""
    found, names = [], set(names)
    for module, text in sources.items():
        for node in ast.walk(parsed(text)):
            match node:
                case ast.Subscript(
                    value=ast.Name(id=name) | ast.Attribute(attr=name), slice=ast.Constant(value=str(key))
                ) if name in names:
                    found.append(f"{module}:{node.lineno} looks up {key!r} in {name}, which has no type")
    return found
