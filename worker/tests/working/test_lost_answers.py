"""A statement whose answer never came may have been carried out: the worker finds out, and goes on."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forge_jobs import Forge, Reschedule, State
from forge_jobs.errors import StorageUnavailable
from forge_jobs.model.job import Claim
from tests.working.eventually import eventually
from tests.working.running import working

Lose = Callable[..., None]


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lose]:
    """The connection breaks at the next call of a method of the storage: after it was carried out, or before."""

    def lose(noun: Any, name: str, *, carried_out: bool = True) -> None:
        method = getattr(noun, name)

        async def broken(*given: Any, **named: Any) -> Any:
            monkeypatch.setattr(noun, name, method)
            if carried_out:
                await method(*given, **named)
            raise StorageUnavailable("The connection broke.")

        monkeypatch.setattr(noun, name, broken)

    yield lose


@pytest.mark.parametrize("name", ["claim", "finish"])
async def test_a_job_is_run_once_though_an_answer_was_lost(forge: Forge, lose: Lose, name: str) -> None:
    ran: list[int] = []

    @forge.handler
    async def work() -> None:
        ran.append(1)

    async with working(forge):
        lose(forge.storage.claims, name)
        job = await work.enqueue()
        await forge.wait(job.id, timeout=30)
    assert len(ran) == 1
    assert (await forge.jobs.get(job.id)).attempt == 1


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("name", ["take", "give_back"])
async def test_no_slot_is_kept_by_a_worker_that_does_not_know_of_it(
    forge: Forge, lose: Lose, name: str, carried_out: bool
) -> None:
    @forge.handler
    async def work() -> None:
        pass

    await forge.queues.set("default", concurrency=1)
    later = await work.options(delay=timedelta(days=1)).enqueue()
    async with working(forge):
        lose(forge.storage.slots, name, carried_out=carried_out)
        first = await work.enqueue()
        await forge.wait(first.id, timeout=30)
        await eventually(lambda: _all_slots_are_free(forge, later.id))
    assert (await forge.jobs.get(first.id)).state is State.DONE


async def _all_slots_are_free(forge: Forge, job_id: int) -> bool:
    return (await forge.storage.jobs.waiting(job_id)).slots_held == 0


async def test_a_job_that_came_back_before_its_outcome_was_heard_from_does_not_run_twice_at_once(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[int] = []
    most: list[int] = []
    claimed: list[Claim] = []
    postpone, claim = forge.storage.claims.postpone, forge.storage.claims.claim
    written, came_back = asyncio.Event(), asyncio.Event()

    @forge.handler
    async def work() -> None:
        if not most:
            most.append(1)
            raise Reschedule(datetime.now(UTC))
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(0.5)  # long enough to be claimed again
        running.pop()

    async def claim_and_tell(*given: Any, **named: Any) -> Any:
        claims = await claim(*given, **named)
        claimed.extend(claims)
        if len(claimed) > 1:
            came_back.set()
        return claims

    async def postpone_and_break(postponements: Any) -> Any:
        answer = await postpone(postponements)
        if not written.is_set():
            written.set()
            await came_back.wait()
            raise StorageUnavailable("The connection broke.")
        return answer

    monkeypatch.setattr(forge.storage.claims, "claim", claim_and_tell)
    monkeypatch.setattr(forge.storage.claims, "postpone", postpone_and_break)
    async with working(forge, concurrency=3):
        job = await work.enqueue()
        await forge.wait(job.id, timeout=30)
        await eventually(lambda: not running)
    assert most == [1, 1]
