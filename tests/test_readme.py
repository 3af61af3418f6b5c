"""The examples and commands of the README work as shown."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

from helpers.page_examples import PROMISED, add_model, blocks
from qvec.cli import VERBS, build_parser

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
COMMAND_LINE = ROOT / "docs" / "command-line.md"
MAKEFILE = ROOT / "Makefile"
MAX_LINES, FIRST_SCREEN = 150, 20


def test_the_python_of_the_readme_prints_what_its_comments_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    add_model(tmp_path)
    names: dict[str, object] = {}
    sources = blocks("python", README)
    promised = [[match["output"] for match in PROMISED.finditer(source)] for source in sources]
    assert sum(map(len, promised)) >= 8
    try:
        for source, expected in zip(sources, promised, strict=True):
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(source, str(README), "exec"), names)
            assert output.getvalue().splitlines() == expected
    finally:
        sys.modules.pop("sentence_transformers", None)


def test_the_readme_is_short_and_begins_with_a_picture_and_a_figure() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= MAX_LINES
    first = "\n".join(lines[:FIRST_SCREEN])
    (picture, *_), (figure, *_) = re.findall(r'<img [^>]*src="([^"]+)"', first), re.findall(r"\*\*[\d,]+ \S+", first)
    assert (ROOT / picture).exists()
    assert "queries/s" in figure


def test_the_links_of_the_readme_and_of_the_examples_lead_to_files() -> None:
    pages = [README, ROOT / "CONTRIBUTING.md", *(ROOT / "examples").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())]
    links += [(README, link) for link in re.findall(r'(?:src|srcset)="([^"]+)"', README.read_text())]
    missing = [link for page, link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_the_set_up_commands_of_the_readme_take_one_line_and_make_knows_them() -> None:
    commands = [block.strip() for block in blocks("sh", README)]
    assert commands == ["pip install . ./demo_data", "make demo", "make test"]
    targets = re.findall(r"^(\w+):", MAKEFILE.read_text(), re.MULTILINE)
    assert {command.removeprefix("make ") for command in commands[1:]} <= set(targets)


def test_the_documentation_shows_each_verb_with_options_that_it_has() -> None:
    (text,) = (block for block in blocks("", COMMAND_LINE) if "qvec demo" in block)
    parser = build_parser()
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    shown = re.findall(r"^qvec (\w+)", text, re.MULTILINE)
    assert set(shown) == set(VERBS)
    known = {option for verb in verbs.choices.values() for option in verb._option_string_actions}
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", text)) <= known
