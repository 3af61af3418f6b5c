"""Benchmarks of qvec and other libraries: recall, queries/s, latency, build time, memory and file size.

Each contestant builds and searches in its own process. At each point of the sweep, their trials are interleaved.
"""

from qvec.bench.contestants import Contestant, choose_peers, own_contestants
from qvec.bench.figures import TARGETS, at_recall, ratios
from qvec.bench.records import Result, load_lines, write_lines
from qvec.bench.runner import Settings, run, run_each

__all__ = [
    "TARGETS",
    "Contestant",
    "Result",
    "Settings",
    "at_recall",
    "choose_peers",
    "load_lines",
    "own_contestants",
    "ratios",
    "run",
    "run_each",
    "write_lines",
]
