"""Check that a version may be released: prints what is missing; exit code 1 then.

check_release.py VERSION
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+")


def faults(version: str, root: Path = ROOT) -> Iterator[str]:
    """What keeps the version from a release."""
    if not VERSION.fullmatch(version):
        yield f"{version!r} is no version of the form 1.2.3"
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    if project["version"] != version:
        yield f"pyproject.toml has version {project['version']}"
    if f'__version__ = "{version}"' not in (root / "qvec/common/__init__.py").read_text():
        yield f"qvec/common/__init__.py has another version than {version}"
    if not re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", (root / "CHANGELOG.md").read_text(), re.MULTILINE
    ):
        yield f"CHANGELOG.md has no line '## [{version}] - YYYY-MM-DD'"
    for name in ("Homepage", "Documentation", "Changelog", "Issues"):
        if name not in project.get("urls", {}):
            yield f"pyproject.toml has no [project.urls] {name}: where the project is published is not decided"


def uncommitted(root: Path = ROOT) -> list[str]:
    """Files that differ from the last commit."""
    done = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def main(version: str) -> int:
    found = [*faults(version), *(f"not committed: {line}" for line in uncommitted())]
    for fault in found:
        print(fault)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
