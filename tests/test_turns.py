"""Turns of the interpreter are short while long work asks for it, and as before afterwards."""

from __future__ import annotations

import sys

import pytest

from qvec.common.switch_interval import TURN, short_turns


def test_turns_are_short_until_the_last_block_ends() -> None:
    before = sys.getswitchinterval()
    first, second = short_turns(), short_turns()
    with first:
        with second:
            assert sys.getswitchinterval() == pytest.approx(TURN)
        assert sys.getswitchinterval() == pytest.approx(TURN)
    assert sys.getswitchinterval() == before
    with pytest.raises(ZeroDivisionError), short_turns():
        _ = 1 / 0
    assert sys.getswitchinterval() == before


def test_shorter_turns_stay() -> None:
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(TURN / 2)
        with short_turns():
            assert sys.getswitchinterval() <= TURN / 2
    finally:
        sys.setswitchinterval(before)
