"""Processes killed in the middle of a requantize: whether the old codes or the new are there afterwards, whole.

    python benchmarks/bench_requantize_crash.py [rounds]

Each round opens the collection in a process of its own, starts to build another code, and is killed at a step drawn by
the round's number: before, between or after the transactions of the build, or a moment into one. Then the file is
verified and searched. A round counts as interrupted where an unfinished generation was found.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "reliability"))

from requantize_kill import make_collection, one_round


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as folder:
        path, x = make_collection(Path(folder) / "a.qvec")
        found = [one_round(path, x, number) for number in range(rounds)]
    whole, interrupted = sum(one.problems == [] for one in found), sum(one.interrupted for one in found)
    codes = {one.code for one in found}
    print(f"{whole} of {rounds} rounds left one generation whole; {interrupted} were interrupted in the middle of one; "
          f"codes in force afterwards: {', '.join(sorted(codes))}")  # fmt: skip
    for number, one in enumerate(found):
        for problem in one.problems:
            print(f"round {number}: {problem}")
    sys.exit(whole != rounds)


if __name__ == "__main__":
    main()
