"""What groups still need when a transaction has ended that could not see to it, as only a server has them."""

from datetime import timedelta

import pytest

from forge_jobs.errors import StorageRefused
from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import KeyMode, State
from forge_jobs.model.match import Match, Move
from forge_jobs.model.run import Outcome
from forge_jobs.storage.postgres import schedule
from tests.storage.ear import Ear
from tests.storage.factories import claim, dead, done, enqueue, job, running, state, worker

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)

NEWEST = {"groups": encoded([Group("a", overflow="cancel_running")])}
ONE = {"groups": encoded([Group("a")])}
FAILS = "SELECT 1 / 0"


async def locked(connection, job_id):
    await connection.execute("SELECT FROM forge_jobs.claimed WHERE job_id = $1 FOR UPDATE", job_id)


async def test_a_running_job_that_a_transaction_holds_is_cancelled_for_a_newer_one_after_that(
    storage, database
):
    me = await worker(storage)
    first = await enqueue(storage, **NEWEST)
    [running] = await claim(storage, me)

    async with database.transaction() as connection:
        await locked(connection, first)
        second = await enqueue(storage, **NEWEST)
        await storage.schedule.make_pending()
        assert (await storage.jobs.get(first)).cancel_requested_at is None
    await storage.schedule.make_pending()

    assert (await storage.jobs.get(first)).cancel_requested_at is not None
    assert await state(storage, second) is State.BLOCKED
    await storage.claims.finish([dead(running, "cancelled by user")])
    assert await state(storage, second) is State.PENDING
    assert await database.rows("SELECT * FROM unsettled") == []


async def test_a_running_job_that_ends_while_a_transaction_holds_it_is_cancelled_by_nobody(storage, database):
    me = await worker(storage)
    first = await enqueue(storage, **NEWEST)
    [running] = await claim(storage, me)
    async with database.transaction() as connection:
        await locked(connection, first)
        second = await enqueue(storage, **NEWEST)
    await storage.claims.finish([done(running)])

    await storage.schedule.make_pending()

    assert (await state(storage, first), await state(storage, second)) == (State.DONE, State.PENDING)
    assert await database.rows("SELECT * FROM unsettled") == []


async def test_many_that_are_locked_hide_none_that_is_not(storage, database, monkeypatch):
    monkeypatch.setattr("forge_jobs.storage.postgres.groups.MOST_LOCKED", 1)
    me = await worker(storage)
    held = await enqueue(storage, groups=encoded([Group("b")]))
    free = await enqueue(storage, **ONE)
    await claim(storage, me)

    async with database.transaction() as connection:
        await locked(connection, held)
        await database.run(f"INSERT INTO unsettled (job_id) VALUES ({held}), ({free})")
        while (await storage.jobs.get(free)).cancel_requested_at is None:
            await storage.schedule.make_pending()

    await storage.schedule.make_pending()
    assert (await storage.jobs.get(held)).cancel_requested_at is not None


@pytest.mark.parametrize("move", [Move.CANCEL, Move.DELETE])
async def test_a_place_that_jobs_leave_together_is_given_away_although_a_group_was_locked(
    storage, database, move
):
    first = await enqueue(storage, **ONE)
    second = await enqueue(storage, groups=encoded([Group("a"), Group("b")]))

    async with database.transaction() as connection:
        await connection.execute("SELECT FROM forge_jobs.job_group WHERE name = 'b' FOR NO KEY UPDATE")
        async for _ in storage.jobs.move_all(move, Match(State.PENDING, first)):
            pass
        assert await state(storage, second) is State.BLOCKED
    await storage.schedule.make_pending()

    assert await state(storage, second) is State.PENDING


@pytest.mark.parametrize("how", ["replace", "remove", "sql"])
async def test_workers_are_told_of_the_commit_that_frees_a_place(storage, database, how):
    await enqueue(storage, key="k", **ONE)
    async with Ear(storage) as ear:
        async with database.transaction() as connection:
            if how == "remove":
                await storage.keys.remove("work", "k", connection=connection)
            elif how == "sql":
                await connection.execute("SELECT forge_jobs.remove('work', 'k')")
            else:
                replacing = job(key="k", key_mode=KeyMode.REPLACE)
                await storage.jobs.enqueue(replacing, connection=connection)
        await ear.hears("due")


async def test_a_place_that_is_freed_while_the_next_job_is_locked_is_given_away_at_a_later_look(
    storage, database
):
    me = await worker(storage)
    await enqueue(storage, **ONE)
    second = await enqueue(storage, **ONE)
    [running] = await claim(storage, me)

    async with database.transaction() as connection:
        await connection.execute("SELECT FROM forge_jobs.blocked WHERE job_id = $1 FOR UPDATE", second)
        await storage.claims.finish([done(running)])
        await storage.schedule.make_pending()
        assert await state(storage, second) is State.BLOCKED
    await storage.schedule.make_pending()

    assert await state(storage, second) is State.PENDING
    assert await database.rows("SELECT * FROM unsettled") == []


async def test_of_jobs_enqueued_together_those_with_groups_alone_join_any(storage, monkeypatch):
    joined = []

    async def join(database, job_ids):
        joined.extend(job_ids)
        return await schedule.join(database, job_ids)

    monkeypatch.setattr("forge_jobs.storage.postgres.bulk.join", join)
    monkeypatch.setattr("forge_jobs.storage.postgres.enqueue.SMALL_BATCH", 1)

    answers = await storage.jobs.enqueue_many([job(**facts) for facts in ({}, ONE, {}, ONE)])

    assert joined == [answers[1].id, answers[3].id]
    assert [await state(storage, one) for one in joined] == [State.PENDING, State.BLOCKED]


async def test_a_group_whose_line_is_empty_leaves_nothing_to_a_later_look(storage, database):
    me = await worker(storage)
    for _ in range(2):
        await enqueue(storage, **ONE)
        await storage.claims.finish([done(one) for one in await claim(storage, me)])

    assert await database.rows("SELECT * FROM unsettled") == []


async def test_what_is_due_is_pending_although_what_groups_need_fails(storage, database, monkeypatch, clock):
    due = await enqueue(storage, delay=timedelta(minutes=1))
    await clock.advance(minutes=2)
    await database.run("INSERT INTO unsettled (group_id) VALUES (1)")
    monkeypatch.setattr("forge_jobs.storage.postgres.groups.SETTLE", FAILS)

    assert await storage.schedule.make_pending() == (1, timedelta(0))

    assert await state(storage, due) is State.PENDING
    with pytest.raises(StorageRefused, match="division by zero"):  # and whoever looks hears of it
        await storage.schedule.make_pending()


async def test_the_fate_of_a_job_is_known_although_its_place_cannot_be_given_away(
    storage, database, monkeypatch
):
    claimed = await running(storage, await worker(storage), **ONE)
    async with database.transaction() as connection:
        at = await storage.completions.complete(done(claimed), connection=connection)
    monkeypatch.setattr("forge_jobs.storage.postgres.groups.SETTLE", FAILS)

    proof = Completion(claimed.job_id, claimed.worker_id, claimed.attempt, at, Outcome.DONE)
    assert await storage.completions.fate(proof) is Fate.COMMITTED
