"""Tell whether recently added vectors still resemble the sample that the quantizer was trained on.

Exit code 1: the level is alarm.
"""

from __future__ import annotations

import argparse
import dataclasses

import qvec
from qvec.cli.output import print_json
from qvec.common.console import print_table, print_text


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    with qvec.open(args.store, mode="r") as db:
        drift = db.drift()
    if args.json:
        print_json(dataclasses.asdict(drift))
    else:
        cells = [
            (name, f"{value:.4f}" if isinstance(value, float) else value) for name, value in drift.evidence.items()
        ]
        print_table(f"drift: {drift.level} after {drift.n_checks} checks", ("evidence", "value"), cells)
        print_text(drift.advice)
    return 1 if drift.level == "alarm" else 0
