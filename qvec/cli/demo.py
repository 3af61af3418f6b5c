"""Build a store of real passages, search it with real questions, and compare the codes.

5,000 passages of Wikipedia and 400 questions, with their embeddings, come with the package. Takes less than a
minute. The store is temporary unless --path is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from qvec.cli.output import print_json
from qvec.demo import run_demo


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--path", type=Path, metavar="FILE", help="the file of the store (must not exist)")
    parser.add_argument("--json", action="store_true", help="print the result of each step as one JSON object")


def run(args: argparse.Namespace) -> int:
    found = run_demo(args.path, show=not args.json)
    if args.json:
        print_json(found)
    return 0
