"""Check every block, record, edge and id of a store, and list the problems, and what optimize would improve.

Exit code 0: the store has no problems. 1: it has the listed problems. 2: the check failed.
"""

from __future__ import annotations

import argparse

import qvec
from qvec.cli.output import print_json
from qvec.common.errors import CorruptError
from qvec.common.findings import Finding, damages


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument(
        "--deep",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also recompute codes, nodes, lists and field indexes, and compare (default)",
    )
    parser.add_argument("--json", action="store_true", help='print {"store": ..., "problems": [...], "advice": [...]}')


def run(args: argparse.Namespace) -> int:
    findings = _findings(args.store, args.deep)
    problems: list[str] = [*damages(findings)]
    advice = [finding for finding in findings if finding.kind == "advice"]
    if args.json:
        print_json({"store": args.store, "problems": problems, "advice": advice})
    else:
        print(*(problems or [f"{args.store}: no damage"]), *advice, sep="\n")
    return 1 if problems else 0


def _findings(store: str, deep: bool) -> list[Finding]:
    try:
        with qvec.open(store, mode="r") as db:
            return db.verify(deep=deep)
    except CorruptError as error:  # a file that is too damaged to open is a problem that was found
        return [Finding(str(error))]
