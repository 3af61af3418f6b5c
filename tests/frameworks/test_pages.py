"""The examples of the tutorials that need other packages print what their comments say."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.page_examples import DOCS, PAGES_WITH_PACKAGES, run_page


@pytest.mark.alone
@pytest.mark.parametrize("name", PAGES_WITH_PACKAGES)
def test_the_python_of_a_page_prints_what_its_comments_say(name: str, tmp_path: Path) -> None:
    for package in PAGES_WITH_PACKAGES[name]:
        pytest.importorskip(package)
    run_page(DOCS / name, tmp_path)
