"""The report of an evaluation: rows of plain data, as a table, a data frame or a plot."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from typing import Any

from qvec.codes.configs import CodeConfig, code_name
from qvec.codes.registry import make_config
from qvec.common import plots
from qvec.common.console import WIDTH, print_table, print_text
from qvec.common.extras import require
from qvec.common.text_tables import table_lines

HEADINGS = ("code", "bytes", "oversample", "recall", "95 % interval", "code loss", "index loss", "p50 ms", "p99 ms")


@dataclass(frozen=True, slots=True)
class Row:
    """One code with one oversampling.

    ``bytes``: of one vector's code. ``oversample``: candidates re-ranked per hit; 1: no re-ranking. ``recall``: mean
    recall@k of searches; ``low``, ``high``: its 95 % interval. ``code_loss``: loss of recall of a scan of the codes;
    ``index_loss``: additional loss of recall of the index, 0 for a scan. ``p50_ms``, ``p99_ms``: latency of single
    searches on one thread. None: not measured.
    """

    code: str
    config: CodeConfig
    bytes: int
    oversample: int
    recall: float
    low: float
    high: float
    code_loss: float
    index_loss: float | None
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, repr=False)
class Report:
    """``rows``: in the order of codes, then oversampling. ``skipped``: codes that could not be measured, with the
    reasons.

    ``n``, ``n_queries``: numbers of vectors and queries. ``held_out``: whether the queries were stored vectors.
    """

    k: int
    n: int
    n_queries: int
    held_out: bool
    index: str
    rows: list[Row]
    skipped: dict[str, str]

    @property
    def title(self) -> str:
        """Description of the measurement on one line."""
        kind = "held-out rows" if self.held_out else "queries"
        return f"recall@{self.k} of {self.n:,} vectors, {self.n_queries:,} {kind}, index {self.index}"

    def cells(self) -> list[tuple[str, ...]]:
        """Return the cells of the table, in the order of HEADINGS."""
        return [_cells(row) for row in self.rows]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as plain data, without the configuration."""
        return [{name: value for name, value in asdict(row).items() if name != "config"} for row in self.rows]

    def to_pandas(self) -> Any:
        """Return the rows as a pandas.DataFrame; MissingExtraError says how to install pandas."""
        return require("pandas").DataFrame(self.to_dicts())

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Plot recall against bytes per vector, with a line per oversampling, to a PNG file (needs matplotlib)."""
        plots.save(self._draw, path)

    def _draw(self, axes: Any) -> None:
        axes.set(xlabel="bytes per vector", ylabel=f"recall@{self.k}")
        axes.set_title(self.title, fontsize="small", wrap=True)
        plots.log_scale(axes, "x")
        for number, oversample in enumerate(sorted({row.oversample for row in self.rows})):
            rows = sorted((row for row in self.rows if row.oversample == oversample), key=lambda row: row.bytes)
            errors = [[row.recall - row.low for row in rows], [row.high - row.recall for row in rows]]
            sizes, recalls = [row.bytes for row in rows], [row.recall for row in rows]
            axes.errorbar(sizes, recalls, errors, capsize=2, label=f"{oversample}x", **plots.style(number))
        for code, size in {(row.code, row.bytes) for row in self.rows}:
            axes.annotate(code, (size, 0), xycoords=("data", "axes fraction"), rotation=90, fontsize="x-small")
        if self.rows:
            axes.legend(title="oversampling")

    def show(self) -> None:
        """Print the table, within the width of the terminal."""
        print_table(self.title, HEADINGS, self.cells())
        for line in self._notes():
            print_text(line)

    def __repr__(self) -> str:
        codes = len({row.code for row in self.rows})
        return f"<qvec.Report: {self.title}; {codes} codes, {len(self.rows)} rows: print() shows them>"

    def _repr_html_(self) -> str:
        from qvec.common.tables import html_table

        table = html_table(self.title, HEADINGS, self.cells(), "; ".join(self._notes()))
        return table + plots.as_html(self._draw, "recall and bytes per vector of each code")

    def __str__(self) -> str:
        return "\n".join([self.title, *table_lines(HEADINGS, self.cells(), WIDTH), *self._notes()])

    def _notes(self) -> list[str]:
        return [f"{code}: not measured: {reason}" for code, reason in self.skipped.items()]


def _cells(row: Row) -> tuple[str, ...]:
    interval = f"{row.low:.4f}-{row.high:.4f}"
    losses = _optional(row.code_loss, 4), _optional(row.index_loss, 4)
    times = _optional(row.p50_ms, 3), _optional(row.p99_ms, 3)
    return row.code, str(row.bytes), f"{row.oversample}x", f"{row.recall:.4f}", interval, *losses, *times


def _optional(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def label_of(config: CodeConfig) -> str:
    """Return the code's name with the options that differ from those of the name."""
    name = code_name(config)
    changed = _changed(config, make_config(name))
    return name + (f"({', '.join(changed)})" if changed else "")


def _changed(config: CodeConfig, meant: CodeConfig) -> list[str]:
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return [f"{name}={value!r}" for name, value in values.items() if value != getattr(meant, name)]
