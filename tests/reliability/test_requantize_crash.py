"""A process killed in the middle of a requantize leaves the old codes or the new, whole, and goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from requantize_kill import make_collection, one_round

import qvec


@pytest.mark.parametrize("rounds", [10, pytest.param(200, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)])])
def test_a_kill_during_requantize_leaves_one_generation_whole(tmp_path: Path, rounds: int) -> None:
    path, x = make_collection(tmp_path / "a")
    found = [one_round(path, x, number) for number in range(rounds)]
    assert [one.problems for one in found] == [[]] * rounds
    assert sum(one.interrupted for one in found) > rounds // 2
    with qvec.open(path) as db:
        db.requantize("int8")
        assert (db.stats().code, db.verify()) == ("int8", [])
