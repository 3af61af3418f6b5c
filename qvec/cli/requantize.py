"""Encode every vector again from the stored originals, or make an earlier generation of codes active.

Without CODE: continue an interrupted call, otherwise train the active code again. Searches continue during the call.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import qvec
from qvec.cli.codes import as_code
from qvec.cli.output import print_json
from qvec.cli.writing import add_timeout
from qvec.common.console import progress
from qvec.common.errors import InputError

RELINK: dict[str, Any] = {"auto": "auto", "yes": True, "no": False}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="the store's file")
    parser.add_argument("code", metavar="CODE", nargs="?", help="the new code, for example: binary, or mixed:bits=2.5")
    parser.add_argument("--generation", type=int, metavar="N", help="encode with the trained code of generation N")
    parser.add_argument("--relink", choices=RELINK, default="auto", help="build a new graph (default: if needed)")
    parser.add_argument("--rollback", type=int, metavar="N", help="make generation N active again")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: one for each core)")
    add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print the active generation as JSON")


def run(args: argparse.Namespace) -> int:
    if args.rollback is not None and (args.code is not None or args.generation is not None):
        raise InputError("--rollback goes without CODE and --generation")
    with qvec.open(args.store, timeout=args.timeout) as db, progress("requantizing", "rows") as report:
        if args.rollback is not None:
            made = db.rollback(args.rollback, threads=args.threads, progress=report)
        else:
            code = None if args.code is None else as_code(args.code)
            options: dict[str, Any] = {"generation": args.generation, "relink": RELINK[args.relink]}
            made = db.requantize(code, **options, threads=args.threads, progress=report)
    text = f"generation {made.number} is active: {made.code}, {made.code_size} bytes a vector"
    print_json(dataclasses.asdict(made)) if args.json else print(text)
    return 0
