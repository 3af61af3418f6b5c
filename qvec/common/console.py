"""Tables and progress for terminals."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence

from qvec.common.errors import InputError
from qvec.common.extras import find
from qvec.common.text_tables import table_lines

WIDTH = 80  # of output that is not a terminal
PLAIN_STEP = 10  # percent between two lines of plain progress

Progress = Callable[[int, int], None]
AnyProgress = Callable[[int, int], object]


def heading(text: str) -> None:
    """Print the title of a step after an empty line."""
    print()
    for line in textwrap.wrap(text, terminal_width()):
        print(bold(line) if _has_color() else line, flush=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns, within the width of the terminal (see :func:`table_lines`)."""
    if title:
        heading(title)
    print(*table_lines(columns, rows, terminal_width(), _has_color()), sep="\n")


def print_text(text: str, indent: str = "") -> None:
    """Print a sentence, broken into lines."""
    wrapper = textwrap.TextWrapper(terminal_width(), indent, indent, break_on_hyphens=False, break_long_words=False)
    print(wrapper.fill(text))


def emphasize(text: str, answers: Sequence[str]) -> str:
    """Highlight the longest answer that occurs in the text: in color on a terminal, else by asterisks.

    Line breaks in the text match spaces of an answer.
    """
    for answer in sorted(answers, key=len, reverse=True):
        found = re.search(r"\s+".join(map(re.escape, answer.split())), text)
        if found:
            return text[: found.start()] + bold(found.group()) + text[found.end() :]
    return text


def bold(text: str) -> str:
    return f"\x1b[1;32m{text}\x1b[0m" if _has_color() else f"**{text}**"


@contextlib.contextmanager
def progress(label: str, unit: str) -> Iterator[Progress]:
    """A callable ``(done, total)`` that shows progress on standard error."""
    tqdm = find("tqdm.auto")
    if tqdm is None or not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        yield _plain_progress(label, unit)
        return
    with tqdm.tqdm(desc=label, unit=f" {unit}", ncols=WIDTH, file=sys.stderr) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


def as_progress(progress: AnyProgress | bool | None, label: str, unit: str = "rows") -> AnyProgress | None:
    """What to call with progress: a bar for True, nothing for False. Raises InputError for any other value."""
    if isinstance(progress, bool):
        return _Bars(label, unit) if progress else None
    if progress is not None and not callable(progress):
        raise InputError(f"progress must be True, or a callable of (done, total); got {progress!r}")
    return progress


class _Bars:
    """A bar that opens at the first call and closes when all is done; the next call opens another."""

    def __init__(self, label: str, unit: str) -> None:
        self._label, self._unit, self._open = label, unit, contextlib.ExitStack()
        self._report: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._report is None:
            self._report = self._open.enter_context(progress(self._label, self._unit))
        self._report(done, total)
        if done >= total:
            self._open.close()
            self._report = None


def human_bytes(n: float) -> str:
    """``1536`` -> ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n) < 1024:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


def _plain_progress(label: str, unit: str) -> Progress:
    shown = -PLAIN_STEP

    def report(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done // total if total else 100
        if percent >= shown + PLAIN_STEP or (done >= total and percent > shown):
            shown = percent
            print(f"{label}: {percent:3d} % ({done:,} of {total:,} {unit})", file=sys.stderr, flush=True)

    return report


def _has_color() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def terminal_width() -> int:
    """The width of the terminal, or WIDTH without a terminal."""
    return os.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
