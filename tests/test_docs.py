"""The pages of the documentation: their examples print what their comments say, and their links lead to files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PROMISED = re.compile(r"^(?P<code>.*print\(.*\))  # (?P<output>.*)$", re.MULTILINE)
RUN = [
    "index.md",
    "getting-started.md",
    "agents.md",
    *(f"tutorials/{page.name}" for page in sorted((DOCS / "tutorials").glob("*.md"))),
]


def python_of(page: Path) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("name", RUN)
@pytest.mark.slow
def test_the_python_of_a_page_prints_what_its_comments_say(name: str, tmp_path: Path) -> None:
    source = python_of(DOCS / name)
    if not source:
        pytest.skip("the examples of this page need packages of frameworks")
    program = tmp_path / "example.py"
    program.write_text(source)
    done = subprocess.run([sys.executable, program.name], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for match in PROMISED.finditer(source):
        assert match["output"] in lines, f"{match['code']} does not print {match['output']}; printed: {lines}"


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
