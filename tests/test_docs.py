"""The pages of the documentation: their examples print what their comments say, and their links lead to files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from helpers.page_examples import PAGES, PAGES_WITH_PACKAGES, python_of, run_page

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", [name for name in PAGES if name not in PAGES_WITH_PACKAGES])
@pytest.mark.slow
def test_the_python_of_a_page_prints_what_its_comments_say(name: str, tmp_path: Path) -> None:
    run_page(DOCS / name, tmp_path)


def test_the_python_of_each_tutorial_is_run() -> None:
    for page in sorted((DOCS / "tutorials").glob("*.md")):
        assert python_of(page), f"{page} has no Python that is run"
        assert f"tutorials/{page.name}" in PAGES


def test_each_link_between_pages_leads_to_a_file() -> None:
    missing = [
        f"{page.relative_to(DOCS)}: {target}"
        for page in DOCS.rglob("*.md")
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []


def test_the_navigation_contains_each_page_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    named = re.findall(r"([\w/.-]+\.md)$", text, re.MULTILINE)
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    decisions = {page for page in pages if page.startswith("adr/") and page != "adr/README.md"}
    assert len(named) == len({*named})
    assert {*named} == pages - decisions
    assert yaml.safe_load(text)["strict"] is True


def test_the_list_of_decisions_is_complete() -> None:
    listed = re.findall(r"\((\d{4}-[^)]+\.md)\)", (DOCS / "adr" / "README.md").read_text())
    assert sorted(listed) == sorted(page.name for page in (DOCS / "adr").glob("0*.md"))
