"""One look says which chores of the leader have something to do."""

from datetime import timedelta

import pytest

from forge_jobs.client.operations import Operations
from forge_jobs.model.chore import Chore
from forge_jobs.model.flow import NewFlow, NewNode
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.statistics import Minute
from tests.storage.factories import awaiting, cron, done, enqueue, job, leader, running, worker

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


LEASE = timedelta(seconds=15)
NONE = 0  # nobody leads in this epoch


async def due(storage, within, **options):
    """Return the chores that a look says, but for the counting of jobs, which only PostgreSQL has."""
    return (await storage.chores.look(within, epoch=NONE, duration=LEASE, **options)).due - {Chore.COUNTS}


async def test_where_there_is_nothing_to_do_no_chore_is_due(storage):
    await awaiting(storage, await worker(storage))
    await enqueue(storage)
    await enqueue(storage, delay=2 * MINUTE)
    await storage.queues.set("mail", {"paused": True})
    await storage.kinds.pause("send", until=None, reason=None)
    await storage.groups.pause("a", until=None, reason=None)

    assert await due(storage, MINUTE) == set()


async def test_a_scheduled_job_is_due_shortly_before_its_time_and_until_it_is_pending(storage, clock):
    await clock.freeze()
    await enqueue(storage, delay=MINUTE)

    assert await due(storage, SECOND) == set()
    assert await due(storage, MINUTE) == {Chore.PENDING}
    await clock.advance(minutes=2)
    assert await due(storage, SECOND) == {Chore.PENDING}
    await storage.schedule.make_pending()
    assert await due(storage, SECOND) == set()


async def test_a_wait_that_is_about_to_time_out_is_due(storage, clock):
    await clock.freeze()
    await awaiting(storage, await worker(storage), timeout=60.0)

    assert await due(storage, SECOND) == set()
    assert await due(storage, MINUTE) == {Chore.PENDING}
    await clock.advance(minutes=2)
    await storage.schedule.make_pending()
    assert await due(storage, SECOND) == set()


async def test_of_what_has_moments_only_that_is_due_which_comes_from_a_moment_on(storage, clock):
    now = await clock.freeze()
    await enqueue(storage, delay=MINUTE)
    await enqueue(storage, start_by=MINUTE)
    await clock.advance(minutes=2)

    both = {Chore.PENDING, Chore.TIME_LIMITS}
    assert await due(storage, SECOND, since=now) - {Chore.WAITS} == both
    assert await due(storage, SECOND, since=clock.now()) - {Chore.WAITS} == set()
    assert await due(storage, SECOND) == both


async def test_jobs_may_wait_for_the_ends_of_others_where_not_all_is_looked_at(storage, clock):
    assert Chore.WAITS in await due(storage, SECOND, since=clock.now())


async def test_a_time_limit_is_due_shortly_before_it_ends_and_until_the_job_has_ended(storage, clock):
    await clock.freeze()
    epoch = await leader(storage)
    await enqueue(storage, start_by=2 * MINUTE)
    await enqueue(storage, deadline=MINUTE)

    assert await due(storage, SECOND) == set()
    assert await due(storage, MINUTE) == {Chore.TIME_LIMITS}
    await clock.advance(minutes=3)
    assert await due(storage, SECOND) == {Chore.TIME_LIMITS}
    await storage.time_limits.expire(epoch=epoch)
    assert await due(storage, SECOND) == set()


async def _pause(storage, what, until):
    if what == "queues":
        await storage.queues.set("mail", {"paused": True, "paused_until": until})
    else:
        await getattr(storage, what).pause("mail", until=until, reason=None)


@pytest.mark.parametrize("what", ["queues", "kinds", "groups"])
async def test_the_end_of_a_pause_is_due_shortly_before_it_comes(storage, clock, what):
    now = await clock.freeze()
    await _pause(storage, what, now + MINUTE)

    assert await due(storage, SECOND) == set()
    await clock.advance(seconds=59)
    assert await due(storage, SECOND) == {Chore.PAUSES}
    await clock.advance(seconds=59)
    assert await due(storage, SECOND) == {Chore.PAUSES}
    await getattr(storage, what).end_pauses()
    assert await due(storage, SECOND) == set()


async def test_the_end_of_the_pause_of_a_queue_that_is_being_deleted_is_not_due(storage, clock):
    await _pause(storage, "queues", clock.now() + MINUTE)
    await storage.removals.close("mail")
    await clock.advance(minutes=2)

    assert await due(storage, SECOND) == set()


async def test_an_operation_is_due_until_it_has_ended(storage):
    for _ in range(3):
        await enqueue(storage)
    operation = await Operations(storage).start("cancelled", queue="default", by="ada")

    assert await due(storage, SECOND) == {Chore.OPERATIONS}
    while (await storage.operations.step(operation.id)).state == "working":
        pass
    assert await due(storage, SECOND) == set()


async def test_waits_are_due_while_a_job_waits_for_the_end_of_another(storage):
    me = await worker(storage)
    other = await running(storage, me)
    await awaiting(storage, me, for_job=other.job_id)

    assert await due(storage, SECOND) == {Chore.WAITS, Chore.CLAIMS}
    await storage.claims.finish([done(other)])
    await storage.signals.end_waits(epoch=await leader(storage))
    assert Chore.WAITS not in await due(storage, SECOND)


async def _claim(storage):
    await running(storage, await worker(storage))


async def _slots(storage):
    await storage.queues.set("default", {"concurrency": 1})


async def _statistics(storage):
    await storage.statistics.hand_in(Minute(1, 1, MINUTE, {("default", "work"): {"done": 1}}))


async def _fair(storage):
    await enqueue(storage, tenant="ada")


async def _grouped(storage):
    await enqueue(storage, groups=encoded([Group("a")]))


async def _flow(storage):
    await storage.flows.start(NewFlow("f", [NewNode("a", job())]))


async def _limited(storage):
    await storage.limits.set("smtp", capacity=1, refill=1)


async def _settled(storage):
    await _limited(storage)
    permit = await storage.permits.reserve_within("smtp", "ann", 1, SECOND)
    await storage.permits.settle(permit, -1)
    await storage.limits.delete("smtp")


async def _cron(storage):
    await storage.crons.set(cron())


async def _ageing(storage):
    await storage.queues.set("default", {"age_after": MINUTE})


@pytest.mark.parametrize(
    ("use", "chore"),
    [
        (_claim, Chore.CLAIMS),
        (_slots, Chore.SLOTS),
        (_statistics, Chore.STATISTICS),
        (_fair, Chore.TENANTS),
        (_grouped, Chore.GROUPS),
        (_flow, Chore.FLOWS),
        (_limited, Chore.LIMITS),
        (_settled, Chore.LIMITS),
        (_cron, Chore.CRONS),
        (_ageing, Chore.AGEING),
    ],
)
async def test_what_somebody_uses_is_looked_after(storage, use, chore):
    await use(storage)

    assert await due(storage, SECOND) == {chore}


async def test_a_worker_that_is_alone_need_not_look_after_others(storage):
    me, other = await worker(storage), await worker(storage)

    assert await due(storage, SECOND) == {Chore.REAPING}
    await storage.workers.deregister(other)
    assert await due(storage, SECOND) == set()
    await storage.workers.deregister(me)
    assert await due(storage, SECOND) == set()


async def _lead(storage):
    """Return who leads from now on, and in which epoch."""
    me = await worker(storage)
    return me, await storage.leadership.lead(me, LEASE)


async def _lasts(storage, clock):
    leader = await storage.leadership.get()
    return None if leader is None else leader.until - clock.now()


async def test_a_look_renews_the_lead_once_a_quarter_of_it_is_over(storage, clock):
    await clock.freeze()
    me, epoch = await _lead(storage)

    await clock.advance(seconds=3)
    assert not (await storage.chores.look(SECOND, epoch=epoch, duration=LEASE)).renewed
    assert await _lasts(storage, clock) == LEASE - timedelta(seconds=3)
    await clock.advance(seconds=1)
    assert (await storage.chores.look(SECOND, epoch=epoch, duration=LEASE)).renewed
    assert await _lasts(storage, clock) == LEASE
    assert await storage.leadership.lead(me, LEASE) == epoch


async def test_a_look_renews_no_lead_that_has_run_out(storage, clock):
    await clock.freeze()
    me, epoch = await _lead(storage)
    await clock.advance(seconds=16)

    assert not (await storage.chores.look(SECOND, epoch=epoch, duration=LEASE)).renewed
    assert await storage.leadership.get() is None
    assert await storage.leadership.lead(me, LEASE) > epoch


async def test_a_look_renews_the_lead_of_nobody_else(storage, clock):
    await clock.freeze()
    me, epoch = await _lead(storage)
    await storage.leadership.resign(me)
    assert not (await storage.chores.look(SECOND, epoch=epoch, duration=LEASE)).renewed
    assert await storage.leadership.get() is None

    _, later = await _lead(storage)
    assert later > epoch
    await clock.advance(seconds=10)
    assert not (await storage.chores.look(SECOND, epoch=epoch, duration=LEASE)).renewed
    assert await _lasts(storage, clock) == LEASE - timedelta(seconds=10)


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_look_renews_no_lead_that_was_given_before_the_clock_was_set(storage, clock, hours):
    """Whoever leads asks for the lead itself then, which knows by the epoch whether it went on."""
    await clock.freeze()
    _, epoch = await _lead(storage)
    await clock.advance(hours=hours)

    assert not (await storage.chores.look(SECOND, epoch=epoch, duration=LEASE)).renewed
