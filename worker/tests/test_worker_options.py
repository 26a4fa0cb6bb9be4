"""What a Worker may be told: everything else is refused where it is said, before anything runs."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Forge, InvalidInput, Worker

SQLITE = "sqlite://:memory:"


@pytest.mark.parametrize("option", ["grace", "heartbeat", "stale"])
def test_a_duration_of_a_worker_may_be_seconds(option: str) -> None:
    given: Any = {"stale": 90, option: 7.5 if option != "stale" else 90}
    worker = Worker(Forge(SQLITE), queues=["default"], **given)

    assert getattr(worker, option) == timedelta(seconds=given[option])


@pytest.mark.parametrize("given", [-1, timedelta(seconds=-1), "5", True, float("nan"), float("inf"), [5]])
@pytest.mark.parametrize("option", ["grace", "heartbeat", "stale"])
def test_what_is_no_duration_is_refused(option: str, given: Any) -> None:
    with pytest.raises(InvalidInput, match=rf"^{option} is .*, allowed is "):
        Worker(Forge(SQLITE), queues=["default"], **{option: given})


@pytest.mark.parametrize("given", ["", "a b", "a\nb", "nul\x00", "-a", "x" * 64, 5])
@pytest.mark.parametrize("option", ["prefix", "version"])
def test_what_cannot_be_part_of_a_label_is_refused(option: str, given: Any) -> None:
    with pytest.raises(InvalidInput, match=rf"^{option} is .*, allowed are 1 to 63 characters"):
        Worker(Forge(SQLITE), queues=["default"], **{option: given})


@pytest.mark.parametrize("given", ["", "a b", "a\nb", "nul\x00", "x" * 129, 5])
def test_what_cannot_be_the_name_of_a_worker_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^The worker is .*, allowed are 1 to 128 printable characters"):
        Worker(Forge(SQLITE), queues=["default"], name=given)


@pytest.mark.parametrize("given", [-2, 65_536, True, "9090", 1.5, None])
def test_what_is_no_port_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^metrics_port is .*, allowed is a whole number from -1"):
        Worker(Forge(SQLITE), queues=["default"], metrics_port=given)


async def test_signals_are_heard_in_the_main_thread_only_and_that_is_said() -> None:
    worker = Worker(Forge(SQLITE), queues=["default"])

    with pytest.raises(
        InvalidInput, match=r"^handle_signals is True in the thread .*, allowed is the main thread"
    ):
        await asyncio.to_thread(asyncio.run, worker.run(handle_signals=True))
