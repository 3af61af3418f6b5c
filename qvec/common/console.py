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

WIDTH = 80  # of output that is not a terminal
COLUMN_GAP, MIN_TEXT_WIDTH = 2, 16
PLAIN_STEP = 10  # percent between two lines of plain progress

Progress = Callable[[int, int], None]
AnyProgress = Callable[[int, int], object]


def heading(text: str) -> None:
    """Print the title of a step after an empty line."""
    print(f"\n{bold(text)}" if _has_color() else f"\n{text}", flush=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns, with numbers aligned to the right.

    If the table is too wide, the widest column of text is cut. If that does not suffice, the columns are divided among
    several tables, each with the first column.
    """
    cells = [[_printable(str(cell)) for cell in row] for row in rows]
    right = [all(_is_number(row[i]) for row in cells) for i in range(len(columns))]
    if title:
        print(f"\n{bold(title) if _has_color() else title}")
    for n, chunk in enumerate(_chunks(columns, cells, right, _width())):
        if n:
            print()
        _print_chunk([columns[i] for i in chunk], [[row[i] for i in chunk] for row in cells], [right[i] for i in chunk])


def emphasize(text: str, answers: Sequence[str]) -> str:
    """Highlight the longest answer that occurs in the text: in color on a terminal, else by asterisks.

    Line breaks in the text match spaces of an answer.
    """
    for answer in sorted(answers, key=len, reverse=True):
        found = re.search(r"\s+".join(map(re.escape, answer.split())), text)
        if found:
            return text[: found.start()] + bold(found.group()) + text[found.end() :]
    return text


def shortened(text: str, width: int) -> str:
    """The text on one line, cut to ``width`` characters with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


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


def as_progress(progress: AnyProgress | bool | None, label: str) -> AnyProgress | None:
    """What to call with progress: a bar for True, nothing for False. Raises InputError for any other value."""
    if isinstance(progress, bool):
        return _Bars(label) if progress else None
    if progress is not None and not callable(progress):
        raise InputError(f"progress must be True, or a callable of (done, total); got {progress!r}")
    return progress


class _Bars:
    """A bar that opens at the first call and closes when all is done; the next call opens another."""

    def __init__(self, label: str) -> None:
        self._label, self._open = label, contextlib.ExitStack()
        self._report: Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._report is None:
            self._report = self._open.enter_context(progress(self._label, "rows"))
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


def _chunks(columns: Sequence[str], cells: list[list[str]], right: list[bool], width: int) -> list[list[int]]:
    """The columns of each table, so that each is at most ``width`` wide; each begins with the first column.

    Cells of the widest column of text are cut first.
    """
    widths = _widths(columns, cells)
    texts = [i for i in range(len(columns)) if not right[i]]
    excess = sum(widths) + COLUMN_GAP * (len(columns) - 1) - width
    if excess > 0 and texts:
        widest = max(texts, key=lambda i: widths[i])
        least = max(MIN_TEXT_WIDTH, *map(len, columns[widest].split(" ")))
        if widths[widest] - excess >= least:
            _cut(cells, widest, widths[widest] - excess)
            return [list(range(len(columns)))]
    room = width - widths[0] - COLUMN_GAP if columns else width
    for i in texts:
        _cut(cells, i, max(MIN_TEXT_WIDTH, room if i else width - MIN_TEXT_WIDTH - COLUMN_GAP))
    widths = _widths(columns, cells)
    chunks, used = [[0]], widths[0]
    for i in range(1, len(columns)):
        if used + COLUMN_GAP + widths[i] > width and len(chunks[-1]) > 1:
            chunks.append([0])
            used = widths[0]
        chunks[-1].append(i)
        used += COLUMN_GAP + widths[i]
    return chunks


def _widths(columns: Sequence[str], cells: list[list[str]]) -> list[int]:
    """The width of each column. Headings of more than one word take several lines."""
    words = [max(map(len, column.split(" "))) for column in columns]
    return [max([words[i], *(len(row[i]) for row in cells)]) for i in range(len(columns))]


def _cut(cells: list[list[str]], column: int, width: int) -> None:
    for row in cells:
        row[column] = shortened(row[column], width)


def _print_chunk(columns: Sequence[str], cells: list[list[str]], right: list[bool]) -> None:
    widths = _widths(columns, cells)

    def line(row: Sequence[str]) -> str:
        aligned = (
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        )
        return (" " * COLUMN_GAP).join(aligned).rstrip()

    wrapped = [textwrap.wrap(name, width) or [""] for name, width in zip(columns, widths, strict=True)]
    height = max(map(len, wrapped))
    headings = zip(*([""] * (height - len(lines)) + lines for lines in wrapped), strict=True)
    print(*map(line, headings), line(["-" * width for width in widths]), *map(line, cells), sep="\n")


def _printable(cell: str) -> str:
    """Replace characters that could control a terminal."""
    return "".join(char if char.isprintable() else "\ufffd" for char in cell)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").replace("-", "").replace("%", "").strip().isdigit()


def _has_color() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _width() -> int:
    """The width of the terminal, or WIDTH without a terminal."""
    return os.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
