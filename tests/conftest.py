"""Fixtures of all tests, and the choice of the tests that run."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.register_assert_rewrite("helpers")

Place = Callable[[NDArray[Any]], NDArray[Any]]
ROOM = 64 * mmap.PAGESIZE
MAX_COMBINATIONS = 4
LIBC = ctypes.CDLL(None, use_errno=True)


def pytest_configure(config: pytest.Config) -> None:
    """Repeat the same examples for each change, so that a failure belongs to the change. Nightly runs try more and new
    ones."""
    hypothesis.settings.register_profile("repeatable", derandomize=True, max_examples=40)
    if os.environ.get("QVEC_SCALE") != "nightly" and config.getoption("--hypothesis-seed") is None:
        hypothesis.settings.load_profile("repeatable")


@pytest.hookimpl(wrapper=True)  # runs before the selection by -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Mark most combinations of parameters as slow; skip `unsanitized` tests under AddressSanitizer.

    Of a test with more than MAX_COMBINATIONS cases, a few that take each value of each parameter at least once stay in
    the fast tier.
    """
    functions: dict[str, list[pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in functions.values():
        if len(cases) > MAX_COMBINATIONS:
            for case in set(cases) - set(covering(cases)):
                case.add_marker(pytest.mark.slow)
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        for item in items:
            if item.get_closest_marker("unsanitized"):
                item.add_marker(pytest.mark.skip(reason="AddressSanitizer changes the property under test"))
    return (yield)


def covering(cases: list[pytest.Function]) -> list[pytest.Function]:
    """A few cases of a test that take each value of each parameter at least once (greedy set cover)."""
    values = {case: {(name, id(value)) for name, value in case.callspec.params.items()} for case in cases}
    missing, chosen = set().union(*values.values()), []
    while missing:
        chosen.append(max(cases, key=lambda case: len(values[case] & missing)))
        missing -= values[chosen[-1]]
    return chosen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a test's collection."""
    return tmp_path / "test.qvec"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2024)


@pytest.fixture
def guarded() -> Iterator[Place]:
    """Copy arrays so that each ends at the last byte before a page that faults."""
    regions: list[mmap.mmap] = []

    def place(array: NDArray[Any]) -> NDArray[Any]:
        region = mmap.mmap(-1, ROOM + mmap.PAGESIZE)
        regions.append(region)
        end = np.frombuffer(region, np.uint8).ctypes.data + ROOM
        protected = LIBC.mprotect(ctypes.c_void_p(end), ctypes.c_size_t(mmap.PAGESIZE), 0)
        assert protected == 0, ctypes.get_errno()
        copy = np.frombuffer(region, array.dtype, array.size, ROOM - array.nbytes).reshape(array.shape)
        copy[...] = array
        return copy

    yield place
    regions.clear()
