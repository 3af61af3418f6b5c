"""Long work in Python shortens the interpreter's switch interval and restores it afterwards."""

from __future__ import annotations

import sys

import pytest

from qvec.common.switch_interval import SHORT_INTERVAL, short_switch_interval


def test_the_switch_interval_is_short_until_the_last_block_ends() -> None:
    before = sys.getswitchinterval()
    first, second = short_switch_interval(), short_switch_interval()
    with first:
        with second:
            assert sys.getswitchinterval() == pytest.approx(SHORT_INTERVAL)
        assert sys.getswitchinterval() == pytest.approx(SHORT_INTERVAL)
    assert sys.getswitchinterval() == before
    with pytest.raises(ZeroDivisionError), short_switch_interval():
        _ = 1 / 0
    assert sys.getswitchinterval() == before


def test_a_shorter_switch_interval_is_not_changed() -> None:
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(SHORT_INTERVAL / 2)
        with short_switch_interval():
            assert sys.getswitchinterval() <= SHORT_INTERVAL / 2
    finally:
        sys.setswitchinterval(before)
