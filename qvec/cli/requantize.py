"""Code every vector anew from the stored originals, or put an earlier generation of codes back in force.

Without CODE: go on with what was interrupted, else train the code in force anew. Searches go on meanwhile.
"""

from __future__ import annotations

import argparse
from typing import Any

import qvec
from qvec.common.console import progress
from qvec.common.errors import InputError

RELINK: dict[str, Any] = {"auto": "auto", "yes": True, "no": False}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("code", metavar="CODE", nargs="?", help="the new code, for example: binary")
    parser.add_argument("--calibration", type=int, metavar="N", help="code with a stored calibration")
    parser.add_argument("--relink", choices=RELINK, default="auto", help="link the graph anew (default: if needed)")
    parser.add_argument("--rollback", type=int, metavar="N", help="put generation N back in force")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to link with (default: all processors)")


def run(args: argparse.Namespace) -> int:
    if args.rollback is not None and (args.code is not None or args.calibration is not None):
        raise InputError("--rollback goes without CODE and --calibration")
    with qvec.open(args.store) as db, progress("requantizing", "rows") as report:
        if args.rollback is not None:
            made = db.rollback(args.rollback, threads=args.threads, progress=report)
        else:
            relink = RELINK[args.relink]
            made = db.requantize(args.code, args.calibration, relink=relink, threads=args.threads, progress=report)
    print(f"generation {made.number} is in force: {made.code}, {made.code_size} bytes a vector")
    return 0
