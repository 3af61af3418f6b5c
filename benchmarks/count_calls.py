"""Python functions that run for one search on a warmed handle, and how many different ones they are.

Counted are the ``call`` events of ``sys.setprofile`` during one search: each is a Python function that is entered.
Compiled functions (Cython, NumPy's C code, LMDB, msgpack) raise no such event.

python benchmarks/count_calls.py [--list]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np

import qvec

DIM = 64


def calls_of(action: Callable[[], object]) -> Counter[str]:
    """How often each Python function is called while an action runs, without the action itself."""
    entered: Counter[str] = Counter()

    def watch(frame: FrameType, event: str, arg: object) -> None:
        if event == "call":
            code = frame.f_code
            entered[f"{Path(code.co_filename).parent.name}/{Path(code.co_filename).name}: {code.co_qualname}"] += 1

    sys.setprofile(watch)
    try:
        action()
    finally:
        sys.setprofile(None)
    return entered - Counter({name: 1 for name in entered if name.endswith("<lambda>") and "count_calls.py" in name})


def searches(plain: qvec.Collection, paid: qvec.Collection, query: np.ndarray) -> dict[str, Callable[[], object]]:
    """The searches that are counted; those with the same name prefix are run before, to warm the handle."""
    return {
        "new options": lambda: plain.search(query, 7, ef=50),
        "repeated options": lambda: plain.search(query, 10, ef=40),
        "with 10 payloads": lambda: paid.search(query, 10),
        "by id": lambda: plain.search_by_id(5, 10),
        "filtered": lambda: paid.search(query, 10, where={"tag": 3}),
        "grouped": lambda: paid.search_groups(query, 10, group_by="tag"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the functions")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    data, query = rng.standard_normal((5000, DIM)).astype(np.float32), rng.standard_normal(DIM).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        plain = qvec.create(Path(folder) / "plain.qvec", DIM, index="hnsw")
        paid = qvec.create(Path(folder) / "payloads.qvec", DIM, index="hnsw", fields={"tag": "int"})
        with plain, paid:
            plain.add(data)
            tagged = [{"tag": i % 50, "text": f"row {i}"} for i in range(len(data))]
            paid.add(data, payloads=tagged)
            for name, search in searches(plain, paid, query).items():
                if name == "new options":
                    plain.search(query, 10)
                else:
                    search()
                    search()
                entered = calls_of(search)
                print(f"{name:<18} {entered.total():>4} calls of {len(entered):>3} functions")
                if args.list:
                    print("".join(f"    {count:>3} {what}\n" for what, count in entered.items()), end="")


if __name__ == "__main__":
    main()
