"""What people do to a job by hand is noted with it: who, what, and from which state into which."""

from datetime import timedelta

import pytest

from forge_jobs.errors import WrongState
from forge_jobs.model.correction import Correction
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import State
from forge_jobs.model.match import Move
from tests.storage.factories import claim, dead, ended, enqueue, failed, leader, move_all, running, worker


async def noted(storage, job_id):
    return [(one.what, one.by, one.was, one.becomes) for one in await storage.interventions.of_job(job_id)]


async def test_each_deed_is_noted_with_who_did_it_and_what_became_of_the_job(storage):
    me = await worker(storage)
    mine = await enqueue(storage, delay=timedelta(hours=1))

    await storage.jobs.run_now(mine, by="ada")
    await storage.corrections.change(mine, Correction(priority=3), by="bob")
    await storage.corrections.change(mine, Correction(delay=timedelta(hours=1)), by="bob")
    await storage.corrections.end(mine, State.DEAD, error="withdrawn", by="cyd")
    await storage.jobs.retry(mine, by="dan")
    [taken] = await claim(storage, me)
    await storage.jobs.cancel(mine, by="eve")
    await storage.claims.postpone([failed(taken)])
    await storage.corrections.end(mine, State.DONE, by="fay")
    await storage.jobs.delete(mine, by="gus")

    assert await noted(storage, mine) == [
        (Deed.HURRIED, "ada", State.SCHEDULED, State.PENDING),
        (Deed.CHANGED, "bob", State.PENDING, State.PENDING),
        (Deed.CHANGED, "bob", State.PENDING, State.SCHEDULED),
        (Deed.FAILED, "cyd", State.SCHEDULED, State.DEAD),
        (Deed.RETRIED, "dan", State.DEAD, State.PENDING),
        (Deed.CANCELLED, "eve", State.IN_PROGRESS, State.IN_PROGRESS),
        (Deed.COMPLETED, "fay", State.DEAD, State.DONE),
        (Deed.DELETED, "gus", State.DONE, None),
    ]


async def test_the_moment_and_the_role_are_those_of_the_database(storage, clock, database):
    mine = await enqueue(storage)
    await clock.advance(seconds=60)

    await storage.jobs.cancel(mine, by="ada")

    [one] = await storage.interventions.of_job(mine)
    assert one.at == (await storage.jobs.get(mine)).finished_at
    assert (one.role is None) == (database.kind == "sqlite")


async def test_what_is_refused_or_changes_nothing_is_not_noted(storage):
    me = await worker(storage)
    mine = await running(storage, me)
    with pytest.raises(WrongState):
        await storage.jobs.delete(mine.job_id, by="ada")
    with pytest.raises(WrongState):
        await storage.jobs.retry(mine.job_id, by="ada")
    await storage.claims.finish([dead(mine)])

    await storage.jobs.cancel(mine.job_id, by="ada")
    await storage.pins.remove(mine.job_id, by="ada")

    assert await noted(storage, mine.job_id) == []


async def test_what_nobody_did_by_hand_is_not_noted(storage):
    mine = await enqueue(storage)

    await storage.jobs.cancel(mine)

    assert await noted(storage, mine) == []


async def test_a_job_that_is_unpinned_says_by_whom(storage):
    mine = await running(storage, await worker(storage))
    await storage.pins.add(mine)

    assert await storage.pins.remove(mine.job_id, by="ada")

    assert await noted(storage, mine.job_id) == [(Deed.UNPINNED, "ada", State.IN_PROGRESS, State.IN_PROGRESS)]


async def test_an_operation_is_noted_with_each_job_that_it_changed(storage):
    me = await worker(storage)
    buried = [await ended(storage, me, State.DEAD) for _ in range(2)]
    pending = [await enqueue(storage) for _ in range(3)]
    runs = await running(storage, me, priority=-5)

    async for _ in move_all(storage, Move.CANCEL, State.PENDING, State.IN_PROGRESS, limit=2):
        pass

    by = "a test"
    cancelled = [(Deed.CANCELLED, by, State.PENDING, State.DEAD)]
    assert [await noted(storage, one) for one in pending] == [cancelled] * 3
    assert await noted(storage, runs.job_id) == [(Deed.CANCELLED, by, State.IN_PROGRESS, State.IN_PROGRESS)]
    assert await noted(storage, buried[0]) == []
    operations = {one.id for one in await storage.operations.all()}
    assert (await storage.interventions.of_job(pending[0]))[0].operation_id in operations


async def test_jobs_that_an_operation_retries_moves_or_deletes_say_so(storage):
    me = await worker(storage)
    await storage.queues.ensure(["bulk"])
    buried = await ended(storage, me, State.DEAD)

    async for _ in move_all(storage, Move.RETRY, State.DEAD):
        pass
    async for _ in move_all(storage, Move.REPRIORITISE, State.PENDING, priority=9):
        pass
    async for _ in move_all(storage, Move.TRANSFER, State.PENDING, into="bulk"):
        pass
    async for _ in move_all(storage, Move.DELETE, State.PENDING):
        pass

    assert [(what, was, becomes) for what, _, was, becomes in await noted(storage, buried)] == [
        (Deed.RETRIED, State.DEAD, State.PENDING),
        (Deed.REPRIORITISED, State.PENDING, State.PENDING),
        (Deed.MOVED, State.PENDING, State.PENDING),
        (Deed.DELETED, State.PENDING, None),
    ]


async def test_a_dead_job_that_an_operation_could_not_retry_is_not_noted(storage):
    me = await worker(storage)
    buried = await ended(storage, me, State.DEAD, key="k")
    await enqueue(storage, key="k")

    async for _ in move_all(storage, Move.RETRY, State.DEAD):
        pass

    assert await noted(storage, buried) == []


async def test_a_deleted_job_is_remembered_for_as_long_as_dead_jobs_are_kept(storage, clock):
    epoch = await leader(storage)
    gone, stays = await enqueue(storage), await enqueue(storage)
    await storage.jobs.delete(gone, by="ada")
    await storage.corrections.change(stays, Correction(priority=3), by="ada")

    await clock.advance(days=29)
    await storage.history.sweep(epoch=epoch)
    assert len(await noted(storage, gone)) == 1

    await clock.advance(days=2)
    await storage.history.sweep(epoch=epoch)
    assert await noted(storage, gone) == []
    assert len(await noted(storage, stays)) == 1
