"""Damaged files: an error of qvec's or the answers of the sound file, never other answers and never a signal."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from child import ChildDied, run
from generated import clustered

import qvec

DIM = 24
PAGE = 4096
CASES = int(os.environ.get("QVEC_DAMAGES", "40"))  # of each kind
SEED = int(os.environ.get("QVEC_SEED", "17"))
X = clustered(np.random.default_rng(2), 400, DIM)
Case = tuple[str, int, int]  # kind of damage, offset, bit or bytes


def create(path: Path, ids: Literal["int64", "str"]) -> None:
    """Several commits, deletions among them, so that the file has old pages too."""
    with qvec.create(path, DIM, metric="l2", code="int8", index=qvec.HNSW(m=8, ef_construction=40), ids=ids) as db:
        names = [f"x{i}" if ids == "str" else i for i in range(400)]
        for start in (0, 100, 200, 300):
            db.add(X[start : start + 100], names[start : start + 100], [{"row": i} for i in range(start, start + 100)])
        db.delete(names[50:70])
        db.upsert(X[90:100], names[80:90], [{"row": i} for i in range(90, 100)])


def answers(path: Path, mode: Literal["rw", "r"]) -> str:
    """A digest of all that a collection says."""
    said = hashlib.sha256()
    with qvec.open(path, mode) as db:
        for exact in (False, True):
            hits = db.search(X[::7], 10, exact=exact)
            said.update(repr((hits.ids.tolist(), hits.distances.tolist(), hits.payloads)).encode())
        for records in db.scan(batch_size=100):
            said.update(repr((records.ids.tolist(), records.vectors.tolist(), records.payloads)).encode())
            said.update(repr(db.get(records.ids).vectors.tolist()).encode())
        said.update(repr(len(db)).encode())
    return said.hexdigest()


def damage(sound: bytes, case: Case) -> bytes:
    kind, offset, bit = case
    if kind == "truncated":
        return sound[:offset]
    if kind == "zeroed":
        return sound[:offset] + bytes(bit) + sound[offset + bit :]
    changed = bytearray(sound)
    changed[offset] ^= 1 << bit
    return bytes(changed)


def judge(path: str, cases: list[Case], modes: list[Any]) -> list[str]:
    """What each damaged copy led to: "error", "same", or what went wrong. A file named .current tells the case."""
    sound, copy, verdicts = Path(path).read_bytes(), Path(path + ".copy"), []
    truth = answers(Path(path), "r")
    for case in cases:
        for mode in modes:
            Path(path + ".current").write_text(repr((case, mode)))
            copy.write_bytes(damage(sound, case))
            verdicts.append(verdict(copy, truth, mode))
            for leftover in (copy, Path(f"{copy}-lock")):
                leftover.unlink(missing_ok=True)
    return verdicts


def verdict(copy: Path, truth: str, mode: Any) -> str:
    try:
        return "same" if answers(copy, mode) == truth else "other answers"
    except qvec.QvecError:
        return "error"
    except Exception as error:
        return f"raised {error!r}"


def verified(path: str, cases: list[Case]) -> list[bool]:
    """Whether opening or verify() finds each damage."""
    sound, copy, found = Path(path).read_bytes(), Path(path + ".copy"), []
    for case in cases:
        Path(path + ".current").write_text(repr(case))
        copy.write_bytes(damage(sound, case))
        try:
            with qvec.open(copy, "r") as db:
                found.append(db.verify() != [])
        except qvec.QvecError:
            found.append(True)
        for leftover in (copy, Path(f"{copy}-lock")):
            leftover.unlink(missing_ok=True)
    return found


def judged(path: Path, function: Callable[..., Any], *args: Any) -> Any:
    try:
        return run(function, str(path), *args, deadline=120)
    except ChildDied as error:
        raise AssertionError(f"{Path(f'{path}.current').read_text()}: {str(error)[-300:]}") from None


def cases(kind: str, size: int) -> Iterator[Case]:
    chance = random.Random(f"{SEED} {kind}")
    for number in range(CASES):
        if kind == "truncated":
            at_page = PAGE * chance.randrange(size // PAGE)
            yield kind, at_page if number % 2 else chance.randrange(size), 0
        elif kind == "zeroed":
            start = chance.randrange(2 * PAGE, size - 64)
            yield kind, start, 64
        else:
            yield kind, chance.randrange(size), chance.randrange(8)


@pytest.fixture(scope="module", params=["int64", "str"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "sound.qvec"
    create(path, request.param)
    return path


@pytest.mark.parametrize("kind", ["truncated", "flipped", "zeroed"])
def test_a_damaged_file_gives_an_error_or_the_right_answers(sound: Path, kind: str) -> None:
    damages = list(cases(kind, sound.stat().st_size))
    verdicts = judged(sound, judge, damages, ["r", "rw"])
    wrong = [(damages[i // 2], v) for i, v in enumerate(verdicts) if v not in ("error", "same")]
    assert wrong == []
    assert "error" in verdicts


def occurrences(content: bytes, part: bytes) -> Iterator[int]:
    """Where a vector lies: in its block, and in pages that hold older copies of it and are not read any more."""
    at = content.find(part)
    while at >= 0:
        yield at
        at = content.find(part, at + 1)


@pytest.mark.parametrize("row", [3, 150, 399])
def test_damage_within_a_stored_vector_is_found_by_reading_it_and_by_verify(sound: Path, row: int) -> None:
    damages = [("flipped", at + 5, 3) for at in occurrences(sound.read_bytes(), X[row].tobytes())]
    verdicts = judged(sound, judge, damages, ["r", "rw"])
    found = [verdicts[2 * i : 2 * i + 2] == ["error", "error"] for i in range(len(damages))]
    assert found.count(True) == 1
    assert judged(sound, verified, damages) == found


@pytest.mark.parametrize("kind", ["flipped", "zeroed"])
def test_verify_finds_every_damage_that_changes_an_answer(sound: Path, kind: str) -> None:
    damages = list(cases(kind, sound.stat().st_size))
    verdicts = judged(sound, judge, damages, ["r"])
    found = judged(sound, verified, damages)
    assert [case for case, v, f in zip(damages, verdicts, found, strict=True) if v != "same" and not f] == []


def test_a_sound_copy_has_nothing_to_report(sound: Path) -> None:
    assert judged(sound, verified, [("truncated", sound.stat().st_size, 0)]) == [False]
    assert judged(sound, judge, [("truncated", sound.stat().st_size, 0)], ["r", "rw"]) == ["same", "same"]
