"""Tables of text that fit a width, drawn by rich if it is installed (extra: cli)."""

from __future__ import annotations

import io
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from qvec.common.extras import find

COLUMN_GAP, MIN_TEXT_WIDTH = 2, 16
MAX_NUMBER_WIDTH = 24  # a longer row of digits, such as an id, is cut as text is


def table_lines(
    columns: Sequence[str], rows: Sequence[Sequence[object]], width: int, color: bool = False
) -> Iterator[str]:
    """The lines of a table, with numbers aligned to the right.

    If the table is too wide, the widest column of text is cut. If that does not suffice, the columns are divided among
    several tables, each with the first column.
    """
    columns = [" ".join(shortened(word, width // 3) for word in column.split(" ")) for column in columns]
    cells = [[_printable(str(cell)) for cell in row] for row in rows]
    right = [all(_is_number(row[i]) for row in cells) for i in range(len(columns))]
    draw = _plain_lines if find("rich.table") is None else _rich_lines
    for n, chunk in enumerate(_chunks(columns, cells, right, width)):
        if n:
            yield ""
        picked = [[row[i] for i in chunk] for row in cells]
        yield from draw([columns[i] for i in chunk], picked, [right[i] for i in chunk], color)


def shortened(text: str, width: int) -> str:
    """The text on one line, cut to a width with an ellipsis."""
    line = " ".join(text.split())
    if text_width(line) <= width:
        return line
    left = width - 1
    for i, char in enumerate(line):
        left -= _char_width(char)
        if left < 0:
            return line[:i] + "…"
    return line


def text_width(text: str) -> int:
    """The columns of a terminal that a text takes: two for a wide character (UAX 11), none for a combining one."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def _chunks(columns: Sequence[str], cells: list[list[str]], right: list[bool], width: int) -> list[list[int]]:
    """The columns of each table, so that each is at most ``width`` wide; each begins with the first column.

    Cells of the widest column of text are cut first.
    """
    widths = _widths(columns, cells)
    texts = [i for i in range(len(columns)) if not right[i]]
    excess = sum(widths) + COLUMN_GAP * (len(columns) - 1) - width
    if excess > 0 and texts:
        widest = max(texts, key=lambda i: widths[i])
        least = max(MIN_TEXT_WIDTH, *map(text_width, columns[widest].split(" ")))
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
    words = [max(map(text_width, column.split(" "))) for column in columns]
    return [max([words[i], *(text_width(row[i]) for row in cells)]) for i in range(len(columns))]


def _cut(cells: list[list[str]], column: int, width: int) -> None:
    for row in cells:
        row[column] = shortened(row[column], width)


def _rich_lines(columns: Sequence[str], cells: list[list[str]], right: list[bool], color: bool) -> list[str]:
    as_text, box = find("rich.text").Text, find("rich.box").SIMPLE_HEAD
    table = find("rich.table").Table(box=box, show_edge=False, pad_edge=False, padding=(0, COLUMN_GAP - 1, 0, 0))
    for column, width, numeric in zip(columns, _widths(columns, cells), right, strict=True):
        justify = "right" if numeric else "left"
        table.add_column(as_text(column), justify=justify, width=width, vertical="bottom")
    for row in cells:
        table.add_row(*map(as_text, row))  # rich would parse a plain string as markup
    total = sum(_widths(columns, cells)) + COLUMN_GAP * len(columns)
    options: dict[str, Any] = {"highlight": False, "force_terminal": color, "no_color": not color}
    with io.StringIO() as drawn:
        find("rich.console").Console(file=drawn, width=total, **options).print(table)
        return [line.rstrip() for line in drawn.getvalue().splitlines()]


def _plain_lines(columns: Sequence[str], cells: list[list[str]], right: list[bool], color: bool) -> Iterator[str]:
    widths = _widths(columns, cells)

    def line(row: Sequence[str]) -> str:
        aligned = (
            " " * (width - text_width(cell)) + cell if numeric else cell + " " * (width - text_width(cell))
            for cell, width, numeric in zip(row, widths, right, strict=True)
        )
        return (" " * COLUMN_GAP).join(aligned).rstrip()

    wrapped = [textwrap.wrap(name, width) or [""] for name, width in zip(columns, widths, strict=True)]
    height = max(map(len, wrapped))
    headings = zip(*([""] * (height - len(lines)) + lines for lines in wrapped), strict=True)
    yield from map(line, headings)
    yield line(["-" * width for width in widths])
    yield from map(line, cells)


def _printable(cell: str) -> str:
    """Replace characters that could control a terminal."""
    return "".join(char if char.isprintable() else "\ufffd" for char in cell)


def _is_number(cell: str) -> bool:
    return (
        len(cell) <= MAX_NUMBER_WIDTH
        and cell.replace(",", "").replace(".", "").replace("-", "").replace("%", "").strip().isdigit()
    )
