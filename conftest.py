"""What holds for all tests of all packages."""

import gc
from collections.abc import Generator
from itertools import groupby

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Python's search for garbage passes over the tests: they stay until the end, and are half a million objects."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()  # what is garbage by now complains as it did
        gc.freeze()


WAITING = {"edges", "working"}
"""The folders of tests that mostly wait: for processes, outages and moments."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of tests that wait are spread among the others: where all processes of xdist wait, the processors are idle."""
    files = [list(tests) for _, tests in groupby(items, lambda item: item.path)]
    placed: list[tuple[float, list[pytest.Item]]] = []
    for waits in (True, False):
        those = [tests for tests in files if waits is not WAITING.isdisjoint(tests[0].path.parts)]
        count, before = sum(map(len, those)), 0
        for tests in those:
            placed.append((before / count, tests))
            before += len(tests)
    placed.sort(key=lambda place: place[0])
    items[:] = [item for _, tests in placed for item in tests]
