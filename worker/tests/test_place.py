"""Whose code runs at a place of a program."""

import sys
from types import FrameType
from typing import Any

import pytest

from forge_jobs.system.place import is_in_library


def innermost(*modules: str) -> FrameType:
    """Return the frame of a function of the last of these modules, each of which was called by the one before."""
    call: Any = sys._getframe
    for module in reversed(modules):
        scope: dict[str, Any] = {"__name__": module, "inner": call}
        exec("def call():\n    return inner()", scope)
        call = scope["call"]
    frame = call()
    assert isinstance(frame, FrameType)
    return frame


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (["forge_jobs.worker.runners", "shop.handlers"], False),
        (["forge_jobs.worker.runners", "shop.handlers", "urllib3.response", "socket"], False),
        (["forge_jobs.worker.runners", "forge_jobs.handlers.handler", "shop.handlers"], False),
        (["forge_jobs.worker.runners", "shop.handlers", "forge_jobs.client.jobs", "asyncio.locks"], True),
        (["forge_jobs.worker.runners", "shop.handlers", "forge_jobs.forge", "asyncpg.pool"], True),
        (["asyncio.events", "asyncpg.pool"], True),
        (["asyncio.events", "shop.background"], False),
    ],
)
def test_the_library_is_at_work_where_it_was_called_and_calls_nobody_elses_code(
    modules: list[str], expected: bool
) -> None:
    assert is_in_library(innermost(*modules)) is expected
