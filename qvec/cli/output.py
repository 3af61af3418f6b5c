"""Print JSON that any program can read."""

from __future__ import annotations

from typing import Any

from qvec.common.plain_json import to_json


def print_json(value: Any) -> None:
    """Print a value on one line, as :func:`qvec.common.plain_json.plain_json` represents it."""
    print(to_json(value))
