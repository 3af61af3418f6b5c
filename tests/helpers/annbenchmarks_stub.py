"""A stand-in for ann-benchmarks: it reads an algorithm's config.yml, then fits, searches and asks for sizes.

Written from the interface that the project publishes (definitions.py, runner.py, algorithms/base/module.py).
"""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

BASE = """
class BaseANN:
    def done(self): pass
    def get_memory_usage(self): return None
    def fit(self, X): pass
    def query(self, q, n): return []
    def batch_query(self, X, n): raise NotImplementedError
    def get_batch_results(self): return self.res
    def get_additional(self): return {}
    def __str__(self): return self.name
"""


def install(folder: Path, algorithm: Path) -> None:
    """Create a checkout with one algorithm in ``folder``, and make it importable."""
    base, own = (folder / "ann_benchmarks" / "algorithms" / name for name in ("base", "qvec"))
    base.mkdir(parents=True)
    own.mkdir()
    (base / "module.py").write_text(BASE)
    for file in algorithm.iterdir():
        if file.is_file():
            (own / file.name).write_text(file.read_text())
    sys.path.insert(0, str(folder))


def uninstall(folder: Path) -> None:
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "ann_benchmarks"]:
        del sys.modules[name]


def definitions(config: dict[str, Any], metric: str) -> list[tuple[dict[str, Any], list[Any], list[list[Any]]]]:
    """(algorithm, arguments of its constructor, arguments of each search) of each variant."""
    found = []
    for algorithm in config["float"]["any"]:
        for group in algorithm["run_groups"].values():
            groups = [combinations(arguments) for arguments in group["arg_groups"]]
            for arguments in itertools.product(*groups):
                base = [metric if each == "@metric" else each for each in algorithm["base_args"]]
                found.append((algorithm, [*base, *arguments], list(itertools.product(*group["query_args"]))))
    return found


def combinations(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    lists = [value if isinstance(value, list) else [value] for value in arguments.values()]
    return [dict(zip(arguments, values, strict=True)) for values in itertools.product(*lists)]


def run(definition: Any, train: Any, test: Any, count: int, batch: bool) -> list[dict[str, Any]]:
    """Fit, then search with each of the arguments; returns the results that the runner would store."""
    algorithm, arguments, searches = definition
    module = importlib.import_module(f"{algorithm['module']}.module")
    algo = getattr(module, algorithm["constructor"])(*arguments)
    stored = []
    try:
        before = algo.get_memory_usage()
        algo.fit(train)
        size = algo.get_memory_usage() - before
        for search in searches:
            algo.set_query_arguments(*search)
            if batch:
                algo.batch_query(test, count)
                found = list(algo.get_batch_results())
            else:
                found = [algo.query(query, count) for query in test]
            ids = [[int(each) for each in row] for row in found]
            sizes = {"index_size": size, "used": algo.get_memory_usage()}
            stored.append({"algo": str(algo), "ids": ids, **sizes, **algo.get_additional()})
    finally:
        algo.done()
    return stored
