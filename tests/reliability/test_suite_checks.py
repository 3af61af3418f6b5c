"""The checks of the reliability suite detect the failures that they are meant for."""

from __future__ import annotations

import random
from pathlib import Path

import damages
import kills
import pytest
import workloads
from child import run
from figures import Figures
from forked_workers import Server, each

import qvec


def checked(path: str, live: workloads.Live, pending: workloads.Change | None) -> Figures:
    figures = Figures("R1", "")
    with Server(kills.found) as server:
        kills.check(server, path, live, pending, figures, "here")
    return figures


def stored(path: Path) -> None:
    kills.create(str(path), workloads.WORKLOADS["add"][1])
    with qvec.open(path) as db:
        for batch in range(6):
            workloads.put(batch, 0)[1](db)


@pytest.mark.slow
def test_the_check_of_crashes_sees_lost_torn_and_wrong_vectors(tmp_path: Path) -> None:
    path, live = tmp_path / "a.qvec", dict.fromkeys(range(6), 0)
    run(stored, path)
    assert run(checked, str(path), live, None).failures == []
    assert run(checked, str(path), live | {7: 0}, [(7, -1)]).failures == []  # the pending change was committed
    lost = run(checked, str(path), live | {7: 0}, None)
    assert lost.amounts["lost"] == 1
    assert "batches [7] are neither" in lost.failures[0]
    with qvec.open(path) as db:
        db.delete(workloads.ids_of(2)[:3])
        db.upsert(workloads.vectors_of(1, 1)[:1], workloads.ids_of(1)[:1], workloads.payloads_of(1, 0)[:1])
    found = " ".join(run(checked, str(path), live, None).failures)
    assert "(2, 0) is there in part" in found
    assert "the vector of id 1000 is not that of version 0" in found


def verdicts(path: Path, changes: list[damages.Damage]) -> list[str]:
    damages.create(str(path), "int64")
    sound = path.read_bytes()
    truth = damages.ask(damages._truth, str(path))
    return list(each(changes, lambda change: damages.check(path, sound, truth, change, False)))


@pytest.mark.slow
@pytest.mark.unsanitized
def test_the_check_of_damages_sees_other_answers_and_signals(tmp_path: Path) -> None:
    path = tmp_path / "a.qvec"
    assert run(verdicts, path, [damages.Damage("none", [])]) == ["same"]
    assert run(died, 3) == ["fine", "SIGSEGV", "fine", "hung", "fine"]


def died(n: int) -> list[str]:
    def check(case: str) -> str:
        import ctypes
        import time

        if case == "dies":
            ctypes.string_at(0)
        if case == "hangs":
            time.sleep(60)
        return "fine"

    return list(each(["lives", "dies", "lives", "hangs", "lives"], check, 1.0))


def occurrences(content: bytes, part: bytes) -> list[int]:
    """Offsets of a vector: in its block, and in unused pages with older copies."""
    found, at = [], content.find(part)
    while at >= 0:
        found.append(at)
        at = content.find(part, at + 1)
    return found


@pytest.mark.parametrize("row", [3, 150, 239])
@pytest.mark.slow
def test_damage_within_a_stored_vector_is_found_by_reading_it(tmp_path: Path, row: int) -> None:
    path = tmp_path / "a.qvec"
    damages.create(str(path), "int64")
    content, chance = path.read_bytes(), random.Random(1)
    places = occurrences(content, damages.X[row].tobytes())
    changes = [damages.Damage("bit", [damages.flip(content, at + 5, chance)]) for at in places]
    found = run(verdicts, tmp_path / "b.qvec", changes)
    assert found.count("error") == 1
    assert set(found) <= {"error", "same"}
