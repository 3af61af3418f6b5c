"""The checks before a release, and the files from which the distribution is built."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import check_release
import pytest

import qvec

ROOT = Path(__file__).parents[1]
URLS = ("Homepage", "Documentation", "Changelog", "Issues")

pytestmark = pytest.mark.skipif(not (ROOT / "MANIFEST.in").exists(), reason="only in a checkout")


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """The files of a version that may be released."""
    urls = "".join(f'{name} = "https://example.org"\n' for name in URLS)
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "qvec"\nversion = "1.2.3"\n[project.urls]\n{urls}')
    (tmp_path / "qvec" / "common").mkdir(parents=True)
    (tmp_path / "qvec" / "common" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3] - 2026-12-01\n")
    return tmp_path


def test_a_version_with_all_its_files_may_be_released(released: Path) -> None:
    assert [*check_release.faults("1.2.3", released)] == []


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("pyproject.toml", '"1.2.3"', '"1.2.3.dev0"', "pyproject.toml has version 1.2.3.dev0"),
        ("pyproject.toml", "Homepage", "Other", "no [project.urls] Homepage"),
        ("qvec/common/__init__.py", "1.2.3", "1.2.2", "__init__.py has another version"),
        ("CHANGELOG.md", "2026-12-01", "not released yet", "no line '## [1.2.3] - YYYY-MM-DD'"),
    ],
)
def test_each_thing_that_is_missing_is_named(released: Path, file: str, old: str, new: str, fault: str) -> None:
    path = released / file
    path.write_text(path.read_text().replace(old, new))
    (found,) = check_release.faults("1.2.3", released)
    assert fault in found


def test_a_development_version_is_no_release(released: Path) -> None:
    assert "'1.2.3.dev0' is no version" in "".join(check_release.faults("1.2.3.dev0", released))


def test_the_version_is_the_same_everywhere_and_not_yet_a_release() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == qvec.__version__
    assert re.fullmatch(r"0\.1\.0\.dev\d+", qvec.__version__)
    assert "## [0.1.0] - " in (ROOT / "CHANGELOG.md").read_text()
    assert all(not name.startswith("Operating System :: Microsoft") for name in project["classifiers"])


def test_messages_name_packages_and_no_extra_that_is_not_published() -> None:
    found = [
        path.name for path in (ROOT / "qvec").rglob("*.py") if re.search(r"pip install [^\n]*qvec\[", path.read_text())
    ]
    assert found == []


def test_wheels_are_built_for_every_supported_system() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    workflow = (ROOT / ".github/workflows/wheels.yml").read_text()
    assert {"ubuntu-24.04", "ubuntu-24.04-arm", "macos-14", "macos-15-intel"} <= {*re.findall(r"[\w.-]+", workflow)}
    assert settings["build"].split() == ["cp311-*", "cp312-*", "cp313-*"]  # manylinux and musllinux of each
    assert "musllinux" not in settings.get("skip", "")
