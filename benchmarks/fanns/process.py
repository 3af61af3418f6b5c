"""Threads and memory of this process, as the programs of fanns-benchmark print them."""

from __future__ import annotations

from pathlib import Path


def print_process() -> None:
    """Print the number of threads and the maxima of virtual and resident memory that Linux reports."""
    status = Path("/proc/self/status").read_text().splitlines()
    values = {name: value.strip() for name, _, value in (line.partition(":") for line in status)}
    print(f"Maximum number of threads: {values['Threads']}")
    for name in ("VmPeak", "VmHWM"):
        print(f"{name}:\t{values[name]}")
