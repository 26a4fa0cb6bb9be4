"""What holds for all tests of all packages."""

import gc
import importlib
import os
from collections.abc import Generator
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Python's search for garbage passes over the tests: they stay until the end, and are half a million objects."""
    gc.disable()
    try:
        import_in_turn(session.config)
        return (yield)
    finally:
        gc.enable()
        gc.collect()  # what is garbage by now complains as it did
        gc.freeze()


def import_in_turn(config: pytest.Config) -> None:
    """Each process of xdist begins at a file of its own, so that what is not compiled yet is compiled by one of them and not by all."""
    process, count = (os.environ.get(f"PYTEST_XDIST_WORKER{which}", "") for which in ("", "_COUNT"))
    folders = [Path(argument) for argument in config.args if Path(argument).is_dir()]
    files = sorted(file.resolve() for folder in folders for file in folder.rglob("test_*.py"))
    if not process or not files:
        return
    roots = [config.rootpath / root for root in config.getini("pythonpath")]
    first = len(files) * int(process.removeprefix("gw")) // int(count)
    for file in files[first:] + files[:first]:
        root = next(root for root in roots if file.is_relative_to(root))
        with suppress(Exception, pytest.skip.Exception):  # it is told when the file is collected
            importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))


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
