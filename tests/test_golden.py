"""R19: files written by releases of every format version open, give the same answers, can be written to, and are
sound."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import qvec
from qvec.storage.header import FORMAT_VERSION

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))

import make  # noqa: E402

pytestmark = pytest.mark.simd

FILES = sorted(path.name.removesuffix(".qvec.gz") for path in GOLDEN.glob("*.qvec.gz"))


def test_there_are_files_of_the_version_that_is_written() -> None:
    assert {f"{FORMAT_VERSION}-{kind}" for kind in make.COLLECTIONS} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_golden_file_gives_the_stored_answers_and_can_be_written_to(path: Path, name: str) -> None:
    path.write_bytes(gzip.decompress((GOLDEN / f"{name}.qvec.gz").read_bytes()))
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    with qvec.open(path, "r", untrusted=True) as db:
        assert make.answers(db) == expected
    ids = "str" if name.endswith("lists") else "int64"
    with qvec.open(path) as db:
        db.upsert(make.vectors()[:40] + 1, [make.name(ids, i) for i in range(140, 180)], [{"n": i} for i in range(40)])
        db.delete([make.name(ids, i) for i in range(0, 60, 2)])
        assert db.search(make.vectors()[3] + 1, 1, exact=True).ids.shape == (1,)
        assert len(db) == make.N - 10 + 30 - 25
        assert db.verify() == []
        db.compact()
        assert db.verify() == []


def test_the_answers_of_a_collection_do_not_depend_on_the_simd_level() -> None:
    """The golden answers are exact: whole numbers whose sums float32 holds."""
    x = make.vectors()
    assert (np.abs(64 * x) == np.round(np.abs(64 * x))).all()
