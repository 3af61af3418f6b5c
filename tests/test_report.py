"""`qvec report`: what the page of a store contains."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import qvec
from qvec.cli import main

X = np.random.default_rng(2).normal(size=(700, 16)).astype(np.float32)
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects the texts of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["td"]:
            self.cells.append(data)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "a.qvec"
    with qvec.create(path, 16, index="hnsw", model="<model>", fields={"a": "int"}) as db:
        db.add(X, payloads=[{"a": i} for i in range(len(X))])
    return path


def test_a_page_has_the_figures_of_the_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = store.read_bytes()
    assert main(("report", str(store), "-n", "30", "--json")) == 0
    made = json.loads(capsys.readouterr().out)
    text = Path(made["file"]).read_text("utf-8")
    assert made == {"file": f"{store}.html", "bytes": len(text.encode())}
    assert store.read_bytes() == before
    cells = Page(text).cells
    assert {"700", "16", "cosine", "int8", "hnsw", "a: int", "<model>"} <= set(cells)
    assert {"codes", "vectors", "graph", "p50", "p99"} <= set(cells)
    assert "No recall curves are stored" in text
    assert "30 single searches" in text
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)  # nothing is fetched


def test_curves_that_tune_stored_and_codes_are_on_the_page(store: Path, tmp_path: Path) -> None:
    with qvec.open(store) as db:
        assert db.recall_curves() is None
        curves = db.tune(X[:50] + 0.1, ks=(5,))
        assert db.recall_curves() == curves
    assert main(("report", str(store), "--evaluate", "--out", str(tmp_path / "page.html"))) == 0
    text = (tmp_path / "page.html").read_text("utf-8")
    Page(text)
    assert "Recall curves: hnsw, 700 rows, 50 queries" in text
    assert "rabitq4" in text


def test_an_empty_store_has_a_page_without_latencies(tmp_path: Path) -> None:
    qvec.create(tmp_path / "e.qvec", 4).close()
    assert main(("report", str(tmp_path / "e.qvec"))) == 0
    assert "Latency" not in (tmp_path / "e.qvec.html").read_text("utf-8")


def test_a_wrong_number_of_searches_is_refused(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("report", str(store), "-n", "0")) == 2
    assert "-n" in capsys.readouterr().err
    assert not Path(f"{store}.html").exists()
