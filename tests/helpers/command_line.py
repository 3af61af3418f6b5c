"""Run a command of qvec in this process."""

from __future__ import annotations

import pytest

from qvec.cli import main


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return the exit code of a command, its output, and its errors."""
    try:
        code = main(arguments)
    except SystemExit as stop:  # raised by argparse
        code = int(stop.code or 0)
    output = capsys.readouterr()
    return code, output.out, output.err
