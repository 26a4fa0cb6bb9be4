"""The jobs of a cron join their groups and take their tenants' turns as those of calls do."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import State
from forge_jobs.model.kind import Kind
from tests.storage.factories import claim, cron, done, enqueue, enqueue_many, leader, state, worker

NIGHT = datetime(2030, 1, 1, 3, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
async def epoch(storage):
    """The epoch of a leader."""
    return await leader(storage)


@pytest.fixture
async def fire(storage, epoch):
    """A function that sets a cron with these facts and fires it so many times at once; it returns the ids of new jobs."""

    async def fire(times=1, **facts):
        await storage.crons.set(replace(cron(**facts), next_fire_at=NIGHT))
        present = await storage.crons.get("nightly")
        moments = [NIGHT + number * DAY for number in range(times)]
        made = await storage.fires.fire(present, moments, NIGHT + times * DAY, epoch=epoch)
        return [job.id for job in made if not job.duplicate]

    return fire


async def test_a_fire_stands_in_line_behind_a_job_of_its_group_that_runs(storage, fire):
    me = await worker(storage, kinds=("bill", "report"))
    await enqueue(storage, "bill", groups=encoded([Group("ada")]))
    [running] = await claim(storage, me)

    [mine] = await fire(groups=encoded([Group("ada")]))

    assert await state(storage, mine) is State.BLOCKED
    assert (await storage.jobs.get(mine)).groups == (Group("ada"),)
    await storage.claims.finish([done(running)])
    assert [job.job_id for job in await claim(storage, me)] == [mine]


async def test_missed_fires_of_a_group_run_one_after_another_in_their_order(storage, fire):
    me = await worker(storage, kinds=("report",))

    made = await fire(3, groups=encoded([Group("ada")]))

    assert [await state(storage, one) for one in made] == [State.PENDING, State.BLOCKED, State.BLOCKED]
    for one in made:
        [claimed] = await claim(storage, me)
        assert claimed.job_id == one
        await storage.claims.finish([done(claimed)])


async def test_a_cron_triggered_by_hand_joins_its_group(storage):
    await enqueue(storage, groups=encoded([Group("ada")]))
    await storage.crons.set(cron(groups=encoded([Group("ada")])))

    assert await state(storage, (await storage.crons.trigger("nightly")).id) is State.BLOCKED


async def test_the_limit_that_a_cron_says_holds(storage, fire):
    groups = encoded([Group("ada", 2)])

    assert [await state(storage, one) for one in await fire(3, groups=groups)] == [
        State.PENDING,
        State.PENDING,
        State.BLOCKED,
    ]
    assert [group.limit for group in await storage.groups.all()] == [2]


async def test_a_fire_that_its_group_drops_is_skipped_and_counted(storage, fire):
    first = await enqueue(storage, groups=encoded([Group("ada")]))

    assert await fire(2, groups=encoded([Group("ada", overflow="drop_newest")])) == []

    assert [job.id for job in await storage.jobs.find()] == [first]
    assert (await storage.crons.get("nightly")).skipped == 2
    [counts] = await storage.jobs.counts()
    assert (counts.pending, counts.blocked, counts.dead) == (1, 0, 0)


@pytest.mark.parametrize("facts", [{"key": "k"}, {"overlap": False}, {}])
async def test_a_fire_that_its_group_drops_is_skipped_whatever_else_its_jobs_have(storage, fire, facts):
    await storage.kinds.declare([Kind("report", start_by=timedelta(hours=1))], by="a test")
    first = await enqueue(storage, groups=encoded([Group("ada")]))

    assert await fire(groups=encoded([Group("ada", overflow="drop_newest")]), **facts) == []

    assert [job.id for job in await storage.jobs.find()] == [first]
    assert (await storage.crons.get("nightly")).skipped == 1
    await storage.jobs.cancel(first)
    [mine] = await fire(groups=encoded([Group("ada", overflow="drop_newest")]), **facts)
    # neither a key nor a place was left behind by the one before
    assert await state(storage, mine) is State.PENDING


async def test_of_very_many_missed_fires_those_that_their_group_drops_are_skipped(storage, fire):
    [made] = await fire(201, groups=encoded([Group("ada", overflow="drop_newest")]))

    assert [job.id for job in await storage.jobs.find()] == [made]
    assert (await storage.crons.get("nightly")).skipped == 200


async def test_a_fire_may_cancel_what_is_before_it_in_its_group(storage, fire):
    me = await worker(storage, kinds=("bill", "report"))
    await enqueue(storage, "bill", groups=encoded([Group("ada")]))
    [running] = await claim(storage, me)
    blocked = await enqueue(storage, "bill", groups=encoded([Group("ada")]))

    [mine] = await fire(groups=encoded([Group("ada", overflow="cancel_running")]))

    assert await state(storage, blocked) is State.DEAD
    assert (await storage.jobs.get(running.job_id)).cancel_requested_at is not None
    assert await state(storage, mine) is State.BLOCKED


async def test_a_fire_of_a_paused_group_waits_until_it_is_resumed(storage, fire):
    await storage.groups.pause("ada", until=None, reason=None)

    [mine] = await fire(groups=encoded([Group("ada")]))

    assert await state(storage, mine) is State.BLOCKED
    await storage.groups.resume("ada")
    assert await state(storage, mine) is State.PENDING


async def test_a_fire_takes_the_turn_of_its_tenant(storage, fire):
    me = await worker(storage, kinds=("work", "report"))
    await enqueue_many(storage, 50, tenant="many")

    [mine] = await fire(tenant="ada")

    assert (await storage.jobs.get(mine)).tenant == "ada"
    assert mine in [claimed.job_id for claimed in await claim(storage, me, limit=3)]


async def test_a_fire_with_a_key_joins_its_group(storage, fire):
    await enqueue(storage, groups=encoded([Group("ada")]))

    [mine] = await fire(groups=encoded([Group("ada")]), key="k")

    assert await state(storage, mine) is State.BLOCKED
