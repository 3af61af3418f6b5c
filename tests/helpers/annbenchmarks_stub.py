"""Stand-ins for ann-benchmarks and VIBE: they read an algorithm's config.yml, then fit, search and ask for sizes.

Written from the interfaces that the projects publish (definitions.py, runner.py, algorithms/base/module.py).
"""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

BASES = {
    "ann_benchmarks": """
class BaseANN:
    def done(self): pass
    def get_memory_usage(self): return None
    def fit(self, X): pass
    def query(self, q, n): return []
    def batch_query(self, X, n): raise NotImplementedError
    def get_batch_results(self): return self.res
    def get_additional(self): return {}
    def __str__(self): return self.name
""",
    "vibe": """
class BaseANN(object):
    def get_memory_usage(self): raise NotImplementedError
    def batch_query(self, X, n): self.res = [self.query(q, n) for q in X]
    def get_batch_results(self): return self.res
    def get_additional(self): return {}
    def __str__(self): return self.name
""",
}


def install(folder: Path, algorithm: Path, project: str = "ann_benchmarks") -> None:
    """Create a checkout with one algorithm in ``folder``, and make it importable."""
    base, own = (folder / project / "algorithms" / name for name in ("base", "qvec"))
    base.mkdir(parents=True)
    own.mkdir()
    (base / "module.py").write_text(BASES[project])
    for file in algorithm.iterdir():
        if file.is_file():
            (own / file.name).write_text(file.read_text())
    sys.path.insert(0, str(folder))


def uninstall(folder: Path) -> None:
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] in BASES]:
        del sys.modules[name]


def definitions(config: dict[str, Any], metric: str) -> list[tuple[dict[str, Any], list[Any], list[list[Any]]]]:
    """(algorithm, arguments of its constructor, arguments of each search) of each variant."""
    found = []
    for algorithm in config["float"]["any"]:
        for group in algorithm["run_groups"].values():
            groups = [combinations(arguments) for arguments in group["arg_groups"]]
            searches = group["query_args"]  # a list of lists, or a dict of lists: the values are passed in order
            lists = searches.values() if isinstance(searches, dict) else searches
            for arguments in itertools.product(*groups):
                base = [metric if each == "@metric" else each for each in algorithm["base_args"]]
                found.append((algorithm, [*base, *arguments], list(itertools.product(*lists))))
    return found


def combinations(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    lists = [value if isinstance(value, list) else [value] for value in arguments.values()]
    return [dict(zip(arguments, values, strict=True)) for values in itertools.product(*lists)]


def instantiate(definition: Any) -> Any:
    algorithm, arguments, _ = definition
    module = importlib.import_module(f"{algorithm['module']}.module")
    return getattr(module, algorithm["constructor"])(*arguments)


def run(definition: Any, train: Any, test: Any, count: int, batch: bool) -> list[dict[str, Any]]:
    """Fit, then search with each of the arguments; returns the results that the runner would store."""
    algo = instantiate(definition)
    stored = []
    try:
        before = algo.get_memory_usage()
        algo.fit(train)
        size = algo.get_memory_usage() - before
        for search in definition[2]:
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
        if hasattr(algo, "done"):  # ann-benchmarks calls it, VIBE does not
            algo.done()
    return stored


def run_hdf5(definition: Any, file: Path, count: int) -> list[dict[str, Any]]:
    """Run a variant on a data set of VIBE: the arrays ``train`` and ``test``, and attributes of the file."""
    import h5py

    with h5py.File(file) as data:
        assert data.attrs["point_type"] == "float"
        assert definition[1][0] == data.attrs["distance"]
        train, test = data["train"][:], data["test"][:]
    assert train.shape[1] == test.shape[1]
    return run(definition, train, test, count, batch=False)
