"""The one module that draws: its style, and images in pages."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

import pytest

import qvec
from qvec.common import plots
from qvec.common.errors import MissingExtraError

PACKAGE = Path(qvec.__file__).parent


def test_only_one_module_imports_matplotlib() -> None:
    importing = [path for path in PACKAGE.rglob("*.py") if re.search(r"[\"' ]matplotlib", path.read_text())]
    drawing = {path.name for path in importing if re.search(r"(require|find|import)\W+matplotlib", path.read_text())}
    assert drawing == {"plots.py", "evaluate.py"}  # the latter checks before minutes of measuring
    assert "Figure" not in (PACKAGE / "cli" / "evaluate.py").read_text()


def test_forty_series_look_different() -> None:
    looks = [(style["color"], style["marker"]) for style in map(plots.style, range(40))]
    assert len({*looks}) == 40
    assert len({marker for _, marker in looks[:8]}) == len({color for color, _ in looks[:8]}) == 8
    assert plots.style(0, own=False)["linestyle"] != plots.style(0)["linestyle"]


def luminance(color: str) -> float:
    """Relative luminance of a color (WCAG 2)."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("ground", ["#ffffff", "#f5f6f9", "#1d212b", "#14171e"])
def test_colors_are_visible_on_light_and_dark_grounds(ground: str) -> None:
    """A contrast of 3 is what WCAG 2 asks of graphics."""
    for color in (*plots.COLORS, plots.INK):
        less, more = sorted((luminance(color), luminance(ground)))
        assert (more + 0.05) / (less + 0.05) >= 3, color


def test_the_page_of_the_benchmark_has_the_same_colors() -> None:
    script = (PACKAGE / "bench" / "assets" / "report.js").read_text()
    colors = re.search(r"const COLORS = \[(.*?)\]", script, re.DOTALL)
    assert colors is not None
    assert tuple(re.findall(r"#\w+", colors[1])) == plots.COLORS


def test_a_plot_is_an_image_with_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    html = plots.as_html(lambda axes: plots.bars(axes, {"codes": 2.0, "graph": 1.0}, "MB"), 'sizes of "parts"')
    match = re.fullmatch(r'<img alt="sizes of &quot;parts&quot;" src="data:image/png;base64,([^"]+)"/>', html)
    assert match is not None
    assert base64.b64decode(match[1]).startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert plots.as_html(lambda axes: None, "nothing") == ""
    with pytest.raises(MissingExtraError, match="pip install 'matplotlib'"):
        plots.save(lambda axes: None, "a.png")


def test_bars_are_in_the_given_order_and_logarithmic_axes_have_plain_numbers() -> None:
    pytest.importorskip("matplotlib")
    _, (first, second) = plots.figure(2)
    plots.bars(first, {"codes": 2.0, "graph": 1.0}, "MB")
    places = {text.get_text(): text.get_position()[1] for text in first.get_yticklabels()}
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the first is on top
    assert places["codes"] < places["graph"]
    second.plot([100, 9000], [1, 2])
    plots.log_scale(second, "x")
    format = second.xaxis.get_major_formatter()
    assert [format(value) for value in (500, 2000, 0.5)] == ["500", "2,000", "0.5"]
