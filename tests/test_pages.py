"""The pages of `qvec bench` and `qvec report` in a browser: Chromium without a window, if it is installed (Debian's
`chromium`)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.bench_results import RESULT, entry, point, written
from qvec.bench.html import write_report
from qvec.cli import main

NARROW, WIDE, HEIGHT = 480, 1280, 900
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")]

# A frame has any width; a window has a least one. The script gets the frame as `page` and its document as `d`.
FRAME = """<!doctype html><html><head><title></title></head><body>
<iframe style="width:{width}px;height:{height}px;border:0" srcdoc="{page}"></iframe>
<pre id="found"></pre><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentWindow, d = page.document, found = (() => {{ {script} }})();
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script></body></html>"""


def shown(page: Path, width: int, script: str, folder: Path) -> Any:
    """What a script returns that runs in the page, in a frame of this width."""
    frame = folder / "frame.html"
    frame.write_text(
        FRAME.format(width=width, height=HEIGHT, page=escape(page.read_text("utf-8")), script=script), "utf-8"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command = [str(CHROMIUM), *options, "--virtual-time-budget=3000", "--dump-dom", frame.as_uri()]
    text = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    match = re.search(r'<pre id="found">(.*?)</pre>', text, re.DOTALL)
    assert match is not None, text[:500]
    return json.loads(unescape(match[1]))


@pytest.fixture
def report(tmp_path: Path) -> Path:
    names = ("qvec int8 packed originals=f16 memory=index", *(f"library-{i} ef_construction=400" for i in range(12)))
    many = [entry(name, i == 0, point(0.9, 600 - i), point(0.99, 60 + i)) for i, name in enumerate(names)]
    write_report([RESULT, written(*many)], tmp_path / "report.html")
    return tmp_path / "report.html"


@pytest.fixture
def store_page(tmp_path: Path) -> Path:
    x = np.random.default_rng(2).normal(size=(1500, 16)).astype(np.float32)
    with qvec.create(tmp_path / "a-store-with-a-long-name.qvec", 16, index="hnsw") as db:
        db.add(x)
        db.tune(x[:50] + 0.1, ks=(5,))
    assert main(("report", str(tmp_path / "a-store-with-a-long-name.qvec"), "--evaluate", "-n", "30")) == 0
    return tmp_path / "a-store-with-a-long-name.qvec.html"


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("name", ["report", "store_page"])
def test_a_page_does_not_scroll_sideways(name: str, width: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    page: Path = request.getfixturevalue(name)
    assert shown(page, width, "return d.documentElement.scrollWidth", tmp_path) <= width


def test_contestants_have_different_marks(report: Path, tmp_path: Path) -> None:
    marks = shown(report, WIDE, "return [...d.querySelectorAll('#legend .mark')].map(m => m.outerHTML)", tmp_path)
    assert len(marks) == len({*marks}) == 13
    shapes = {re.search(r' d="(.*?)"', mark)[1] for mark in marks[:8]}  # type: ignore[index]
    assert len(shapes) == 8


def test_the_figures_of_points_are_shown_by_keys(report: Path, tmp_path: Path) -> None:
    script = """
    const seen = [], chart = d.getElementById("chart"), tip = d.getElementById("tip");
    for (const key of ["ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "Escape"]) {
      chart.dispatchEvent(new page.KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
      seen.push(tip.hidden ? null : [tip.querySelector("b").textContent, tip.querySelector("dd").textContent]);
    }
    return seen;"""
    first, other = "qvec int8 packed originals=f16 memory=index", "library-0 ef_construction=400"
    expected = [[first, "0.9"], [first, "0.99"], [other, "0.99"], [other, "0.9"], None]
    assert shown(report, WIDE, script, tmp_path) == expected


def test_contestants_are_hidden_by_buttons_that_keep_the_focus(report: Path, tmp_path: Path) -> None:
    script = """
    const visible = () => new Set([...d.querySelectorAll("#chart path.own, #chart path.peer")]).size;
    const press = (n) => { const b = d.querySelectorAll("#legend button")[n]; b.focus(); b.click(); };
    const counts = [visible()];
    press(0); counts.push(visible());
    const focused = d.activeElement.getAttribute("aria-pressed");
    press(3); counts.push(visible());
    return [...counts, focused];"""
    assert shown(report, NARROW, script, tmp_path) == [13, 12, 1, "false"]
