"""Values as JSON that any program can read."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np


def to_json(value: Any) -> str:
    """Return one line of JSON, with non-ASCII characters as they are; see :func:`plain_json`."""
    return json.dumps(plain_json(value), ensure_ascii=False, allow_nan=False)


def plain_json(value: Any) -> Any:
    """Return a value as JSON can represent it.

    Numbers that JSON does not have, NaN and infinities, become None; datetimes become ISO 8601 text, bytes Base64. Keys
    and other objects become text.
    """
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else str(value)
