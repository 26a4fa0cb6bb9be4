"""Rows that contradict each other are found while everybody works, and mended so that nothing is lost."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.model.finding import Fault
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import Hold, State
from forge_jobs.model.step import NewStep
from tests.storage.factories import (
    NOBODY,
    claim,
    claim_ids,
    dead,
    done,
    ended,
    enqueue,
    enqueue_many,
    failed,
    job,
    queue,
    running,
    state,
    worker,
)

HOUR = timedelta(hours=1)


async def audit(storage, **options):
    """Return all findings."""
    found = []
    async for look in storage.audit.jobs(limit=options.pop("limit", 3), **options):
        found += look.findings
    found += await storage.audit.slots(repair=options.get("repair", False))
    found += await storage.audit.groups(repair=options.get("repair", False))
    return found + await storage.audit.counts(repair=options.get("repair", False))


async def mended(storage, *faults, **options):
    """These faults and no others are found, are mended, and are not found again."""
    found = await audit(storage)
    assert sorted((one.fault, one.mended) for one in found) == sorted((fault, None) for fault in faults), (
        found
    )
    repaired = await audit(storage, repair=True, **options)
    assert sorted(one.fault for one in repaired if one.mended) == sorted(faults), repaired
    assert all(one.mended for one in repaired), repaired
    assert await audit(storage) == []
    return repaired


async def test_nothing_is_found_where_nothing_is_wrong(storage):
    me = await worker(storage)
    await storage.queues.set("mail", {"concurrency": 3})
    await storage.slots.take((await queue(storage, "mail")).id, me, 2)
    await ended(storage, me, key="a")
    await ended(storage, me, State.DEAD)
    await running(storage, me, key="c")
    await storage.claims.postpone([failed(await running(storage, me), delay=HOUR)])
    await enqueue_many(storage, 10, queue="mail")
    await enqueue(storage, delay=HOUR, key="b")

    assert await audit(storage) == []
    assert await audit(storage, repair=True) == []


async def test_every_job_is_looked_at_once(storage):
    await enqueue_many(storage, 10)

    assert [look.jobs async for look in storage.audit.jobs(limit=4)] == [4, 4, 2]


async def test_a_job_in_no_state_is_pending_with_the_attempts_of_its_history(storage, database):
    me = await worker(storage)
    claimed = await running(storage, me, key="k")
    await storage.claims.postpone([failed(claimed, delay=timedelta(0))])
    await database.rows("DELETE FROM ready WHERE true RETURNING job_id")
    await database.rows("DELETE FROM job_key WHERE true RETURNING job_id")

    await mended(storage, Fault.KEY, Fault.PLACE, Fault.COUNT)

    [again] = await claim(storage, me)
    assert (again.job_id, again.attempt) == (claimed.job_id, 2)


async def test_a_job_in_no_state_is_deleted_when_that_is_asked_for(storage, database):
    me = await worker(storage)
    gone, kept = await ended(storage, me), await ended(storage, me)
    await database.rows(f"DELETE FROM finished WHERE job_id = {gone} RETURNING job_id")

    await mended(storage, Fault.PLACE, Fault.COUNT, forget=True)

    assert [one.id for one in await storage.jobs.find()] == [kept]


@pytest.mark.parametrize(
    ("places", "stays"),
    [
        (("ready", "scheduled", "claimed", "finished"), State.DEAD),
        (("ready", "scheduled", "claimed"), State.IN_PROGRESS),
        (("ready", "scheduled"), State.SCHEDULED),
        (("ready", "abandoned"), State.PENDING),
        (("scheduled", "abandoned"), State.SCHEDULED),
        (("ready", "ready"), State.PENDING),
    ],
)
async def test_a_job_in_several_states_stays_in_the_one_that_proves_most(storage, database, places, stays):
    me = await worker(storage)
    job_id = await enqueue(storage)
    await enqueue_many(storage, 4)
    await database.rows(f"DELETE FROM ready WHERE job_id = {job_id} RETURNING job_id")
    for number, place in enumerate(places):
        await database.rows(
            {
                "ready": "INSERT INTO ready (job_id, pos, queue_id, attempt, priority) "
                f"VALUES ({job_id}, {number}, 1, 0, 0) RETURNING job_id",
                "scheduled": "INSERT INTO scheduled (job_id, run_at, queue_id, attempt, priority, reason) "
                f"SELECT {job_id}, created_at, 1, 0, 0, 'delayed' FROM job WHERE id = {job_id} RETURNING job_id",
                "claimed": "INSERT INTO claimed (job_id, worker_id, claimed_at, attempt, queue_id) "
                f"SELECT {job_id}, {me}, created_at, 1, 1 FROM job WHERE id = {job_id} RETURNING job_id",
                "abandoned": "INSERT INTO claimed (job_id, worker_id, claimed_at, attempt, queue_id) "
                f"SELECT {job_id}, {NOBODY}, created_at, 1, 1 FROM job WHERE id = {job_id} RETURNING job_id",
                "finished": "INSERT INTO finished (job_id, finished_at, queue_id, attempt, state) "
                f"SELECT {job_id}, created_at, 1, 1, 'dead' FROM job WHERE id = {job_id} RETURNING job_id",
            }[place]
        )

    await mended(storage, Fault.PLACE, Fault.COUNT)

    assert await state(storage, job_id) is stays


async def test_rows_about_a_job_that_is_not_there_are_gone(storage, database):
    me = await worker(storage)
    kept = await running(storage, me)
    claimed = await running(storage, me, key="k")
    await storage.claims.postpone([failed(claimed, delay=HOUR)])
    await database.rows(f"DELETE FROM job WHERE id = {claimed.job_id} RETURNING id")

    # the failure and the state; the key
    await mended(storage, Fault.KEY, Fault.ORPHAN, Fault.ORPHAN)

    assert [one.id for one in await storage.jobs.find()] == [kept.job_id]
    assert not (await storage.jobs.enqueue(job(key="k"))).duplicate


async def test_keys_are_held_by_living_jobs_only(storage, database):
    me = await worker(storage)
    over, living = await ended(storage, me), await enqueue(storage, key="mine")
    await database.rows(
        f"INSERT INTO job_key (kind, key, job_id) VALUES ('work', 'free', {over}) RETURNING job_id"
    )
    await database.rows("DELETE FROM job_key WHERE key = 'mine' RETURNING job_id")

    await mended(storage, Fault.KEY, Fault.KEY)

    assert (await storage.jobs.enqueue(job(key="mine"))).id == living
    assert not (await storage.jobs.enqueue(job(key="free"))).duplicate


async def test_a_job_is_found_by_its_tags_again_and_by_no_others(storage, database):
    tagged, plain = await enqueue(storage, tags=("a", "b")), await enqueue(storage)
    await database.rows("DELETE FROM job_tag WHERE tag = 'b' RETURNING job_id")
    for strange in (plain, 999):
        await database.rows(f"INSERT INTO job_tag (tag, job_id) VALUES ('c', {strange}) RETURNING job_id")

    said = {(one.fault, one.job_id, one.found) for one in await audit(storage)}

    assert said == {
        (Fault.TAG, tagged, f"Job {tagged} is not found by its tag 'b'."),
        (
            Fault.TAG,
            plain,
            f"Job {plain} is found by tag 'c', though it is not there or does not have that tag.",
        ),
        (Fault.TAG, 999, "Job 999 is found by tag 'c', though it is not there or does not have that tag."),
    }
    await mended(storage, Fault.TAG, Fault.TAG, Fault.TAG)


async def test_a_hold_of_another_kind_than_its_job_is_gone(storage, database):
    wanted = job(hold=Hold(b"user 7", HOUR))
    first = await storage.jobs.enqueue(wanted)
    await database.rows("UPDATE unique_hold SET kind = 'other' WHERE true RETURNING job_id")

    [found] = await audit(storage, repair=True)

    assert found.found == f"Job {first.id} has a hold of kind other, which is not its kind."
    assert (found.fault, found.mended) == (Fault.KEY, "The hold is gone.")
    assert (await storage.jobs.enqueue(wanted)).is_new
    assert await audit(storage) == []


async def test_a_key_that_two_living_jobs_want_is_said_and_left(storage, database):
    first = await enqueue(storage, key="k")
    await database.rows(f"UPDATE job_key SET key = 'other' WHERE job_id = {first} RETURNING job_id")
    second = await enqueue(storage, key="k")

    [wrong, *others] = await audit(storage, repair=True)

    assert (wrong.fault, wrong.mended) == (Fault.KEY, "The key is free.")
    assert [(one.fault, one.job_id, one.mended) for one in others] == [(Fault.KEY, first, None)]
    assert f"job {second} does" in others[0].found
    await storage.jobs.cancel(first)


async def test_a_queue_whose_row_was_lost_is_there_again_and_paused(storage, database):
    me = await worker(storage, queues=["mail"])
    number = (await queue(storage, "mail")).id
    job_id = await enqueue(storage, queue="mail")
    await database.rows(f"DELETE FROM queue WHERE id = {number} RETURNING id")
    if not storage.shared:
        await database.rows(f"DELETE FROM tally WHERE queue_id = {number} RETURNING queue_id")

    found = await audit(storage, repair=True)

    assert found[0].fault is Fault.QUEUE
    assert found[0].mended == f"It is made as recovered-{number}, paused."
    assert await audit(storage) == []
    again = await queue(storage, f"recovered-{number}")
    assert (again.id, again.paused) == (number, True)
    assert (await storage.jobs.get(job_id)).queue == again.name
    await storage.queues.set(again.name, {"paused": False})
    assert await claim_ids(storage, me, again.name) == [job_id]
    await storage.queues.ensure(["another"])
    assert (await queue(storage, "another")).id > number


async def test_slots_are_as_many_as_the_concurrency_and_held_by_registered_workers(storage, database):
    me = await worker(storage)
    await storage.queues.set("mail", {"concurrency": 4})
    mail = (await queue(storage, "mail")).id
    await storage.slots.take(mail, me, 1)
    await database.rows(f"UPDATE slot SET worker_id = {NOBODY} WHERE number = 2 RETURNING number")
    await database.rows("DELETE FROM slot WHERE number = 3 RETURNING number")
    await database.rows(f"INSERT INTO slot (queue_id, number) VALUES ({mail}, 7) RETURNING number")

    await mended(storage, Fault.SLOT, Fault.SLOT, Fault.SLOT)

    assert await storage.slots.take(mail, me, 10) == 3


async def test_slots_that_are_held_above_a_lowered_concurrency_are_right(storage):
    me = await worker(storage)
    await storage.queues.set("mail", {"concurrency": 4})
    mail = (await queue(storage, "mail")).id
    await storage.slots.take(mail, me, 4)
    await storage.queues.set("mail", {"concurrency": 2})

    assert await audit(storage, repair=True) == []
    await storage.slots.give_back(mail, me, 0)


async def test_counts_are_what_is_in_the_tables(storage, database):
    me = await worker(storage)
    await enqueue_many(storage, 5)
    await database.rows("DELETE FROM job WHERE true RETURNING id")
    await database.rows("DELETE FROM ready WHERE true RETURNING job_id")
    await ended(storage, me)

    [found] = await mended(storage, Fault.COUNT)

    assert found.found == "Queue default counts 5 pending where there are 0."


async def test_a_claim_of_no_worker_is_said_and_left_to_the_reaper(storage):
    me = await worker(storage)
    claimed = await running(storage, me)
    await storage.workers.deregister(me)

    for repair in (False, True):
        [found] = await audit(storage, repair=repair)
        assert (found.fault, found.job_id, found.mended) == (Fault.LOST, claimed.job_id, None)
        assert "reaper" in found.found


async def test_jobs_that_move_meanwhile_are_no_contradiction(storage, another):
    mover, me = await another(), await worker(storage)
    await enqueue_many(storage, 300)
    looks = 0

    async def move():
        for turn in range(12):
            claims = await claim(mover, me, limit=100)
            await mover.claims.finish(
                [done(one) for one in claims[:20]] + [dead(one) for one in claims[20:30]]
            )
            await mover.claims.postpone([failed(one, delay=timedelta(0)) for one in claims[30:60]])
            await mover.claims.hand_back(claims[60:])
            await enqueue_many(mover, 20, key=None)
            await enqueue(mover, key=f"k{turn % 3}")

    moving = asyncio.create_task(move())
    while not moving.done():
        looks += 1
        assert await audit(storage, repair=looks % 2 == 0, limit=50) == []
    await moving
    assert await audit(storage) == []


async def test_audits_that_repair_at_once_do_it_once(storage, database, another):
    other, me = await another(), await worker(storage)
    ids = await enqueue_many(storage, 20)
    await database.rows(f"DELETE FROM ready WHERE job_id < {ids[10]} RETURNING job_id")
    await database.rows("DELETE FROM tally WHERE true RETURNING queue_id")

    await asyncio.gather(audit(storage, repair=True), audit(other, repair=True))

    assert await audit(storage) == []
    assert sorted(await claim_ids(storage, me)) == ids


GROUP = {"groups": encoded([Group("a")])}


async def test_a_place_that_a_job_has_which_does_not_run_is_free_again(storage, database):
    first, second = await enqueue(storage, **GROUP), await enqueue(storage, **GROUP)
    await database.run(f"UPDATE occupant SET job_id = {second}")

    repaired = await mended(storage, Fault.GROUP, Fault.GROUP)

    assert sorted(one.job_id for one in repaired) == [first, second]


async def test_jobs_that_are_blocked_beside_a_free_place_get_it(storage, database):
    ids = [await enqueue(storage, **GROUP) for _ in range(3)]
    await database.run("UPDATE job_group SET said = 2")

    await mended(storage, Fault.GROUP)

    assert [await state(storage, one) for one in ids] == [State.PENDING, State.PENDING, State.BLOCKED]


async def test_a_blocked_job_whose_group_is_not_there_joins_it_again(storage, database):
    await enqueue(storage, **GROUP)
    blocked = await enqueue(storage, **GROUP)
    await database.run("UPDATE blocked SET group_id = 99")

    await mended(storage, Fault.GROUP)

    await storage.schedule.make_pending()
    assert await state(storage, blocked) is State.BLOCKED


async def test_a_job_of_a_group_that_is_in_no_state_joins_it_again(storage, database):
    await enqueue(storage, **GROUP)
    blocked = await enqueue(storage, **GROUP)
    await database.run("DELETE FROM blocked; UPDATE tally SET blocked = 0 WHERE blocked = 1")

    await mended(storage, Fault.PLACE)

    await storage.schedule.make_pending()
    assert await state(storage, blocked) is State.BLOCKED


async def test_a_blocked_job_that_is_pending_too_stays_blocked(storage, database):
    await enqueue(storage, **GROUP)
    blocked = await enqueue(storage, **GROUP)
    await database.run(
        "INSERT INTO ready (job_id, pos, queue_id, attempt, priority) SELECT job_id, pos, queue_id, 0, 0 FROM blocked; "
        "UPDATE tally SET pending = pending + 1 WHERE pending = 1"
    )

    await audit(storage, repair=True)

    assert await audit(storage) == []
    assert await state(storage, blocked) is State.BLOCKED


async def test_steps_of_no_job_are_gone(storage, database):
    claimed = await running(storage, await worker(storage))
    await storage.steps.add(claimed, NewStep(1, "charge"))
    await database.rows("UPDATE step SET job_id = 999 WHERE true RETURNING job_id")
    await database.rows("UPDATE job SET links = NULL WHERE true RETURNING id")

    [repaired] = await mended(storage, Fault.ORPHAN)

    assert repaired.found == "Table step has a row about job 999, which does not exist."
    assert await database.rows("SELECT job_id FROM step") == []
