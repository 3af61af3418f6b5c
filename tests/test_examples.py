"""The notebooks: their cells run in order, and what is stored of their outputs is small and without errors."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 60_000

if not FOLDER.exists():
    pytest.skip("examples are not next to the tests", allow_module_level=True)


def code_cells(file: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_small_listed_and_has_the_outputs_of_its_last_run(file: Path) -> None:
    assert file.stat().st_size < MAX_BYTES
    cells = code_cells(file)
    assert all(cell["outputs"] for cell in cells)
    assert {output["output_type"] for cell in cells for output in cell["outputs"]} <= {"stream", "display_data"}
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    listed = re.findall(r"\]\(([^)]+\.ipynb)\)", (FOLDER / "README.md").read_text())
    assert sorted(listed) == [notebook.name for notebook in NOTEBOOKS]


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_cells_of_a_notebook_run_and_print_as_many_lines(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in code_cells(file):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), file.name, "exec"), names)
        if {output["output_type"] for output in cell["outputs"]} == {
            "stream"
        }:  # tables of rich are displayed otherwise
            stored = "".join("".join(output["text"]) for output in cell["outputs"])
            assert len(printed.getvalue().splitlines()) == len(stored.splitlines())
