"""A bulk operation is worked off in steps, which anybody may make, and each of which is there or not."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs.client.operations import Bulk, Operations
from forge_jobs.errors import InvalidInput, KeyBusy, StorageBusy, UnknownOperation, UnknownQueue
from forge_jobs.maintenance import operations as chore
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import State
from forge_jobs.model.match import Move
from forge_jobs.model.operation import OperationState
from forge_jobs.telemetry.events import OperationEnded, OperationHeldUp
from forge_jobs.telemetry.telemetry import Telemetry
from tests.storage.factories import (
    claim,
    claim_ids,
    dead,
    ended,
    enqueue,
    enqueue_many,
    failed,
    leader,
    one_in_each_state,
    running,
    state,
    worker,
)

HOUR = timedelta(hours=1)


async def start(storage, move, **filters):
    return await Operations(storage).start(move, **{"by": "ada", **filters})


async def ids_in(storage, wanted, **filters):
    return {found.id for found in await storage.jobs.find(state=wanted, limit=10_000, **filters)}


async def test_an_operation_says_what_was_asked_for_and_makes_no_step_by_itself(storage):
    await storage.queues.ensure(["mail"])
    jobs = [await enqueue(storage, "send", queue="mail", tags=("a",)) for _ in range(7)]
    await enqueue(storage)

    operation = await start(storage, "cancelled", queue="mail", kind="send", tags=["a"], state="pending")

    assert (operation.move, operation.states, operation.queue) == (Move.CANCEL, (State.PENDING,), "mail")
    assert (operation.kind, operation.tags, operation.asked_by) == ("send", ("a",), "ada")
    assert (operation.meant, operation.sample) == (7, tuple(jobs[:1:-1]))
    assert (operation.state, operation.changed, operation.ended_at) == (OperationState.WORKING, 0, None)
    assert await storage.operations.get(operation.id) == operation
    assert await storage.operations.all() == [operation]
    assert len(await ids_in(storage, State.PENDING)) == 8


async def test_what_one_began_another_ends(storage, another):
    ids = await enqueue_many(storage, 10)
    operation = await start(storage, "cancelled", state="pending")

    first = await storage.operations.step(operation.id, limit=4)
    assert (first.changed, first.state) == (4, OperationState.WORKING)
    elsewhere = await another()
    second = await elsewhere.operations.step(operation.id, limit=4)
    assert second.changed == 8

    done = await Operations(storage).finish(operation.id)

    assert (done.state, done.changed, done.error) == (OperationState.DONE, 10, None)
    assert done.ended_at is not None
    assert await ids_in(storage, State.DEAD) == set(ids)
    assert await storage.operations.step(operation.id) is None


async def test_jobs_that_are_enqueued_later_are_not_meant(storage):
    before = await enqueue_many(storage, 3)
    operation = await start(storage, "deleted", state="pending")
    await storage.operations.step(operation.id, limit=1)
    later = await enqueue_many(storage, 3)

    assert (await Operations(storage).finish(operation.id)).changed == len(before)
    assert await ids_in(storage, State.PENDING) == set(later)


async def test_jobs_that_die_later_are_not_retried(storage, clock):
    me = await worker(storage)
    late = await running(storage, me)
    early = await ended(storage, me, State.DEAD)
    await clock.freeze()
    operation = await start(storage, "retried")
    await clock.advance(seconds=1)

    await storage.claims.finish([dead(late)])

    assert (await Operations(storage).finish(operation.id)).changed == 1
    assert await state(storage, early) is State.PENDING
    assert await state(storage, late.job_id) is State.DEAD


@pytest.mark.parametrize("tags", [(), ("a",)])
async def test_every_state_that_a_move_allows_is_met(storage, tags):
    me = await worker(storage)
    group = encoded([Group("g")])
    held = await running(storage, me, tags=tags, groups=group)
    waiting = [
        await enqueue(storage, tags=tags, groups=group),
        await enqueue(storage, tags=tags, delay=HOUR),
        await enqueue(storage, tags=tags),
    ]

    bulk = Bulk.of(await Operations(storage).finish((await start(storage, "cancelled", tags=list(tags))).id))

    assert bulk == Bulk(changed=4, running=1)
    assert [await state(storage, one) for one in waiting] == [State.DEAD] * 3
    assert (await storage.jobs.get(held.job_id)).cancel_requested_at is not None


async def test_a_job_that_comes_back_behind_the_walk_is_cancelled(storage):
    me = await worker(storage)
    claimed = await running(storage, me)
    await enqueue_many(storage, 30, kind="play")
    operation = await start(storage, "cancelled", kind="work")
    await storage.operations.step(operation.id, limit=1)  # it is among the pending ones by then

    await storage.claims.postpone([failed(claimed)])

    assert (await Operations(storage).finish(operation.id)).changed == 1
    assert await state(storage, claimed.job_id) is State.DEAD


@pytest.mark.parametrize("tags", [(), ("a",)])
@pytest.mark.parametrize("move", [move for move in Move if State.PENDING in move.states])
async def test_jobs_that_rise_while_an_operation_walks_over_them_are_met_once_each(
    storage, clock, move, tags
):
    await clock.freeze()
    await storage.queues.ensure(["mail"])
    ageing = (await storage.queues.set("default", {"age_after": timedelta(minutes=10)})).id
    epoch = await leader(storage)
    jobs = await enqueue_many(storage, 4, priority=6, tags=tags)
    await clock.advance(hours=1)
    jobs += await enqueue_many(storage, 4, priority=1, tags=tags)
    given = {Move.TRANSFER: {"into": "mail"}, Move.REPRIORITISE: {"priority": 9}}.get(move, {})
    operation = await start(storage, move, state="pending", tags=list(tags), **given)

    while await storage.operations.step(operation.id, limit=3):
        await storage.ageing.rise(ageing, epoch=epoch)

    assert (await storage.operations.get(operation.id)).changed == len(jobs)
    left = await storage.jobs.find(state=State.PENDING)
    assert {(found.queue, found.priority) for found in left} <= {("mail", 6), ("mail", 1), ("default", 9)}


async def test_jobs_that_have_risen_get_the_priority_that_they_are_not_shown_with(storage, clock):
    await clock.freeze()
    ageing = (await storage.queues.set("default", {"age_after": timedelta(minutes=10)})).id
    jobs = [await enqueue(storage, priority=priority) for priority in (5, 4)]
    await clock.advance(minutes=10)
    await enqueue(storage, priority=0)
    await storage.ageing.rise(ageing, epoch=await leader(storage))  # to 4 and 3

    operation = await start(storage, "reprioritised", priority=4)
    assert (await Operations(storage).finish(operation.id)).changed == 2

    found = [await storage.jobs.get(job_id) for job_id in jobs]
    assert [(job.priority, job.risen) for job in found] == [(4, 0), (4, 1)]


@pytest.mark.parametrize("tags", [(), ("a",)])
@pytest.mark.parametrize("move", list(Move))
async def test_a_move_meets_the_jobs_in_each_of_its_states_and_no_others(storage, move, tags):
    await storage.queues.ensure(["mail"])
    jobs = await one_in_each_state(storage, await worker(storage), tags=tags)
    given = {Move.TRANSFER: {"into": "mail"}, Move.REPRIORITISE: {"priority": 3}}.get(move, {})
    before = {job_id: await storage.jobs.get(job_id) for job_id in jobs.values()}

    operation = await start(storage, move, state=list(move.states), tags=list(tags), **given)
    assert {*operation.sample} <= {jobs[one] for one in move.states}
    assert operation.meant == len(move.states)
    assert (await Operations(storage).finish(operation.id)).changed == len(move.states)

    for one in set(jobs) - set(move.states) - {State.BLOCKED}:  # whose group may have let it go on
        assert await storage.jobs.get(jobs[one]) == before[jobs[one]]


@pytest.mark.parametrize("tags", [(), ("a",)])
async def test_jobs_are_moved_to_another_queue(storage, tags):
    await storage.queues.ensure(["mail", "post"])
    me = await worker(storage, ["default", "mail", "post"])
    gone = await ended(storage, me, queue="mail", tags=tags)
    moved = [
        await enqueue(storage, queue="mail", tags=tags),
        await enqueue(storage, tags=tags),
        await enqueue(storage, queue="mail", delay=HOUR, tags=tags),
    ]
    there = await enqueue(storage, queue="post", tags=tags)

    done = await Operations(storage).finish((await start(storage, "moved", into="post", tags=list(tags))).id)

    assert done.changed == 3
    assert [(await storage.jobs.get(one)).queue for one in (*moved, there)] == ["post"] * 4
    assert (await storage.jobs.get(gone)).queue == "mail"
    assert await claim_ids(storage, me, "post") == [moved[0], moved[1], there]


@pytest.mark.parametrize("tags", [(), ("a",)])
async def test_jobs_get_another_priority(storage, tags):
    me = await worker(storage)
    first = await enqueue(storage, priority=-3, tags=tags)
    low = await enqueue_many(storage, 5, priority=9, tags=tags)
    later = await enqueue(storage, delay=HOUR, tags=tags)
    there = await enqueue(storage, priority=-1, tags=tags)
    operation = await start(storage, "reprioritised", priority=-1, tags=list(tags))

    while (await storage.operations.get(operation.id)).state is OperationState.WORKING:
        await storage.operations.step(operation.id, limit=2)

    assert (await storage.operations.get(operation.id)).changed == 7
    assert {found.priority for found in await storage.jobs.find()} == {-1}
    assert await claim_ids(storage, me) == [first, *low, there]
    assert (await storage.jobs.get(later)).priority == -1


async def test_a_cancelled_operation_makes_no_further_step(storage):
    await enqueue_many(storage, 5)
    operation = await start(storage, "deleted", state="pending")
    await storage.operations.step(operation.id, limit=2)

    assert await storage.operations.cancel(operation.id)

    assert await storage.operations.step(operation.id) is None
    after = await Operations(storage).finish(operation.id)
    assert (after.state, after.changed) == (OperationState.CANCELLED, 2)
    assert not await storage.operations.cancel(operation.id)
    assert len(await ids_in(storage, State.PENDING)) == 3
    assert await storage.operations.due() == ([], None)


async def test_what_is_not_there_is_told(storage):
    operations = Operations(storage)
    for call in (operations.get, operations.cancel, operations.finish):
        with pytest.raises(UnknownOperation, match=r"^There is no operation 7\.$"):
            await call(7)
    for filters in ({"queue": "nix"}, {"into": "nix"}):
        with pytest.raises(UnknownQueue):
            await start(storage, "moved", **{"into": "default", **filters})


@pytest.mark.parametrize(("move", "facts"), [("moved", {"into": "post"}), ("cancelled", {"queue": "post"})])
async def test_an_operation_whose_queue_is_gone_ends(storage, database, move, facts):
    await storage.queues.ensure(["post"])
    await enqueue(storage)
    operation = await start(storage, move, **facts)
    await database.rows("DELETE FROM queue WHERE name = 'post' RETURNING id")

    ended = await storage.operations.step(operation.id)

    assert (ended.state, ended.error) == (OperationState.CANCELLED, "There is no queue 'post' any more.")


async def test_dead_jobs_are_retried_at_a_rate(storage, clock):
    me = await worker(storage)
    for _ in range(5):
        await ended(storage, me, State.DEAD)
    await clock.freeze()
    operation = await start(storage, "retried", rate=2)

    retried = []
    for _ in range(4):
        await storage.operations.step(operation.id)
        assert await storage.operations.step(operation.id) is None  # not before its time
        retried.append((await storage.operations.get(operation.id)).changed)
        _, due_in = await storage.operations.due()
        await clock.advance(seconds=0 if due_in is None else due_in.total_seconds())

    assert retried == [2, 4, 5, 5]
    assert (await storage.operations.get(operation.id)).state is OperationState.DONE


async def test_a_rate_of_less_than_one_job_a_second_takes_its_time(storage, clock):
    me = await worker(storage)
    for _ in range(2):
        await ended(storage, me, State.DEAD)
    await clock.freeze()
    operation = await start(storage, "retried", rate=0.1)

    await storage.operations.step(operation.id)

    assert (await storage.operations.due())[1] == timedelta(seconds=10)


async def test_the_leader_works_off_what_nobody_waits_for(storage):
    await enqueue_many(storage, 2_500)
    other = await start(storage, "cancelled", kind="nothing")
    operation = await start(storage, "cancelled")
    told: list[Any] = []
    telemetry = Telemetry()
    telemetry.subscribe(told.append)

    while await chore.work_off(storage.operations, telemetry) is not None:
        pass

    assert (await storage.operations.get(operation.id)).changed == 2_500
    assert sorted(told, key=lambda event: event.operation_id) == [
        OperationEnded(other.id, "cancelled", 0),
        OperationEnded(operation.id, "cancelled", 2_500),
    ]


async def test_an_operation_that_is_held_up_is_told_once_until_it_goes_on(storage, clock, monkeypatch):
    await enqueue_many(storage, 3)
    operation = await start(storage, "cancelled")
    told: list[Any] = []
    telemetry = Telemetry()
    telemetry.subscribe(told.append)

    async def busy(_):
        raise StorageBusy("Somebody has it locked.")

    with monkeypatch.context() as patch:
        patch.setattr(storage.operations, "step", busy)
        for _ in range(3):
            await chore.work_off(storage.operations, telemetry)
            await clock.advance(seconds=2)
    assert told == [OperationHeldUp(operation.id, "Somebody has it locked.")]
    assert (await storage.operations.get(operation.id)).error == "Somebody has it locked."

    while await chore.work_off(storage.operations, telemetry) is not None:
        pass
    assert told[1:] == [OperationEnded(operation.id, "cancelled", 3)]
    assert (await storage.operations.get(operation.id)).error is None


async def test_an_operation_that_is_given_up_for_a_key_says_why(storage, monkeypatch):
    operation = await start(storage, "retried")

    async def busy(_):
        raise KeyBusy("send", "42", 5, undone="changed")

    with monkeypatch.context() as patch:
        patch.setattr(storage.operations, "step", busy)
        with pytest.raises(KeyBusy):
            await Operations(storage).finish(operation.id)

    given_up = await storage.operations.get(operation.id)
    assert given_up.state is OperationState.CANCELLED
    assert given_up.error is not None and "Key '42' of kind 'send'" in given_up.error


async def test_operations_that_ended_long_ago_are_forgotten(storage, clock):
    old = await start(storage, "cancelled")
    await Operations(storage).finish(old.id)
    waiting = await start(storage, "cancelled")
    await clock.advance(days=31)

    new = await start(storage, "cancelled")

    assert [one.id for one in await storage.operations.all()] == [new.id, waiting.id]
    assert [one.id for one in await storage.operations.all(limit=1)] == [new.id]


@pytest.mark.parametrize(
    ("move", "filters", "said"),
    [
        ("cancel", {}, "move is 'cancel', allowed is one of"),
        ("deleted", {}, "state is not given, allowed is one or several states of the jobs to be deleted."),
        ("retried", {"state": []}, "state is an empty list, allowed is one or several states."),
        ("retried", {"state": ["dead", "done"]}, "Jobs that are done cannot be retried, allowed is one of"),
        ("reprioritised", {}, "priority goes with the move 'reprioritised', and is needed there."),
        ("cancelled", {"priority": 1}, "priority goes with the move 'reprioritised', and is needed there."),
        ("moved", {}, "into goes with the move 'moved', and is needed there."),
        ("retried", {"into": "default"}, "into goes with the move 'moved', and is needed there."),
        (
            "moved",
            {"queue": "default", "into": "default"},
            "into is 'default', allowed is another queue than that of the jobs.",
        ),
        (
            "cancelled",
            {"rate": 5},
            "rate is 5 to have jobs cancelled, allowed is up to 10,000 a second, to retry",
        ),
        ("retried", {"rate": 0}, "rate is 0 to have jobs retried"),
        ("retried", {"by": ""}, "by is '', allowed are"),
    ],
)
async def test_what_is_asked_for_wrongly_is_told_and_nothing_is_there(storage, move, filters, said):
    with pytest.raises(InvalidInput) as raised:
        await start(storage, move, **filters)

    assert str(raised.value).startswith(said)
    assert await storage.operations.all() == []


@pytest.mark.parametrize("seed", range(3))
async def test_operations_at_once_and_steps_that_are_given_up_leave_each_job_one_fate(storage, another, seed):
    """Some who make steps are cut off in the middle of one."""
    chance = random.Random(seed)
    me = await worker(storage)
    ids = await enqueue_many(storage, 300, tags=("a",))
    workers = [storage, await another(), await another()]
    cancelling = await start(storage, "cancelled")
    deleting = await start(storage, "deleted", state=["pending", "dead"], tags=["a"])
    moving = await start(storage, "reprioritised", priority=3)
    operations = [cancelling, deleting, moving]

    async def make_steps(mine):
        for _ in range(200):
            operation = chance.choice(operations)
            step = asyncio.ensure_future(mine.operations.step(operation.id, limit=chance.randint(1, 40)))
            if chance.random() < 0.2:
                await asyncio.sleep(0)
                step.cancel()
            await asyncio.gather(step, return_exceptions=True)

    async def claim_some():
        for _ in range(20):
            await claim(storage, me, limit=2)
            await asyncio.sleep(0)

    await asyncio.gather(*map(make_steps, workers), claim_some())
    ended_operations = [await Operations(storage).finish(one.id) for one in operations]

    assert all(one.state is OperationState.DONE for one in ended_operations)
    left = {found.id: found for found in await storage.jobs.find(limit=1_000)}
    assert set(left) <= set(ids)
    assert all(found.state in (State.IN_PROGRESS, State.DEAD) for found in left.values())
    assert ended_operations[1].changed == len(ids) - len(left)
    assert ended_operations[0].changed <= len(ids)
