"""Jobs that stand where a worker has already looked are found all the same."""

from collections.abc import Sequence
from datetime import timedelta
from math import inf
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.errors import StorageUnavailable
from forge_jobs.model.job import Claim
from forge_jobs.storage.interface.claims import Front
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.worker import claimer, hints, scouts, served_queue
from forge_jobs.worker.polling import SHORTEST_POLL
from tests.storage.databases import Database
from tests.storage.factories import claim, enqueue, worker
from tests.working.eventually import eventually
from tests.working.running import working


@pytest.fixture
def ran(forge: Forge) -> list[int]:
    """The ids of jobs that ran, in their order."""
    ran: list[int] = []

    @forge.handler
    async def work(ctx) -> None:
        ran.append(ctx.job_id)

    return ran


async def _looked(forge: Forge, ran: list[int], **facts: object) -> None:
    """The worker has claimed a job, so its hints stand behind it."""
    wanted = await enqueue(forge.storage, payload=b"{}", **facts)
    await eventually(lambda: wanted in ran)


async def test_a_job_of_any_priority_is_found_wherever_others_were_claimed(
    forge: Forge, ran: list[int]
) -> None:
    async with working(forge):
        await _looked(forge, ran)
        for priority in (-5, 5, -7, 3):
            await _looked(forge, ran, priority=priority)
        await _looked(forge, ran)


async def test_a_job_handed_back_at_its_old_place_is_found(forge: Forge, ran: list[int]) -> None:
    other = await worker(forge.storage)
    old = await enqueue(forge.storage, payload=b"{}")
    [claimed] = await claim(forge.storage, other)
    async with working(forge):
        await _looked(forge, ran)
        await forge.storage.claims.hand_back([claimed])

        await eventually(lambda: old in ran)


async def test_looks_that_find_nothing_for_long_begin_at_the_beginning_and_need_no_scouts(
    forge: Forge, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        hints, "LATE", timedelta(0)
    )  # so a look that begins at a hint finds nothing before it
    for module in (claimer, served_queue):
        monkeypatch.setattr(module, "LONGEST_POLL", SHORTEST_POLL)
    monkeypatch.setattr(served_queue, "QUICK", 60.0)
    looks, scouted = 0, 0
    claim_before, front = forge.storage.claims.claim, forge.storage.claims.front

    async def counted_claim(*given: Any, **options: Any) -> Sequence[Claim]:
        nonlocal looks
        looks += 1
        return await claim_before(*given, **options)

    async def counted_front(*given: Any, **options: Any) -> Front:
        nonlocal scouted
        scouted += 1
        return await front(*given, **options)

    async def only_looks() -> bool:
        before, until = scouted, looks + 4
        await eventually(lambda: looks >= until)
        return scouted == before

    other = await worker(forge.storage)
    old = await enqueue(forge.storage, payload=b"{}")
    [claimed] = await claim(forge.storage, other)
    monkeypatch.setattr(forge.storage.claims, "claim", counted_claim)
    monkeypatch.setattr(forge.storage.claims, "front", counted_front)
    async with working(forge) as served:
        await _looked(forge, ran)
        await eventually(only_looks)

        assert served.session is not None
        for told in ("wake", "wake_behind"):
            monkeypatch.setattr(served.session._claimer, told, lambda *given: None)
        before = scouted
        await forge.storage.claims.hand_back([claimed])
        await eventually(lambda: old in ran)
        assert scouted == before


async def test_a_scout_that_fails_says_nothing_of_what_one_costs(
    forge: Forge, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*given: Any, **options: Any) -> Front:
        raise StorageUnavailable("it is away")

    async with working(forge) as served:
        await _looked(forge, ran)
        assert served.session is not None
        [asked] = served.session._claimer.queues.values()
        await eventually(lambda: asked.scout_took < inf)
        monkeypatch.setattr(forge.storage.claims, "front", away)
        await _looked(forge, ran)

        await eventually(lambda: asked.scout_took == inf, within=20)


async def test_a_job_whose_transaction_commits_late_is_found(
    forge: Forge, ran: list[int], database: Database
) -> None:
    async with working(forge):
        async with database.transaction() as connection:
            late = (await forge.enqueue("work", connection=connection)).id
            if forge.storage.shared:  # in SQLite nobody else writes meanwhile
                await _looked(forge, ran)
        await eventually(lambda: late in ran)


async def test_a_wake_up_that_comes_while_a_look_is_on_its_way_is_not_lost(
    forge: Forge, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So only a wake-up brings another look.
    monkeypatch.setattr(claimer, "SHORTEST_POLL", 3600.0)
    monkeypatch.setattr(scouts, "SCOUT_EVERY", 3600.0)
    behind: list[int] = []
    claim_before = forge.storage.claims.claim

    async def claimed_as_another_comes(queue_id: int, *given: Any, **options: Any) -> Sequence[Claim]:
        claims = await claim_before(queue_id, *given, **options)
        if claims and not behind:
            behind.append(await enqueue(forge.storage, payload=b"{}"))
            assert served.session is not None
            served.session._claimer.wake(queue_id)
        return claims

    monkeypatch.setattr(forge.storage.claims, "claim", claimed_as_another_comes)
    async with working(forge) as served:
        first = await enqueue(forge.storage, payload=b"{}")
        await eventually(lambda: behind and {first, *behind} <= set(ran))


async def test_known_jobs_run_behind_and_between_kinds_that_nobody_handles(
    forge: Forge, ran: list[int]
) -> None:
    storage: Storage = forge.storage
    await forge.enqueue_many("strange", [{}] * 50)
    between = await enqueue(storage, payload=b"{}")
    await forge.enqueue_many("odd", [{}] * 50)
    async with working(forge):
        await eventually(lambda: between in ran)
        await _looked(forge, ran)
        await forge.enqueue_many("strange", [{}] * 50)
        await _looked(forge, ran)
        await _looked(forge, ran, priority=1)

        async def are_the_others_left() -> bool:
            [counts] = await storage.jobs.counts()
            return counts.pending + counts.in_progress == 150

        await eventually(are_the_others_left)  # the last job is done once that is recorded


async def test_a_job_handed_back_while_a_look_is_on_its_way_is_found(
    forge: Forge, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So only where the next look begins decides.
    monkeypatch.setattr(scouts, "SCOUT_EVERY", 3600.0)
    monkeypatch.setattr(hints, "MARGIN", 0)
    monkeypatch.setattr(hints, "LATE", timedelta(0))
    other = await worker(forge.storage)
    behind = await enqueue(forge.storage, payload=b"{}")
    held = await claim(forge.storage, other)
    claim_before = forge.storage.claims.claim

    async def claimed_as_another_comes_back(queue_id: int, *given: Any, **options: Any) -> Sequence[Claim]:
        claims = await claim_before(queue_id, *given, **options)
        if claims and held:
            await forge.storage.claims.hand_back(held)
            [back] = held
            held.clear()
            assert served.session is not None
            served.session._claimer.wake_behind(queue_id, back.priority, back.pos, other)
        return claims

    monkeypatch.setattr(forge.storage.claims, "claim", claimed_as_another_comes_back)
    async with working(forge) as served:
        first = await enqueue(forge.storage, payload=b"{}")
        await eventually(lambda: {first, behind} <= set(ran))
