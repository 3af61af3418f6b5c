"""A program that uses every public call runs, and type checkers with their default settings find no error in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import qvec
from helpers.page_examples import DOCS, PAGES, PAGES_WITH_PACKAGES, add_model, python_of

ROOT = Path(__file__).parents[1]
QUICK_START = Path(__file__).parent / "typing" / "quick_start.py"


def test_the_quick_start_runs(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(QUICK_START), str(tmp_path)], check=True)


def _environment_with_qvec(directory: Path) -> Path:
    """The Python of a new environment where qvec is installed, so that checkers report no error inside the package."""
    venv.create(directory, with_pip=False, symlinks=True)
    packages = directory / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (packages / "qvec").symlink_to(Path(qvec.__file__).parent)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return directory / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright", "basedpyright"])
def test_a_type_checker_with_default_settings_finds_no_error_in_the_quick_start(checker: str, tmp_path: Path) -> None:
    copied = tmp_path / QUICK_START.name  # away from this project's settings
    shutil.copy(QUICK_START, copied)
    check(checker, [copied], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright", "basedpyright"])
def test_a_type_checker_finds_no_error_in_the_examples_of_the_readme_and_the_pages(
    checker: str, tmp_path: Path
) -> None:
    add_model(tmp_path)
    pages = [ROOT / "README.md", *(DOCS / name for name in PAGES if name not in PAGES_WITH_PACKAGES)]
    programs = [tmp_path / f"{page.stem.replace('-', '_').lower()}_example.py" for page in pages]
    for page, program in zip(pages, programs, strict=True):
        program.write_text(python_of(page))
    check(checker, programs, tmp_path)


def check(checker: str, programs: list[Path], folder: Path) -> None:
    command = shutil.which(checker, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if command is None:
        pytest.skip(f"{checker} is not installed: the extra typing has mypy and basedpyright")
    python = _environment_with_qvec(folder / "venv")
    option = "--python-executable" if checker == "mypy" else "--pythonpath"
    caching = ["--cache-dir", str(folder / "cache")] if checker == "mypy" else ["--level", "error"]
    arguments = [option, str(python), *caching, *(program.name for program in programs)]
    done = subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_public_names_are_those_of_all_and_resolve() -> None:
    names = dir(qvec)
    assert {*names} == {*qvec.__all__, "__version__"}
    optional = {"integrations", "qat", "ray", "torch"}  # need packages of their extras
    assert all(getattr(qvec, name) is not None for name in names if name not in optional)
    with pytest.raises(AttributeError, match="no attribute 'annotations'"):
        _ = getattr(qvec, "annotations")  # noqa: B009
