"""One look says which chores of the leader have something to do."""

from datetime import timedelta

import pytest

from forge_jobs.client.operations import Operations
from forge_jobs.model.chore import Chore
from forge_jobs.model.flow import NewFlow, NewNode
from forge_jobs.model.group import Group, encoded
from tests.storage.factories import awaiting, cron, done, enqueue, job, leader, running, worker

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


async def test_where_there_is_nothing_to_do_no_chore_is_due(storage):
    await awaiting(storage, await worker(storage))
    await enqueue(storage)
    await enqueue(storage, delay=SECOND)
    await storage.queues.set("mail", {"paused": True})
    await storage.kinds.pause("send", until=None, reason=None)
    await storage.groups.pause("a", until=None, reason=None)

    assert await storage.chores.due(MINUTE) == set()


async def test_a_time_limit_is_due_shortly_before_it_ends_and_until_the_job_has_ended(storage, clock):
    await clock.freeze()
    epoch = await leader(storage)
    await enqueue(storage, start_by=2 * MINUTE)
    await enqueue(storage, deadline=MINUTE)

    assert await storage.chores.due(SECOND) == set()
    assert await storage.chores.due(MINUTE) == {Chore.TIME_LIMITS}
    await clock.advance(minutes=3)
    assert await storage.chores.due(SECOND) == {Chore.TIME_LIMITS}
    await storage.time_limits.expire(epoch=epoch)
    assert await storage.chores.due(SECOND) == set()


async def _pause(storage, what, until):
    if what == "queues":
        await storage.queues.set("mail", {"paused": True, "paused_until": until})
    else:
        await getattr(storage, what).pause("mail", until=until, reason=None)


@pytest.mark.parametrize("what", ["queues", "kinds", "groups"])
async def test_the_end_of_a_pause_is_due_shortly_before_it_comes(storage, clock, what):
    now = await clock.freeze()
    await _pause(storage, what, now + MINUTE)

    assert await storage.chores.due(SECOND) == set()
    await clock.advance(seconds=59)
    assert await storage.chores.due(SECOND) == {Chore.PAUSES}
    await clock.advance(seconds=59)
    assert await storage.chores.due(SECOND) == {Chore.PAUSES}
    await getattr(storage, what).end_pauses()
    assert await storage.chores.due(SECOND) == set()


async def test_the_end_of_the_pause_of_a_queue_that_is_being_deleted_is_not_due(storage, clock):
    await _pause(storage, "queues", clock.now() + MINUTE)
    await storage.removals.close("mail")
    await clock.advance(minutes=2)

    assert await storage.chores.due(SECOND) == set()


async def test_an_operation_is_due_until_it_has_ended(storage):
    for _ in range(3):
        await enqueue(storage)
    operation = await Operations(storage).start("cancelled", queue="default", by="ada")

    assert await storage.chores.due(SECOND) == {Chore.OPERATIONS}
    while (await storage.operations.step(operation.id)).state == "working":
        pass
    assert await storage.chores.due(SECOND) == set()


async def test_waits_are_due_while_a_job_waits_for_the_end_of_another(storage):
    me = await worker(storage)
    other = await running(storage, me)
    await awaiting(storage, me, for_job=other.job_id)

    assert await storage.chores.due(SECOND) == {Chore.WAITS}
    await storage.claims.finish([done(other)])
    await storage.signals.end_waits(epoch=await leader(storage))
    assert Chore.WAITS not in await storage.chores.due(SECOND)


async def _fair(storage):
    await enqueue(storage, tenant="ada")


async def _grouped(storage):
    await enqueue(storage, groups=encoded([Group("a")]))


async def _flow(storage):
    await storage.flows.start(NewFlow("f", [NewNode("a", job())]))


async def _limited(storage):
    await storage.limits.set("smtp", capacity=1, refill=1)


async def _cron(storage):
    await storage.crons.set(cron())


async def _ageing(storage):
    await storage.queues.set("default", {"age_after": MINUTE})


@pytest.mark.parametrize(
    ("use", "chore"),
    [
        (_fair, Chore.TENANTS),
        (_grouped, Chore.GROUPS),
        (_flow, Chore.FLOWS),
        (_limited, Chore.LIMITS),
        (_cron, Chore.CRONS),
        (_ageing, Chore.AGEING),
    ],
)
async def test_what_somebody_uses_is_looked_after(storage, use, chore):
    await use(storage)

    assert await storage.chores.due(SECOND) == {chore}


async def test_a_worker_that_is_alone_need_not_look_after_others(storage):
    me, other = await worker(storage), await worker(storage)

    assert await storage.chores.due(SECOND) == {Chore.REAPING}
    await storage.workers.deregister(other)
    assert await storage.chores.due(SECOND) == set()
    await storage.workers.deregister(me)
    assert await storage.chores.due(SECOND) == set()
