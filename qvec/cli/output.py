"""Print JSON that any program can read."""

from __future__ import annotations

import base64
import json
import math
from datetime import datetime
from typing import Any

import numpy as np


def print_json(value: Any) -> None:
    """Print a value on one line.

    Numbers that JSON does not have, NaN and infinities, become null; datetimes become ISO 8601 text, bytes Base64.
    """
    print(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, default=_as_json))


def _as_json(value: object) -> Any:
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
