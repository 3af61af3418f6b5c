"""The option of verbs that write: how long they wait for other writers."""

from __future__ import annotations

import argparse

from qvec.storage.store import TIMEOUT


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """Add ``--timeout``, which the verb passes to :func:`qvec.open`."""
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT,
        metavar="S",
        help=f"seconds to wait for other writers (default: {TIMEOUT:g})",
    )
