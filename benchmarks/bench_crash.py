"""SIGKILL at random times during adds and deletes: the rounds of tests/reliability/crash.py, many of them.

    python benchmarks/bench_crash.py [--rounds 500] [--seed 1] [--json FILE]

Exits with 1 where an acknowledged vector was lost, a batch torn, or verify() had something to report.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import report

sys.path.insert(0, str(Path(report.ROOT) / "tests" / "reliability"))

import crash


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        *_, verdict = crash.run_rounds(Path(folder), args.rounds, args.seed)
    report.publish("crash", {"seed": args.seed, **crash.summary(verdict)}, args.json)
    print("\n".join(verdict.problems))
    return int(verdict.failures != (0, 0, 0, []))


if __name__ == "__main__":
    sys.exit(main())
