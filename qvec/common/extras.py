"""Packages that qvec can use and does not need: looked for when they are asked for."""

from __future__ import annotations

import importlib
from typing import Any

from qvec.common.errors import MissingExtraError


def require(module: str, extra: str) -> Any:
    """The module; MissingExtraError says how to install it where it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(f"{package} is not installed; get it by: pip install 'qvec[{extra}]'") from error
