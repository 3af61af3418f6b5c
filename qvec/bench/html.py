"""An interactive HTML page of one or more runs. Data, style and script are inline; nothing is fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from qvec.bench.figures import index_memory
from qvec.bench.records import Entry, Point, Result
from qvec.bench.table import POINT_COLUMNS, point_cells, title


def write_report(results: Sequence[Result], file: Path) -> None:
    """Write the page. If there are several runs, it shows one at a time."""
    assets = resources.files("qvec.bench") / "assets"
    page = Template((assets / "report.html").read_text("utf-8"))
    text = page.substitute(
        title=escape(", ".join(dict.fromkeys(str(result.dataset["dataset"]) for result in results))),
        style=(assets / "report.css").read_text("utf-8"),
        script=(assets / "report.js").read_text("utf-8"),
        data=as_script([_plain(result) for result in results]),
        tables="\n".join(_tables(results)),
    )
    file.write_text(text, "utf-8")


def as_script(data: object) -> str:
    """Return JSON that is safe inside a script element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _plain(result: Result) -> dict[str, Any]:
    data, used = result.dataset, result.settings
    return {
        "name": f"{data['dataset']}, {data['n']:,} rows, k = {used['k']} ({used['started']})",
        "about": title(result) + "".join(f"; {name} failed: {reason}" for name, reason in result.failed.items()),
        "n": data["n"],
        "entries": [{**asdict(entry), "index_memory": index_memory(entry, data["n"])} for entry in result.entries],
    }


def _tables(results: Sequence[Result]) -> Iterator[str]:
    """The points as tables, which need no script."""
    for number, result in enumerate(results):
        yield f'<div data-run="{number}"><h3>{escape(title(result))}</h3>'
        for entry in result.entries:
            summary = f"{entry.contestant} ({entry.library} {entry.version})"
            yield f'<details><summary>{escape(summary)}</summary><div class="wide" tabindex="0"><table>'
            yield "<thead><tr>" + "".join(f"<th>{escape(name)}</th>" for name in POINT_COLUMNS) + "</tr></thead><tbody>"
            yield from (_row(entry, point) for point in entry.points)
            yield "</tbody></table></div></details>"
        yield "</div>"


def _row(entry: Entry, point: Point) -> str:
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in point_cells(entry, point)) + "</tr>"
