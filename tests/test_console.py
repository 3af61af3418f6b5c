"""The output of commands: tables that fit the terminal, progress, sizes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import qvec
from qvec.common import console
from qvec.common.text_tables import text_width


def test_progress_without_tqdm_is_a_line_every_ten_percent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with console.progress("counting", "sheep") as report:
        for done in range(1, 1001):
            report(done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "counting: 100 % (1,000 of 1,000 sheep)"


def test_the_longest_answer_in_a_text_is_set_off() -> None:
    assert console.emphasize("a police box, blue", ["box", "police box"]) == "a **police box**, blue"
    assert console.emphasize("it is a police\n   box", ["police box"]) == "it is a **police\n   box**"
    assert console.emphasize("nothing here", ["box"]) == "nothing here"


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")])
def test_bytes_are_readable(size: int, text: str) -> None:
    assert console.human_bytes(size) == text


def test_a_table_prints_no_character_that_steers_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.print_table("", ("id", "n"), [("\x1b[2Jdoc\x07", 1), ("[red]x", 20)])
    out = capsys.readouterr().out
    assert "\ufffd[2Jdoc\ufffd" in out
    assert "[red]x" in out
    assert "\x1b" not in out


@pytest.fixture(params=["rich", "plain"])
def drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What draws tables."""
    if request.param == "rich":
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich", None)
        monkeypatch.setitem(sys.modules, "rich.table", None)
    return str(request.param)


@pytest.mark.parametrize("word", ["a word ", "\u4e00\u4e2a\u5b57 ", "e\u0301t\u00e9 "])
@pytest.mark.parametrize("width", [100, 60, 30])
def test_a_table_fits_the_width_that_there_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, word: str, drawn: str
) -> None:
    cell_len = pytest.importorskip("rich.cells").cell_len if drawn == "rich" else text_width
    monkeypatch.setattr(console, "terminal_width", lambda: width)
    rows = [(i, f"{i / 7:.4f}", word * 30) for i in range(3)]
    console.print_table("of some rows", ("number", "share", "text"), rows)
    out = capsys.readouterr().out
    assert max(map(cell_len, out.splitlines())) <= width
    lines = [line for line in out.splitlines() if word.strip() in line]
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]
    assert all(line.endswith("…") for line in lines)


def test_a_table_that_is_too_wide_becomes_several_with_the_first_column(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, drawn: str
) -> None:
    monkeypatch.setattr(console, "terminal_width", lambda: 30)
    console.print_table("", ("name", *(f"value number {i}" for i in range(9))), [("a", *range(10_000, 10_009))])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 30
    values = [line.split() for line in lines if line.startswith("a ")]
    assert len(values) > 1
    assert [value for line in values for value in line[1:]] == [str(10_000 + i) for i in range(9)]


def test_a_closed_pipe_ends_a_command_that_prints_a_table_quietly(tmp_path: Path) -> None:
    with qvec.create(tmp_path / "a.qvec", 2) as db:
        db.add([[1, 2]])
    command = [sys.executable, "-m", "qvec", "info", str(tmp_path / "a.qvec")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")


@pytest.mark.parametrize(
    ("text", "width"),
    [("abc", 3), ("\u4e00\u4e2a", 4), ("e\u0301", 1), ("\uff21", 2), ("\u200bx", 1), ("\U0001f600", 2)],
)
def test_the_width_of_a_text_is_what_it_takes_on_a_terminal(text: str, width: int) -> None:
    assert text_width(text) == width


def test_a_title_is_on_one_line_however_narrow_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table("a title that is longer than what is below it", ("a",), [(1,)])
    assert capsys.readouterr().out.splitlines()[1] == "a title that is longer than what is below it"
