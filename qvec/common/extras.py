"""Optional packages, imported on first use."""

from __future__ import annotations

import importlib
from typing import Any

from qvec.common.errors import MissingExtraError

PACKAGES = {
    "faiss": "faiss-cpu",
    "llama_index": "llama-index-core",
    "ray": "ray[data]",
    "Stemmer": "PyStemmer",
}
"""What to install, if it is not named like the module."""


def require(module: str) -> Any:
    """Import an optional module. Raises MissingExtraError with the command that installs the package."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        package = PACKAGES.get(name, name)
        raise MissingExtraError(f"{name} is not installed; install it with: pip install '{package}'") from error


def find(module: str) -> Any:
    """Import an optional module. Returns None if the package is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None
