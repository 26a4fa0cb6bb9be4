"""What holds for all tests of all packages."""

import gc
from collections.abc import Generator

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
