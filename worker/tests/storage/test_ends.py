"""Who waits for jobs learns how they have ended."""

import pytest

from forge_jobs.model.job import EndedJob, State
from tests.storage.ear import Ear
from tests.storage.factories import dead, done, ended, enqueue, expired, running, worker


async def test_those_that_have_ended_are_told_and_those_that_have_not_are_left_out(storage):
    me = await worker(storage)
    first, second = await running(storage, me, codec="msgpack"), await running(storage, me)
    await storage.claims.finish([done(first, result=b"\x01"), dead(second, "it broke")])
    late = await expired(storage, me)
    runs, waits = await running(storage, me), await enqueue(storage)

    found = await storage.ends.look([first.job_id, second.job_id, late, runs.job_id, waits])

    assert found[first.job_id] == EndedJob(State.DONE, "msgpack", b"\x01", None)
    assert found[second.job_id] == EndedJob(State.DEAD, "json", None, "it broke")
    assert (found[late].state, found[late].error[:8]) == (State.EXPIRED, "expired:")
    assert len(found) == 3


async def test_a_job_that_is_not_there_is_said_to_be_none(storage):
    me = await worker(storage)
    gone = await ended(storage, me)
    await storage.jobs.delete(gone)
    assert await storage.ends.look([gone, 10**12]) == {gone: None, 10**12: None}
    assert await storage.ends.look([]) == {}


async def test_a_result_that_was_set_is_that_of_a_job_that_has_none(storage):
    claimed = await running(storage, await worker(storage))
    await storage.saved_states.set_result(claimed, b"1")
    assert await storage.ends.look([claimed.job_id]) == {}
    await storage.claims.finish([done(claimed)])
    assert (await storage.ends.look([claimed.job_id]))[claimed.job_id].result == b"1"


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_waits_and_ends_are_heard_by_all_who_listen(storage):
    assert storage.ends.are_told
    async with Ear(storage) as ear:
        await storage.ends.announce([3, 14])
        await storage.ends.tell([3])
        await ear.hears("wait", "3,14")
        await ear.hears("ended", "3")


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_any_number_of_waits_is_heard(storage):
    first = 10**17
    async with Ear(storage) as ear:
        await storage.ends.announce(range(first, first + 1000))
        await ear.hears("wait", ",".join(map(str, range(first + 700, first + 1000))))
        heard = [subject for kind, subject in ear.told if kind == "wait"]
    assert ",".join(heard) == ",".join(map(str, range(first, first + 1000)))


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_where_nobody_is_told_telling_does_nothing(storage, database):
    assert not storage.ends.are_told
    await storage.ends.announce([1])
    await storage.ends.tell([1])
    assert await database.rows("SELECT kind FROM notice WHERE kind IN ('wait', 'ended')") == []
