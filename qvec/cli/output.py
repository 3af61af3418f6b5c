"""Print JSON that any program can read, and sentences that fit the terminal."""

from __future__ import annotations

import json
import math
import textwrap
from typing import Any

from qvec.common.console import WIDTH


def print_json(value: Any) -> None:
    """Print a value on one line. Numbers that JSON does not have, NaN and infinities, become null."""
    print(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, default=str))


def print_text(text: str) -> None:
    """Print a sentence, broken into lines."""
    print(textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
