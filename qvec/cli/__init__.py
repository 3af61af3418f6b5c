"""The command line: ``qvec VERB ...``. A verb is a file of this package."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import qvec
from qvec.cli import (
    backup,
    bench,
    calibrations,
    choose,
    compact,
    deleting,
    demo,
    drift,
    erase,
    evaluate,
    exporting,
    importing,
    info,
    optimize,
    repair,
    requantize,
    search,
    tune,
    verify,
)
from qvec.common.errors import QvecError

VERBS = {
    "demo": demo,
    "import": importing,
    "export": exporting,
    "info": info,
    "search": search,
    "delete": deleting,
    "erase": erase,
    "evaluate": evaluate,
    "choose": choose,
    "tune": tune,
    "drift": drift,
    "requantize": requantize,
    "calibrations": calibrations,
    "optimize": optimize,
    "compact": compact,
    "backup": backup,
    "bench": bench,
    "verify": verify,
    "repair": repair,
}
OK, FOUND_PROBLEMS, FAILED, INTERRUPTED = 0, 1, 2, 130

EPILOG = """\
first steps:
qvec demo                                    see it work on 5,000 passages of Wikipedia
qvec import docs.qvec vectors.npy            store the rows of a file
qvec export docs.qvec docs.parquet           write everything to a table that other programs read
qvec info docs.qvec                          what is in there, and its size
qvec search docs.qvec queries.npy -k 5       the 5 nearest stored vectors of each query
qvec evaluate docs.qvec                      what each code would cost and keep
qvec choose docs.qvec --recall 0.95 --apply  the smallest code that holds a recall
qvec tune docs.qvec --queries q.npy          what a search has to spend for a recall
qvec backup docs.qvec copy.qvec              copy it while others read and write
qvec optimize docs.qvec --compact            close up what was deleted, and give the room back
qvec bench demo --peers all                  speed and recall beside other libraries
qvec verify docs.qvec                        check every byte
qvec repair docs.qvec                        make anew what is damaged and follows from the rest

exit codes: 0 all is well; 1 verify found problems, drift an alarm, choose nothing that meets the target, or an index of
qvec failed in bench; 2 an error (one line on standard error)
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all errors of the program."""

    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"qvec: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; ``argv`` defaults to the process's own arguments."""
    args = build_parser().parse_args(argv)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("qvec: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe went away; at exit Python would flush into it again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (QvecError, OSError) as error:
        if args.debug:
            raise
        print(f"qvec: error: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILED
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser with all verbs."""
    parser = Parser(
        prog="qvec",
        description="An embedded vector database with quantized storage: one file, small codes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"qvec {qvec.__version__}")
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, verb in VERBS.items():
        summary = str(verb.__doc__).partition("\n")[0]
        sub = verbs.add_parser(
            name,
            help=summary,
            description=verb.__doc__,
            parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.configure(sub)
        sub.set_defaults(run=verb.run)
    return parser
