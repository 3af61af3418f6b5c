"""Shared by the benchmarks: arguments, a table, figures appended as JSON lines, a child process of Python."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import qvec

ROOT = str(Path(__file__).resolve().parents[1])


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="append the figures to this file, one JSON object a run")
    return parser


def publish(bench: str, figures: Mapping[str, Any], file: Path | None) -> None:
    """Print figures as a table of two columns; append them to a file if one is given."""
    print(f"\n{bench}  (qvec {qvec.__version__}, {qvec.simd_level()}, {os.cpu_count()} cores)")
    for name, value in figures.items():
        print(f"  {name:<62} {_text(value):>16}")
    append(bench, figures, file)


def append(bench: str, figures: Mapping[str, Any], file: Path | None) -> None:
    """Append figures to a file if one is given."""
    if file is not None:
        record = {"bench": bench, "version": qvec.__version__, "simd": qvec.simd_level(), **figures}
        with file.open("a") as out:
            out.write(json.dumps(record) + "\n")


def _text(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def quantiles(name: str, values: list[float]) -> dict[str, float]:
    """Median and 99th percentile of at least one value."""
    return {f"{name}, median": float(np.median(values)), f"{name}, p99": float(np.percentile(values, 99))}


def origin() -> dict[str, str]:
    """Commit of the checkout, with "+" if files differ from it, and the command that runs."""
    git = ("git", "-C", ROOT)
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True).stdout
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "qvec"]).returncode
    name = Path(sys.argv[0]).name
    command = shlex.join(["python", f"benchmarks/{name}", *sys.argv[1:]])
    return {"commit": commit.strip() + ("+" if changed else ""), "command": command}


def fresh_python(code: str, *args: object) -> str:
    """The output of a program in a fresh interpreter that imports this checkout's qvec."""
    command = [sys.executable, "-c", code, *map(str, args)]
    environment = os.environ | {"PYTHONPATH": ROOT}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
