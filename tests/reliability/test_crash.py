"""kill -9 at any moment: what was acknowledged is there, and a batch is there whole or not at all."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import crash
import pytest

import qvec

ROUNDS = int(os.environ.get("QVEC_ROUNDS", "25"))
SEED = int(os.environ.get("QVEC_SEED", str(random.SystemRandom().randrange(2**31))))


@pytest.mark.timeout(60 + 2 * ROUNDS)
def test_a_killed_writer_loses_nothing_that_it_acknowledged_and_tears_no_batch(tmp_path: Path) -> None:
    for verdict in crash.run_rounds(tmp_path, ROUNDS, SEED):
        assert verdict.failures == (0, 0, 0, []), f"QVEC_SEED={SEED}, round {verdict.rounds}"
    assert verdict.acknowledged >= ROUNDS // 2  # workers did get to work before they were killed


def test_the_judge_of_crashes_sees_lost_torn_and_wrong_vectors(tmp_path: Path) -> None:
    path = tmp_path / "judged.qvec"
    crash.create(path)
    with qvec.open(path) as db:
        for batch in range(6):
            db.add(
                crash.batch_vectors(batch),
                crash.batch_ids(batch),
                [{"batch": batch}] * len(crash.batch_ids(batch)),
            )
    sound = tmp_path / "sound.qvec"
    shutil.copy(path, sound)
    everything = [line for batch in range(6) for line in (f"+{batch}", "ok")]
    verdict = crash.Verdict()
    assert crash.judge(sound, everything, set(), 0, verdict) == 6
    assert verdict.failures == (0, 0, 0, [])
    with qvec.open(path) as db:
        db.delete(crash.batch_ids(2)[:3])
        db.delete(crash.batch_ids(5))
        db.upsert(crash.batch_vectors(3), crash.batch_ids(0), [{"batch": 0}])
    crash.judge(path, everything, set(), 0, verdict)
    assert (verdict.lost, verdict.torn) == (len(crash.batch_ids(5)), 1)
    assert verdict.wrong >= 1
