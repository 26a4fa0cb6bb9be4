"""A kind of jobs may be paused, in all queues at once."""

import asyncio
from datetime import timedelta

from forge_jobs.model.job import Unhandled
from forge_jobs.model.paused_kind import PausedKind
from tests.storage.factories import claim, enqueue, enqueue_many, queue, worker

MINUTE = timedelta(minutes=1)


async def pause(storage, kind="send", until=None, reason=None):
    return await storage.kinds.pause(kind, until=until, reason=reason)


async def test_paused_kinds_are_listed_with_since_when_until_when_and_why(storage, clock):
    now = await clock.freeze()

    await pause(storage, "send", now + MINUTE, "the bank is closed")
    await pause(storage, "fax")

    assert await storage.kinds.paused() == [
        PausedKind("fax", None, None, now),
        PausedKind("send", now + MINUTE, "the bank is closed", now),
    ]


async def test_a_kind_is_paused_as_was_said_last(storage, clock):
    now = await clock.freeze()
    await pause(storage, "send", now + MINUTE, "the bank is closed")

    await pause(storage, "send")

    assert await storage.kinds.paused() == [PausedKind("send", None, None, now)]


async def test_a_kind_is_resumed_once(storage):
    await pause(storage)

    assert await storage.kinds.resume("send")
    assert not await storage.kinds.resume("send")
    assert await storage.kinds.paused() == []


async def test_the_pause_of_a_kind_ends_when_its_time_has_come(storage, clock):
    now = await clock.freeze()
    await pause(storage, "send", now + MINUTE)
    await pause(storage, "fax", now + 3 * MINUTE)
    await pause(storage, "call")
    assert await storage.kinds.end_pauses() == ((), MINUTE)

    await clock.advance(minutes=2)

    ended, next_in = await storage.kinds.end_pauses()
    assert (list(ended), next_in) == (["send"], MINUTE)
    assert [paused.kind for paused in await storage.kinds.paused()] == ["call", "fax"]


async def test_a_pause_of_a_kind_that_many_end_at_once_ends_once(storage, another, clock):
    await pause(storage, until=clock.now() + MINUTE)
    await clock.advance(minutes=2)
    storages = [storage, *[await another() for _ in range(4)]]

    said = await asyncio.gather(*(each.kinds.end_pauses() for each in storages))

    assert sorted(list(ended) for ended, _ in said) == [[], [], [], [], ["send"]]


async def test_workers_are_told_of_each_change(storage, clock):
    me = await worker(storage)

    async def revision():
        return (await storage.workers.beat(me)).revision

    revisions = [await revision()]
    await pause(storage)
    revisions.append(await revision())
    await storage.kinds.resume("send")
    revisions.append(await revision())
    await pause(storage, until=clock.now() + MINUTE)
    await clock.advance(minutes=2)
    before = await revision()
    await storage.kinds.end_pauses()
    revisions += [before, await revision()]
    await storage.kinds.end_pauses()

    assert revisions == sorted(set(revisions))
    assert await revision() == revisions[-1]


async def test_jobs_of_a_paused_kind_wait_in_vain_and_are_not_called_unhandled(storage):
    await worker(storage, kinds=("work", "send"))
    await enqueue_many(storage, 2, kind="send")
    await enqueue(storage, "sned")
    await enqueue(storage, "work")

    await pause(storage)

    assert await storage.jobs.unhandled() == [
        Unhandled("default", "send", pending=2, paused=True),
        Unhandled("default", "sned", pending=1),
    ]
    assert await storage.workers.handled() == {"default": {"work"}}


async def test_a_worker_takes_other_kinds_when_it_leaves_the_paused_one_alone(storage):
    me = await worker(storage)
    await enqueue(storage, "send")
    wanted = await enqueue(storage, "work")

    claims = await storage.claims.claim((await queue(storage)).id, me, limit=10, without_kinds=["send"])

    assert [claim.job_id for claim in claims] == [wanted]
    assert [held.kind for held in await claim(storage, me)] == ["send"]
