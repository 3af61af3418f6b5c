"""The command line, ``qvec VERB ...``. Each verb is a module of this package."""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

import qvec
from qvec.cli import (
    backup,
    bench,
    choose,
    compact,
    count,
    deleting,
    demo,
    drift,
    erase,
    evaluate,
    exporting,
    facets,
    field,
    generations,
    getting,
    head,
    importing,
    info,
    optimize,
    reembed,
    repair,
    report,
    requantize,
    search,
    serving,
    tune,
    verify,
)
from qvec.common.errors import QvecError

VERBS = {
    "demo": demo,
    "import": importing,
    "export": exporting,
    "info": info,
    "get": getting,
    "head": head,
    "count": count,
    "facets": facets,
    "field": field,
    "search": search,
    "delete": deleting,
    "erase": erase,
    "evaluate": evaluate,
    "choose": choose,
    "tune": tune,
    "drift": drift,
    "report": report,
    "requantize": requantize,
    "reembed": reembed,
    "generations": generations,
    "optimize": optimize,
    "compact": compact,
    "backup": backup,
    "bench": bench,
    "verify": verify,
    "repair": repair,
    "mcp": serving,
}
API_NAMES = {
    "overwrite": "--overwrite",
    "on_conflict": "--on-conflict",
    "limit": "-n",
    "target_recall": "--recall",
}
CALLS = {
    "add_field": "qvec field add",
    **{name: f"qvec {name}" for name in ("tune", "requantize", "optimize", "repair")},
}
OK, FOUND_PROBLEMS, FAILED, INTERRUPTED = 0, 1, 2, 130

EPILOG = """\
first steps:
qvec demo                                    try it on passages of Wikipedia
qvec import docs.qvec vectors.npy            store the rows of a file
qvec export docs.qvec docs.parquet           write a table for other programs
qvec info docs.qvec                          its shape, code, index and size
qvec search docs.qvec queries.npy -k 5       the 5 nearest of each query
qvec evaluate docs.qvec                      the recall and size of each code
qvec choose docs.qvec --recall 0.95 --apply  the smallest code with a recall
qvec tune docs.qvec --queries q.npy          the cost of a search by its recall
qvec backup docs.qvec copy.qvec              copy it while others use it
qvec optimize docs.qvec --compact            close gaps, return free space
qvec bench demo --peers all                  compare with other libraries
qvec verify docs.qvec                        check every byte
qvec repair docs.qvec                        rebuild damaged data

exit codes: 0 success; 1 verify found problems, drift raised the alarm, choose found no code, or an index of qvec failed
in bench; 2 an error (one line on standard error)
"""


class HelpFormatter(argparse.HelpFormatter):
    """Wraps each paragraph of a description; paragraphs with columns stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = text.strip().split("\n\n")
        return "\n\n".join(
            part if "   " in part else super(HelpFormatter, self)._fill_text(part, width, indent) for part in parts
        )


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        if (wrong := re.search(r"argument VERB: invalid choice: '(.*?)'", message)) is not None:
            near = difflib.get_close_matches(wrong[1], VERBS, 1)
            message = f"no verb {wrong[1]!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        self.exit(FAILED, f"qvec: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; ``argv`` defaults to the process's own arguments."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # print what the terminal's encoding lacks as \\x escapes
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("qvec: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the pipe has ended; Python would flush into the pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (QvecError, OSError) as error:
        if args.debug:
            raise
        print(f"qvec: error: {in_shell_terms(error, args)}", file=sys.stderr)
        return FAILED
    return code


def in_shell_terms(error: BaseException, args: argparse.Namespace) -> str:
    """The message of an error on one line, with the options of the command in place of the arguments of the API."""
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    text = " ".join(str(error).split())
    flags: dict[str, str] = args.flags
    names = "|".join(map(re.escape, sorted(flags, key=len, reverse=True)))
    argument = rf"(?<![\w.'\[-])({names})=\[?'?([^\s'\]),:;]*)'?\]?"
    text = re.sub(argument, lambda m: f"{flags[m[1]]} {m[2]}".strip(), text)
    verb = "must|is|are|has|takes|names|needs|replaces"
    text = re.sub(rf"(^|; )({names})(?= (?:{verb})\b)", lambda m: m[1] + flags[m[2]], text)
    return re.sub(rf"\b({'|'.join(CALLS)})\([^()]*\)", lambda m: CALLS[m[1]], text)


def build_parser() -> argparse.ArgumentParser:
    """The parser with all verbs."""
    parser = Parser(
        prog="qvec",
        description="An embedded vector database with quantized storage: one file, small codes.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
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
            formatter_class=HelpFormatter,
        )
        verb.configure(sub)
        flags = {
            action.dest: min(action.option_strings, key=lambda flag: (flag[1] != "-", -len(flag)))
            for action in sub._actions
            if action.option_strings
        }
        sub.set_defaults(run=verb.run, flags=API_NAMES | flags)
    return parser
