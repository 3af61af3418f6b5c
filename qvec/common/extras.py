"""Optional packages, imported on first use."""

from __future__ import annotations

import importlib
from typing import Any

from qvec.common.errors import MissingExtraError


def require(module: str, extra: str) -> Any:
    """Import an optional module. Raises MissingExtraError with the command that installs the package."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(f"{package} is not installed; install it with: pip install 'qvec[{extra}]'") from error


def find(module: str) -> Any:
    """Import an optional module. Returns None if the package is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
