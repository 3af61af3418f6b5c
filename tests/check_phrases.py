"""Report phrases that the project's texts avoid. Usage: python tests/check_phrases.py; exit code 1 if any are
found."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LISTS = ("rejected_phrases.txt", "removed_identifiers.txt", "test_vocabulary.py", "wordlist.txt")
EXEMPT = ("_kernels.c", "RESULTS.md", "compare_checkouts.py")  # generated; the last two name options of old versions
TEXTS = {".py", ".pyi", ".pyx", ".pxi", ".c", ".h", ".md", ".toml", ".txt"}
FOLDERS = ("qvec", "tests", "benchmarks", "docs", "examples")


def listed(path: Path) -> dict[str, str]:
    """Replacements by word or phrase from lines ``OLD -> NEW``; ``#`` begins a comment."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {old.strip(): new.strip() for old, _, new in (line.partition("->") for line in lines)}


def texts(root: Path = ROOT) -> Iterator[Path]:
    """Source and documentation files, without the lists of rejected words."""
    named = [path for folder in FOLDERS for path in (root / folder).rglob("*")] + list(root.glob("*.md"))
    for path in sorted(named):
        data = path.parent.name in ("golden", "corpus") or path.name in EXEMPT
        if path.suffix in TEXTS and path.name not in LISTS and not data:
            yield path


def pattern_of(phrases: Iterable[str]) -> re.Pattern[str]:
    """Match the phrases as whole words, also across lines of a comment. A Python None is not the word "none"."""
    variants = [p for phrase in phrases for p in {phrase, phrase[0].upper() + phrase[1:]} if not p.startswith("None ")]
    words = [r"[\s#/*]+".join(map(re.escape, p.split())) for p in sorted(variants, key=len, reverse=True)]
    return re.compile(rf"\b(?:{'|'.join(words)})\b")


def findings(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Line number and text of each match in a file."""
    text = path.read_text()
    for match in pattern.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, re.sub(r"[\s#/*]+", " ", match.group())


def main() -> int:
    replacements, found = listed(Path(__file__).with_name("rejected_phrases.txt")), 0
    pattern = pattern_of(replacements)
    for path in texts():
        for line, phrase in findings(path, pattern):
            found += 1
            print(f"{path.relative_to(ROOT)}:{line}: {phrase!r}; write: {replacements[phrase.lower()]}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
