"""A job that is completed in a transaction of its handler's shares the fate of that transaction."""

import contextlib
import sqlite3
from datetime import timedelta

import pytest

from forge_jobs.errors import InvalidInput
from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.job import KeyMode, Postponement, Reason, State
from forge_jobs.model.run import Outcome
from tests.storage.factories import (
    claim,
    dead,
    done,
    enqueue,
    failed,
    job,
    leader,
    lost_claims,
    running,
    state,
    worker,
)
from tests.storage.test_transactions import RolledBack

MINUTE = timedelta(minutes=1)


def rescheduled(claim, **facts):
    return Postponement(claim, Reason.RESCHEDULED, **{"delay": MINUTE, "counted": False, **facts})


async def complete(storage, claimed, connection, **facts):
    """Complete the job; return what proves it."""
    at = await storage.completions.complete(done(claimed, **facts), connection=connection)
    return None if at is None else proof(claimed, at)


async def reschedule(storage, claimed, connection, **facts):
    at = await storage.completions.reschedule(rescheduled(claimed, **facts), connection=connection)
    return None if at is None else proof(claimed, at, Outcome.RESCHEDULED)


def proof(claimed, at, outcome=Outcome.DONE):
    return Completion(claimed.job_id, claimed.worker_id, claimed.attempt, at, outcome)


async def test_a_job_is_done_when_the_transaction_commits_and_not_before(storage, database):
    claimed = await running(storage, await worker(storage), key="k")
    async with database.transaction() as connection:
        completion = await complete(storage, claimed, connection, result=b"1")
        [(seen,)] = await database.rows("SELECT count(*) FROM claimed")

    found = await storage.jobs.get(claimed.job_id)
    assert (seen, found.state, found.result, found.attempt) == (1, State.DONE, b"1", 1)
    assert found.worker_id == claimed.worker_id and found.started_at <= found.finished_at
    assert await storage.completions.fate(completion) is Fate.COMMITTED
    assert not (await storage.jobs.enqueue(job(key="k"))).duplicate


async def test_a_job_is_still_in_progress_when_the_transaction_is_rolled_back(storage, database):
    claimed = await running(storage, await worker(storage), key="k")
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            completion = await complete(storage, claimed, connection)
            raise RolledBack

    assert await state(storage, claimed.job_id) is State.IN_PROGRESS
    assert await storage.completions.fate(completion) is Fate.UNDONE
    assert (await storage.jobs.enqueue(job(key="k"))).duplicate
    assert await storage.claims.postpone([failed(claimed)]) == []


async def test_a_claim_that_was_lost_completes_nothing(storage, database):
    me = await worker(storage)
    claimed = await running(storage, me)
    await storage.claims.hand_back([claimed])
    async with database.transaction() as connection:
        assert await complete(storage, claimed, connection) is None
        assert await reschedule(storage, claimed, connection) is None

    assert await state(storage, claimed.job_id) is State.PENDING


async def test_a_claim_that_is_lost_after_a_rollback_is_told_from_a_commit(storage, database):
    claimed = await running(storage, await worker(storage))
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            completion = await complete(storage, claimed, connection)
            raise RolledBack
    await storage.claims.postpone([failed(claimed, "worker lost")])

    assert await storage.completions.fate(completion) is Fate.LOST


@pytest.mark.parametrize("is_last", [False, True])
async def test_a_claim_that_is_lost_after_a_rollback_is_told_from_a_job_that_was_rescheduled(
    storage, database, is_last
):
    claimed = await running(storage, await worker(storage))
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            completion = await reschedule(storage, claimed, connection)
            raise RolledBack
    assert await storage.completions.fate(completion) is Fate.UNDONE
    if is_last:
        await storage.claims.finish([dead(claimed, "worker lost")])
    else:
        await storage.claims.postpone([failed(claimed, "worker lost")])

    assert await storage.completions.fate(completion) is Fate.LOST


async def test_a_queue_that_keeps_nothing_forgets_a_completed_job_with_the_commit(storage, database):
    await storage.queues.set("default", {"done_retention": timedelta(0)})
    claimed = await running(storage, await worker(storage), key="k")
    async with database.transaction() as connection:
        completion = await complete(storage, claimed, connection)

    assert await storage.jobs.find() == []
    assert await storage.completions.fate(completion) is Fate.COMMITTED
    assert not (await storage.jobs.enqueue(job(key="k"))).duplicate


async def test_a_job_that_somebody_else_made_go_was_not_completed_by_the_transaction(storage, database):
    await storage.queues.set("default", {"done_retention": timedelta(0)})
    claimed = await running(storage, await worker(storage))
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            completion = await complete(storage, claimed, connection)
            assert await storage.completions.stands(completion, connection=connection)
            raise RolledBack
    await storage.claims.finish([done(claimed, keep=False)])

    async with database.transaction() as connection:
        assert not await storage.completions.stands(completion, connection=connection)


async def test_a_job_that_is_rescheduled_waits_without_an_attempt_counted(storage, database, clock):
    me = await worker(storage)
    claimed = await running(storage, me)
    async with database.transaction() as connection:
        completion = await reschedule(storage, claimed, connection)
        await clock.advance(seconds=1)

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.reason, found.attempt) == (State.SCHEDULED, Reason.RESCHEDULED, 0)
    assert await storage.completions.fate(completion) is Fate.COMMITTED
    await clock.advance(minutes=1)
    await storage.schedule.make_pending()
    assert [again.job_id for again in await claim(storage, me)] == [claimed.job_id]


async def test_a_job_that_is_rescheduled_to_now_and_claimed_again_is_told_from_a_rollback(
    storage, database, clock
):
    me = await worker(storage)
    claimed = await running(storage, me)
    async with database.transaction() as connection:
        completion = await reschedule(storage, claimed, connection, delay=timedelta(0))
    await clock.advance(seconds=1)
    [again] = await claim(storage, me)

    assert (again.job_id, again.attempt) == (claimed.job_id, claimed.attempt)
    assert await storage.completions.fate(completion) is Fate.COMMITTED


async def test_a_job_that_a_user_cancelled_is_dead_instead_of_rescheduled_and_done_when_completed(
    storage, database
):
    me = await worker(storage)
    first, second = await running(storage, me), await running(storage, me)
    for claimed in (first, second):
        await storage.jobs.cancel(claimed.job_id)
    async with database.transaction() as connection:
        rescheduling = await reschedule(storage, first, connection)
        completion = await complete(storage, second, connection)

    assert await storage.completions.fate(rescheduling) is Fate.CANCELLED
    assert await storage.completions.fate(completion) is Fate.COMMITTED
    assert await state(storage, first.job_id) is State.DEAD
    assert await state(storage, second.job_id) is State.DONE


async def test_a_job_that_would_be_rescheduled_for_after_its_deadline_is_overdue(storage, database):
    claimed = await running(storage, await worker(storage), deadline=timedelta(minutes=1))
    async with database.transaction() as connection:
        completion = await reschedule(storage, claimed, connection)
        assert await storage.completions.stands(completion, connection=connection)

    assert await storage.completions.fate(completion) is Fate.OVERDUE
    assert await state(storage, claimed.job_id) is State.DEAD


async def test_a_job_whose_key_went_to_another_is_dead_instead_of_rescheduled_and_done_when_completed(
    storage, database
):
    me = await worker(storage)
    first, second = await running(storage, me, key="a"), await running(storage, me, key="b")
    for claimed in (first, second):
        await storage.jobs.enqueue(job(key=claimed.key, key_mode=KeyMode.REPLACE))
    async with database.transaction() as connection:
        rescheduling = await reschedule(storage, first, connection)
        completion = await complete(storage, second, connection)

    assert await storage.completions.fate(rescheduling) is Fate.CANCELLED
    assert await storage.completions.fate(completion) is Fate.COMMITTED
    assert await state(storage, first.job_id) is State.DEAD
    assert (await storage.jobs.enqueue(job(key="b"))).duplicate


async def test_what_was_written_before_in_the_transaction_is_kept_when_the_claim_was_lost(storage, database):
    claimed = await running(storage, await worker(storage))
    await storage.claims.hand_back([claimed])
    async with database.transaction() as connection:
        other = await storage.jobs.enqueue(job(), connection=connection)
        assert await complete(storage, claimed, connection) is None

    assert await state(storage, other.id) is State.PENDING


async def test_a_savepoint_that_is_rolled_back_takes_the_completion_with_it(storage, database):
    claimed = await running(storage, await worker(storage))
    async with database.transaction() as connection:
        await _execute(connection, "SAVEPOINT mine")
        completion = await complete(storage, claimed, connection)
        await _execute(connection, "ROLLBACK TO SAVEPOINT mine")

    assert await storage.completions.fate(completion) is Fate.UNDONE
    assert await state(storage, claimed.job_id) is State.IN_PROGRESS


async def _execute(connection, statement):
    answer = connection.execute(statement)
    if not isinstance(connection, sqlite3.Connection):
        await answer


@pytest.mark.parametrize("wrong", ["a string", object()])
async def test_what_is_not_a_connection_completes_nothing(storage, wrong):
    claimed = await running(storage, await worker(storage))
    with pytest.raises(InvalidInput, match=r"^connection is a "):
        await complete(storage, claimed, wrong)
    assert await state(storage, claimed.job_id) is State.IN_PROGRESS


async def test_a_connection_of_another_database_completes_nothing(storage, database):
    claimed = await running(storage, await worker(storage))
    async with database.elsewhere() as connection:
        with pytest.raises(InvalidInput, match=r"^The given connection is of "):
            await complete(storage, claimed, connection)


async def test_a_connection_without_a_transaction_is_refused(storage, database):
    claimed = await running(storage, await worker(storage))
    async with database.transaction() as connection:
        await _execute(connection, "COMMIT")
        with pytest.raises(InvalidInput, match=r"^The given connection is in no transaction"):
            await complete(storage, claimed, connection)
        await _execute(connection, "BEGIN")

    assert await state(storage, claimed.job_id) is State.IN_PROGRESS


async def test_jobs_of_lost_workers_are_found_again_when_a_transaction_that_held_them_is_gone(
    storage, database
):
    await leader(storage)
    claimed = await running(storage, await worker(storage))
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            await complete(storage, claimed, connection)
            raise RolledBack

    found = await lost_claims(storage, stale=timedelta(0))
    assert claimed.job_id in [lost.job_id for lost in found]


async def test_many_jobs_completed_and_rolled_back_in_turns_leave_nothing_behind(storage, database):
    me = await worker(storage)
    ids = [await enqueue(storage) for _ in range(20)]
    for claimed in await claim(storage, me):
        with contextlib.suppress(RolledBack):
            async with database.transaction() as connection:
                await complete(storage, claimed, connection)
                if claimed.job_id % 2:
                    raise RolledBack

    states = {job_id: await state(storage, job_id) for job_id in ids}
    assert states == {job_id: State.IN_PROGRESS if job_id % 2 else State.DONE for job_id in ids}
