"""Build a store of real passages, search it with real questions, and compare the codes.

5,000 passages of Wikipedia and 400 questions, with their embeddings, come with the package. Takes less than a
minute. The store is temporary unless --path is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from qvec.demo import run_demo


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", type=Path, metavar="FILE", help="the file of the store (must not exist)")


def run(args: argparse.Namespace) -> int:
    run_demo(args.path)
    return 0
