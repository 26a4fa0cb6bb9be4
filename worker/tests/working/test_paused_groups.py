"""A group is paused and resumed while workers run."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Forge, State
from forge_jobs.telemetry.events import GroupsResumed
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


async def test_no_job_of_a_paused_group_begins_while_others_do(forge: Forge) -> None:
    begun: list[int] = []

    @forge.handler(group=lambda customer: f"customer:{customer}")
    async def bill(customer: int) -> None:
        begun.append(customer)

    async with working(forge):
        await forge.groups.pause("customer:1", why="their shop moves")
        waiting = await bill.enqueue(customer=1)
        await forge.wait(await bill.enqueue(customer=2), timeout=20)
        assert begun == [2]
        assert (await forge.jobs.why(waiting.id)).reasons == (
            "Its group 'customer:1' is paused: their shop moves.",
        )

        assert await forge.groups.resume("customer:1")
        await forge.wait(waiting, timeout=20)
    assert begun == [2, 1]


async def test_a_running_job_ends_and_what_was_claimed_ahead_waits_for_the_end_of_the_pause(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "forge_jobs.worker.claimer.LONGEST_IN_HAND", 3600.0
    )  # for no other reason does one go back
    begun: list[int] = []
    go = asyncio.Event()

    @forge.handler(group="a")
    async def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            await go.wait()

    await forge.groups.set("a", 3)
    async with working(forge, concurrency=1) as worker:
        await work.enqueue(number=0)
        await eventually(lambda: begun)
        ahead = [await work.enqueue(number=number) for number in (1, 2)]
        other = await work.options(group=()).enqueue(number=9)
        assert worker.session is not None
        claimer = worker.session._claimer
        [queue] = claimer.queues.values()
        claims = await forge.storage.claims.claim(
            queue.id, worker.session.info.id, limit=3, standing=claimer._eras.standing
        )
        claimer._held.claimed(queue, claims)
        claimer._hand.waiting.extend((claim, queue) for claim in claims)  # as after many short jobs

        await forge.groups.pause("a")
        await eventually(lambda: _blocked(forge, 2))
        assert [claim.job_id for claim, _ in claimer._hand.waiting] == [other.id]
        go.set()
        await eventually(lambda: _done(forge, 2))
        assert begun == [0, 9]

        await forge.groups.resume("a")
        for job in ahead:
            await forge.wait(job, timeout=20)
    assert begun == [0, 9, 1, 2]


@pytest.mark.parametrize("paused_before", [False, True])
async def test_what_a_claim_on_its_way_brings_of_a_group_that_is_paused_meanwhile_goes_back(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, paused_before: bool
) -> None:
    claim = forge.storage.claims.claim
    begun: list[int] = []
    brought: list[int] = []
    resumes = False

    async def slow(*given: Any, **options: Any) -> Any:
        if resumes:
            await forge.groups.resume("a")
        claims = await claim(*given, **options)
        if claims:
            monkeypatch.setattr(forge.storage.claims, "claim", claim)
            await forge.groups.pause("a")
            assert worker.session is not None
            claimer = worker.session._claimer
            pauses = frozenset((await forge.storage.groups.paused()).items())
            await eventually(lambda: claimer._paused_groups == pauses)
            brought.append(claims[0].job_id)
        return claims

    @forge.handler(group="a")
    async def work() -> None:
        begun.append(1)

    if paused_before:
        await forge.groups.pause("a")
    monkeypatch.setattr(forge.storage.claims, "claim", slow)
    async with working(forge) as worker:
        job = await work.enqueue()
        resumes = paused_before
        await eventually(lambda: brought)
        await eventually(lambda: _blocked(forge, 1))
        assert (brought, begun) == ([job.id], [])

        await forge.groups.resume("a")
        await forge.wait(job, timeout=60)


async def test_the_pause_of_a_group_ends_by_itself(forge: Forge, events: Events) -> None:
    @forge.handler(group="a")
    async def work() -> None: ...

    async with working(forge):
        paused = await forge.groups.pause("a", until=timedelta(seconds=1))
        assert paused.paused and paused.paused_until is not None
        job = await work.enqueue()
        assert (await forge.jobs.get(job.id)).state is State.BLOCKED
        await forge.wait(job.id, timeout=20)
    assert events.of(GroupsResumed) == [GroupsResumed(["a"])]


async def _blocked(forge: Forge, jobs: int) -> bool:
    [counts] = await forge.jobs.counts()
    return counts.blocked == jobs


async def _done(forge: Forge, jobs: int) -> bool:
    [counts] = await forge.jobs.counts()
    return counts.done == jobs
