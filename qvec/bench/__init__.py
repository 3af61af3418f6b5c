"""Indexes measured side by side: recall, queries/s, latency, build time, memory and file size of qvec and its peers.

Each contestant builds and searches in a process of its own; at each point of the sweep they take turns.
"""

from qvec.bench.contestants import Contestant, choose_peers, own_contestants
from qvec.bench.figures import TARGETS, at_recall, ratios
from qvec.bench.records import Result, load_lines, write_lines
from qvec.bench.runner import Settings, run

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
    "write_lines",
]
