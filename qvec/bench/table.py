"""Tables of a run: contestants at the recall targets, and all points."""

from __future__ import annotations

from collections.abc import Sequence

from qvec.bench.figures import TARGETS, Mode, at_recall, bytes_per_vector, curve, index_bytes, ratios
from qvec.bench.records import Entry, Point, Result
from qvec.bench.text import TextResult
from qvec.common.console import print_table, print_text

POINT_COLUMNS = ("contestant", "search", "recall", "q/s", "median", "batch q/s", "p50 us", "p95 us", "p99 us")


def title(result: Result) -> str:
    """Describe the run on one line."""
    data, used, own = result.dataset, result.settings, result.machine
    return (
        f"{data['dataset']}: {data['n']:,} x {data['dim']}, {data['metric']}; recall@{used['k']}, "
        f"{used['rounds']} rounds, {used['build_threads']} threads to build; "
        f"{own['cpu']}, {own['cores']} cores, {'AVX-512' if own.get('avx512') else 'without AVX-512'}"
    )


def print_summary(result: Result, targets: Sequence[float] = TARGETS) -> None:
    """Print builds and memory, queries/s at each target, and ratios to the best peer and to hnswlib."""
    columns = ("contestant", "version", "build s", "peak MB", "RSS MB", "anon MB", "B/vec", "index/vec", "file MB")
    print_table(title(result), columns, [_build_cells(entry, result.dataset["n"]) for entry in result.entries])
    print_rates(result, "single", targets)
    if any(curve(entry, "batch") for entry in result.entries):
        print_rates(result, "batch", targets)
    for kind, reasons in (("failed", result.failed), ("skipped", result.skipped)):
        for name, reason in reasons.items():
            print_text(f"{name}: {kind}: {reason}")


def print_rates(result: Result, mode: Mode, targets: Sequence[float]) -> None:
    """Print queries/s at each target, and ratios to the best other peer and to hnswlib."""
    modes = {"single": "single queries, one thread", "batch": f"a batch, {result.settings['batch_threads']} thread(s)"}
    over = [ratios(result, target, mode) for target in targets]
    rates = [
        (entry.contestant, *(_count(at_recall(curve(entry, mode), target)) for target in targets))
        for entry in result.entries
    ]
    columns = ("contestant", *(f"@{target:g}" for target in targets))
    print_table(f"{modes[mode]}: queries/s at a recall", columns, rates)
    shares = [(entry.contestant, *(_shares(at[entry.contestant]) for at in over)) for entry in result.entries]
    print_table(f"{modes[mode]}: times the best other peer, times hnswlib", columns, shares)


def print_points(result: Result) -> None:
    """Print all points of all contestants."""
    print_table("", POINT_COLUMNS, [point_cells(entry, point) for entry in result.entries for point in entry.points])


def print_texts(result: TextResult) -> None:
    """Print the rates, the bytes and the hits of full-text indexes."""
    columns = ("contestant", "rows/s", "bytes", "queries/s", "ratio", "same")
    own = result.entries[0]
    rows = [
        (
            entry.contestant,
            _count(entry.rows_per_s),
            _count(entry.bytes),
            _count(entry.queries_per_s),
            f"{own.queries_per_s / entry.queries_per_s:.2f}",
            f"{entry.same:.3f}",
        )
        for entry in result.entries
    ]
    heading = f"{result.rows:,} texts, {result.queries:,} queries, the best {result.k}; seconds are those of one CPU"
    print_table(heading, columns, rows)
    print_text("ratio: queries of qvec for one of the contestant; same: the part of qvec's hits that it finds")
    for name in result.skipped:
        print_text(f"{name}: skipped: it is not installed")


def point_cells(entry: Entry, point: Point) -> tuple[str, ...]:
    """Return the cells of a point, in the order of POINT_COLUMNS."""
    return (
        entry.contestant,
        " ".join(f"{name}={value}" for name, value in point.search.items()),
        f"{point.recall:.4f}",
        f"{point.qps:,.0f}",
        f"{point.qps_median:,.0f}",
        _count(point.batch_qps),
        *(f"{value:,.1f}" for value in (point.p50_us, point.p95_us, point.p99_us)),
    )


def _build_cells(entry: Entry, n: int) -> tuple[str, ...]:
    memory = entry.memory or {}
    return (
        entry.contestant,
        entry.version,
        f"{entry.build_s:.1f}",
        _megabytes(entry.peak_bytes),
        _megabytes(memory.get("rss")),
        _megabytes(memory.get("anonymous")),
        _count(bytes_per_vector(entry, n)),
        _count(index_bytes(entry, n)),
        _megabytes(entry.file_bytes),
    )


def _shares(over: tuple[float | None, float | None]) -> str:
    return "  ".join("-" if ratio is None else f"{ratio:.2f}" for ratio in over)


def _megabytes(n: float | None) -> str:
    return "-" if n is None else f"{n / 1e6:,.1f}"


def _count(n: float | None) -> str:
    return "-" if n is None else f"{n:,.0f}"
