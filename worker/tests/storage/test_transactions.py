"""A job that is enqueued in the caller's transaction shares its fate."""

import contextlib
from datetime import timedelta

import pytest

from forge_jobs.errors import InvalidInput, UnknownQueue
from forge_jobs.model.job import State
from tests.storage.factories import claim_ids, enqueue, job, worker


class RolledBack(Exception):
    """Raised by a test to roll its transaction back."""


async def test_a_job_is_not_there_before_the_commit_and_is_there_after_it(storage, database):
    me = await worker(storage)
    async with database.transaction() as connection:
        answer = await storage.jobs.enqueue(job(), connection=connection)
        assert await database.rows("SELECT id FROM job") == []

    assert (await storage.jobs.get(answer.id)).state is State.PENDING
    assert await claim_ids(storage, me) == [answer.id]


async def test_a_job_is_never_there_when_the_transaction_is_rolled_back(storage, database):
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            await storage.jobs.enqueue(job(key="k"), connection=connection)
            raise RolledBack

    assert await storage.jobs.find() == []
    assert not (await storage.jobs.enqueue(job(key="k"))).duplicate


async def test_a_bulk_shares_the_fate_too(storage, database):
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            await storage.jobs.enqueue_many([job()] * 300, connection=connection)
            raise RolledBack
    assert await storage.jobs.find() == []

    async with database.transaction() as connection:
        answers = await storage.jobs.enqueue_many(
            [job(f"kind-{n}") for n in range(300)], connection=connection
        )

    listed = await storage.jobs.find(limit=1000)
    assert [(found.id, found.kind) for found in reversed(listed)] == [
        (answer.id, f"kind-{n}") for n, answer in enumerate(answers)
    ]


async def test_an_unknown_queue_leaves_the_callers_transaction_usable(storage, database):
    async with database.transaction() as connection:
        with pytest.raises(UnknownQueue):
            await storage.jobs.enqueue(job(queue="nowhere"), connection=connection)
        answer = await storage.jobs.enqueue(job(), connection=connection)

    assert (await storage.jobs.get(answer.id)).state is State.PENDING


async def test_keys_count_inside_the_transaction(storage, database):
    first = await enqueue(storage, key="a")
    async with database.transaction() as connection:
        again = await storage.jobs.enqueue(job(key="a"), connection=connection)
        new = await storage.jobs.enqueue(job(key="b"), connection=connection)
        same = await storage.jobs.enqueue(job(key="b"), connection=connection)

    assert (again.id, again.duplicate) == (first, True)
    assert (new.duplicate, same.id, same.duplicate) == (False, new.id, True)


async def test_several_jobs_may_be_enqueued_in_one_transaction(storage, database):
    async with database.transaction() as connection:
        answers = [await storage.jobs.enqueue(job(), connection=connection) for _ in range(3)]

    assert await claim_ids(storage, await worker(storage)) == [answer.id for answer in answers]


async def test_what_is_not_a_connection_is_refused(storage):
    for wrong in ("a string", object()):
        with pytest.raises(InvalidInput, match="connection"):
            await storage.jobs.enqueue(job(), connection=wrong)

    assert await storage.jobs.find() == []


@pytest.mark.parametrize("count", [1, 300])
async def test_a_connection_of_another_database_is_refused_by_its_name(storage, database, count):
    async with database.elsewhere() as connection:
        with pytest.raises(
            InvalidInput, match=r"^The given connection is of .*, allowed is one of "
        ) as caught:
            if count == 1:
                await storage.jobs.enqueue(job(), connection=connection)
            else:
                await storage.jobs.enqueue_many([job()] * count, connection=connection)

    assert database.url.partition("?")[0].rpartition("/")[2] in str(caught.value)
    assert await storage.jobs.find() == []


async def test_a_transaction_that_has_gone_on_for_long_counts_from_the_call(storage, database, clock):
    async with database.transaction() as connection:
        before = await storage.jobs.enqueue(job(), connection=connection)
        await clock.advance(minutes=5)
        delayed = await storage.jobs.enqueue(job(delay=timedelta(minutes=1)), connection=connection)
        [many] = await storage.jobs.enqueue_many([job(delay=timedelta(minutes=1))], connection=connection)
        after = await storage.jobs.enqueue(job(), connection=connection)

    for answer in (delayed, many):
        found = await storage.jobs.get(answer.id)
        assert timedelta(seconds=55) < found.run_at - clock.now() <= timedelta(seconds=60)
    assert await claim_ids(storage, await worker(storage)) == [before.id, after.id]
