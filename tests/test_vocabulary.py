"""Renamed identifiers do not return."""

from __future__ import annotations

import re
from pathlib import Path

from check_phrases import ROOT, findings, listed, pattern_of, texts

REMOVED = listed(Path(__file__).with_name("removed_identifiers.txt"))


def test_no_removed_identifier_is_in_use() -> None:
    pattern = re.compile(rf"\b(?:{'|'.join(REMOVED)})\b")
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name} was renamed: {REMOVED[name]}"
        for path in texts()
        for line, name in findings(path, pattern)
    ]
    assert found == []


def test_a_removed_identifier_is_found_as_a_whole_word(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("old_nameX = 1\n\nold_name = my_old_name\n")
    assert list(findings(path, pattern_of(["old_name"]))) == [(3, "old_name")]


def test_a_rejected_phrase_is_found_across_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("# The codes In\n# force are reinforced.\n")
    assert list(findings(path, pattern_of(["in force"]))) == [(1, "In force")]
