"""The examples and commands of the README work as shown."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from pathlib import Path

import pytest

from qvec.cli import VERBS, build_parser

README = Path(__file__).parent.parent / "README.md"
COMMAND_LINE = README.parent / "docs" / "command-line.md"
MAKEFILE = README.parent / "Makefile"
PROMISED = re.compile(r"print\(.*\)\s+# (.*)$", re.MULTILINE)


def blocks(language: str, page: Path = README) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def test_the_python_of_the_readme_prints_what_its_comments_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    sources = blocks("python")
    assert sum(len(PROMISED.findall(source)) for source in sources) >= 5
    for source in sources:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(source, str(README), "exec"), names)
        assert output.getvalue().splitlines() == PROMISED.findall(source)


def test_the_set_up_commands_of_the_readme_take_one_line_and_make_knows_them() -> None:
    commands = [block.strip() for block in blocks("sh")]
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
