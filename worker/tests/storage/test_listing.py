"""People find jobs by what they know of them, and learn why one waits."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.errors import JobNotFound
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import State
from forge_jobs.model.moments import LONGEST
from tests.storage.factories import (
    awaiting,
    claim,
    ended,
    enqueue,
    enqueue_many,
    expired,
    failed,
    queue,
    running,
    worker,
)

HOUR = timedelta(hours=1)


async def one_in_each_state(storage, me):
    """Return {state: id} of one job in each state."""
    finished = await ended(storage, me, kind="send")
    buried = await ended(storage, me, State.DEAD)
    failing = await running(storage, me)
    await storage.claims.postpone([failed(failing, delay=HOUR)])
    group = encoded([Group(f"of {failing.job_id}")])
    return {
        State.DONE: finished,
        State.DEAD: buried,
        State.EXPIRED: await expired(storage, me),
        State.RETRYING: failing.job_id,
        State.IN_PROGRESS: (await running(storage, me, "send", groups=group)).job_id,
        State.BLOCKED: await enqueue(storage, groups=group),
        State.WAITING: (await awaiting(storage, me)).job_id,
        State.SCHEDULED: await enqueue(storage, delay=HOUR),
        State.PENDING: await enqueue(storage, "send"),
    }


async def find(storage, **filters):
    return [found.id for found in await storage.jobs.find(**filters)]


async def test_jobs_are_listed_newest_first_with_their_states(storage):
    jobs = await one_in_each_state(storage, await worker(storage))

    listed = await storage.jobs.find()

    assert {found.state: found.id for found in listed} == jobs
    assert [found.id for found in listed] == sorted(jobs.values(), reverse=True)


@pytest.mark.parametrize("state", list(State))
async def test_jobs_are_found_by_their_state(storage, state):
    jobs = await one_in_each_state(storage, await worker(storage))

    [found] = await storage.jobs.find(state=state)

    assert (found.id, found.state) == (jobs[state], state)


async def test_a_listed_job_says_the_same_as_the_job_itself(storage):
    jobs = await one_in_each_state(storage, await worker(storage))

    for listed in await storage.jobs.find():
        alone = await storage.jobs.get(listed.id)
        for name in (
            "state",
            "queue",
            "kind",
            "attempt",
            "run_at",
            "reason",
            "worker",
            "finished_at",
            "payload",
        ):
            assert getattr(listed, name) == getattr(alone, name), (name, listed.state)
        assert listed.failures == ()
    assert set(jobs) == set(State)


async def test_jobs_are_found_by_queue_and_kind(storage):
    await storage.queues.ensure(["mail"])
    a, b = await enqueue(storage, "send", queue="mail"), await enqueue(storage, "drop", queue="mail")
    c = await enqueue(storage, "send")

    assert await find(storage, queue="mail") == [b, a]
    assert await find(storage, kind="send") == [c, a]
    assert await find(storage, queue="mail", kind="send") == [a]
    assert await find(storage, queue="mail", kind="send", state=State.PENDING) == [a]
    assert await find(storage, queue="mail", kind="send", state=State.DEAD) == []


async def test_an_unknown_queue_or_kind_has_no_jobs(storage):
    await enqueue(storage)

    assert await find(storage, queue="nowhere") == []
    assert await find(storage, kind="nothing") == []


async def test_jobs_are_listed_in_pages(storage):
    ids = await enqueue_many(storage, 7)

    first = await find(storage, limit=3)
    second = await find(storage, limit=3, before=first[-1])
    third = await find(storage, limit=3, before=second[-1])

    assert first + second + third == ids[::-1]
    assert await find(storage, before=ids[0]) == []


async def test_pages_go_on_within_a_state(storage):
    me = await worker(storage)
    finished, scheduled = [], []
    for _ in range(4):
        finished.append(await ended(storage, me))
        scheduled.append(await enqueue(storage, delay=HOUR))

    for state, ids in ((State.DONE, finished), (State.SCHEDULED, scheduled)):
        first = await find(storage, state=state, limit=3)
        assert first == ids[:0:-1]
        assert await find(storage, state=state, limit=3, before=first[-1]) == ids[:1]


async def test_pending_jobs_are_listed_in_pages_as_they_became_ready(storage, clock):
    """Whatever their queues and priorities, and wherever they were before."""
    await storage.queues.ensure(["mail"])
    me = await worker(storage)
    await clock.freeze()
    delayed = await enqueue(storage, delay=HOUR)
    dead = await ended(storage, me, State.DEAD)
    expected = []
    for facts in ({}, {"queue": "mail"}, {"priority": -3}, {"queue": "mail", "priority": 5}, {}):
        expected.append(await enqueue(storage, **facts))
        await clock.advance(seconds=1)
    await storage.jobs.retry(dead)
    await clock.advance(seconds=1)
    await storage.jobs.run_now(delayed)
    await clock.advance(seconds=1)
    expected += [dead, delayed, *await enqueue_many(storage, 3)]

    for limit in (1, 2, 3, 100):
        listed = await find(storage, state=State.PENDING, limit=limit)
        while len(page := await find(storage, state=State.PENDING, limit=limit, before=listed[-1])):
            listed += page
        assert listed == expected[::-1]


async def test_no_pending_job_is_passed_over_when_those_of_the_page_before_are_gone(storage, clock):
    for way in (storage.jobs.cancel, storage.jobs.delete):
        dead = [await enqueue(storage, priority=3) for _ in range(3)]
        for job_id in dead:
            await storage.jobs.cancel(job_id)
        await clock.advance(seconds=1)
        expected = await enqueue_many(storage, 3)
        for job_id in dead:
            await clock.advance(seconds=1)
            await storage.jobs.retry(job_id)

        met, before = set(), None
        while page := await find(storage, state=State.PENDING, limit=2, before=before):
            met |= set(page)
            before = page[-1]
            for job_id in page:
                await way(job_id)

        assert met == {*expected, *dead}


async def test_a_listed_pending_job_says_how_often_it_was_tried(storage):
    claimed = await running(storage, await worker(storage))
    await storage.claims.postpone([failed(claimed, delay=timedelta(0))])

    [found] = await storage.jobs.find(state=State.PENDING)

    assert (found.id, found.attempt) == (claimed.job_id, 1)


async def test_a_waiting_job_knows_how_many_are_ahead_of_it(storage):
    await enqueue_many(storage, 3)
    wanted = await enqueue(storage)
    await enqueue(storage)
    await enqueue(storage, priority=-1)
    await enqueue(storage, priority=1)

    facts = await storage.jobs.waiting(wanted)

    assert facts.ahead == 4
    assert facts.ahead_limit > 4


async def test_a_scheduled_job_has_the_facts_too(storage, clock):
    now = await clock.freeze()
    wanted = await enqueue(storage, delay=HOUR)

    facts = await storage.jobs.waiting(wanted)

    assert facts.queue == await queue(storage)
    assert abs(facts.now - now) < timedelta(milliseconds=1)


async def test_a_pending_job_knows_since_when_it_is_ready(storage, clock):
    enqueued_at = await clock.freeze()
    at_once = await enqueue(storage)
    later = await enqueue(storage, delay=HOUR)
    await clock.advance(hours=1)
    await storage.schedule.make_pending()

    for job_id, ready_at in ((at_once, enqueued_at), (later, enqueued_at + HOUR)):
        facts = await storage.jobs.waiting(job_id)
        assert abs(facts.ready_at - ready_at) < timedelta(milliseconds=1)
    assert (await storage.jobs.waiting(await enqueue(storage, delay=HOUR))).ready_at is None


async def test_a_waiting_job_knows_when_a_job_of_its_queue_was_taken_last(storage, clock):
    await storage.queues.ensure(["mail"])
    me = await worker(storage, ["default", "mail"])
    await ended(storage, me, queue="mail")
    job_id = await enqueue(storage, priority=9)
    assert (await storage.jobs.waiting(job_id)).taken_at is None

    for take in (ended, running, ended):
        now = await clock.freeze()
        await take(storage, me)
        assert abs((await storage.jobs.waiting(job_id)).taken_at - now) < timedelta(milliseconds=1)
        await clock.advance(hours=1)


async def test_a_waiting_job_knows_the_slots_of_its_queue(storage):
    await storage.queues.set("narrow", {"concurrency": 3, "paused": True})
    me = await worker(storage, ["narrow"])
    await storage.slots.take((await queue(storage, "narrow")).id, me, 2)

    facts = await storage.jobs.waiting(await enqueue(storage, queue="narrow"))

    assert (facts.slots, facts.slots_held, facts.queue.paused) == (3, 2, True)


async def test_a_queue_without_a_limit_has_no_slots(storage):
    facts = await storage.jobs.waiting(await enqueue(storage))

    assert (facts.slots, facts.slots_held) == (0, 0)


async def test_an_unknown_job_has_no_facts(storage):
    with pytest.raises(JobNotFound):
        await storage.jobs.waiting(4711)


async def test_a_job_is_found_at_every_moment_while_it_moves(storage, another):
    me = await worker(storage)
    job_id = await enqueue(storage, max_attempts=0)
    other = await another()
    stopped = asyncio.Event()

    async def look():
        seen = set()
        while not stopped.is_set():
            seen.add((await other.jobs.get(job_id)).state)
            [listed] = await other.jobs.find()
            seen.add(listed.state)
        return seen

    async def move():
        for _ in range(20):
            [claimed] = await claim(storage, me)
            await storage.claims.postpone([failed(claimed, delay=HOUR)])
            await storage.jobs.run_now(job_id)
        stopped.set()

    seen, _ = await asyncio.gather(look(), move())

    assert seen <= {State.PENDING, State.IN_PROGRESS, State.RETRYING}


async def test_a_timeout_that_another_tool_wrote_and_no_duration_holds_is_the_longest(storage, database):
    job_id = await enqueue(storage, timeout=timedelta(seconds=5))
    await database.rows(f"UPDATE job SET timeout = 1e14 WHERE id = {job_id} RETURNING id")

    assert (await storage.jobs.get(job_id)).timeout == LONGEST
    assert [found.timeout for found in await storage.jobs.find()] == [LONGEST]
