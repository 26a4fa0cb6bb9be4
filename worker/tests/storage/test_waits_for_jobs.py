"""A job that waits for the end of another one is woken by that end, and never waits for itself."""

import asyncio
import itertools
from datetime import timedelta

import asyncpg
import pytest

from forge_jobs.model.completion import Fate
from forge_jobs.model.flow import Edge, NewFlow, NewNode
from forge_jobs.model.job import KeyMode, State
from forge_jobs.model.signal import CIRCLE, NewSignal, NewWait, Recipient, Signalled
from tests.storage.ear import Ear
from tests.storage.factories import (
    WAIT,
    awaiting,
    claim,
    claim_ids,
    dead,
    done,
    enqueue,
    failed,
    job,
    leader,
    parked,
    running,
    state,
    worker,
)
from tests.storage.test_completions import complete

NOW = timedelta(0)


async def wait(storage, job_id):
    """Return the only step of a job."""
    [step] = await storage.steps.of_job(job_id)
    return step


async def linked(storage, me, **facts):
    """Return a claim of a job for whose end others wait, which the claim knows, and the claim that a waiting one had."""
    other = await enqueue(storage, priority=5, **facts)
    first = await awaiting(storage, me, for_job=other)
    [claimed] = await claim(storage, me, limit=1)
    assert claimed.job_id == other
    return claimed, first


async def test_the_end_of_a_job_wakes_those_that_wait_for_it(storage):
    me = await worker(storage)
    other, first = await linked(storage, me)
    second = await awaiting(storage, me, for_job=other.job_id)

    await storage.claims.finish([done(other, result=b'"x"')])

    assert sorted(await claim_ids(storage, me)) == [first.job_id, second.job_id]
    step = await wait(storage, first.job_id)
    assert (step.signal, step.result, step.codec, step.for_job) == ("done", b'"x"', "json", other.job_id)


async def test_those_that_began_to_wait_while_an_end_was_written_are_woken_by_a_look(storage):
    me = await worker(storage)
    other = await running(storage, me)
    first = await awaiting(storage, me, for_job=other.job_id)
    lasts = await running(storage, me)
    second = await awaiting(storage, me, for_job=lasts.job_id)
    await storage.claims.finish([done(other, result=b"1")])  # by a worker that knows of no wait

    await storage.signals.end_waits_for([other.job_id, lasts.job_id, 10**12])

    assert await claim_ids(storage, me) == [first.job_id]
    assert await state(storage, second.job_id) is State.WAITING


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_the_worker_that_has_a_job_hears_that_others_wait_for_its_end(storage, database):
    me = await worker(storage)
    held, locked, waits = [await running(storage, me) for _ in range(3)]
    free = await enqueue(storage)
    connection = await asyncpg.connect(database.url)
    try:
        async with Ear(storage) as ear, connection.transaction():
            await connection.execute("SELECT FROM forge_jobs.job WHERE id = $1 FOR UPDATE", locked.job_id)
            for number, job_id in enumerate((held.job_id, locked.job_id, free), start=1):
                await storage.signals.wait(waits, NewWait(number, f"wait {number}", for_job=job_id))
            await ear.hears("link", f"{held.job_id},{me},1")
            await ear.hears("link", f"{locked.job_id},{me},1")
            await ear.hears("link", f"{free},0,0")
            before = len(ear.told)
            await storage.signals.wait(waits, NewWait(4, "wait 4", for_job=held.job_id))
            await storage.ends.tell([1])
            await ear.hears("ended", 1)
            assert "link" not in [kind for kind, _ in ear.told[before:]]
    finally:
        await connection.close()


async def test_a_job_that_is_tried_again_wakes_nobody_before_its_end(storage):
    me = await worker(storage)
    other, first = await linked(storage, me)
    await storage.claims.postpone([failed(other)])
    assert await state(storage, first.job_id) is State.WAITING
    await storage.jobs.run_now(other.job_id)
    [again] = await claim(storage, me)
    await storage.claims.finish([dead(again)])
    assert await claim_ids(storage, me) == [first.job_id]
    assert (await wait(storage, first.job_id)).signal == "dead"


async def test_a_job_that_is_cancelled_wakes_those_that_wait_for_it(storage):
    me = await worker(storage)
    other = await enqueue(storage, delay=timedelta(days=1))
    first = await awaiting(storage, me, for_job=other)
    await storage.jobs.cancel(other)
    assert await claim_ids(storage, me) == [first.job_id]
    assert (await wait(storage, first.job_id)).signal == "dead"


async def test_a_job_that_is_ended_by_hand_wakes_those_that_wait_for_it(storage):
    me = await worker(storage)
    other = await enqueue(storage, delay=timedelta(days=1))
    first = await awaiting(storage, me, for_job=other)
    await storage.corrections.end(other, State.DONE, result=b"7", error=None)
    assert await claim_ids(storage, me) == [first.job_id]
    assert (await wait(storage, first.job_id)).result == b"7"


async def test_a_job_that_is_deleted_or_not_kept_wakes_those_that_wait_for_it(storage):
    me = await worker(storage)
    unkept, second = await linked(storage, me)
    other = await enqueue(storage, delay=timedelta(days=1))
    first = await awaiting(storage, me, for_job=other)
    await storage.claims.finish([done(unkept, keep=False)])
    await storage.jobs.delete(other)
    await storage.schedule.make_pending()
    assert sorted(await claim_ids(storage, me)) == [second.job_id, first.job_id]
    assert (await wait(storage, first.job_id)).signal == (await wait(storage, second.job_id)).signal == "gone"


async def test_nodes_that_end_without_having_run_wake_those_that_wait_for_them(storage):
    me = await worker(storage)
    nodes = [
        NewNode("a", job(priority=5)),
        NewNode("b", job(), after=(Edge(0),)),
        NewNode("c", job(), after=(Edge(1),)),
    ]
    _, ids = await storage.flows.start(NewFlow("f", nodes))
    [node] = await claim(storage, me, limit=1)
    waits = [await awaiting(storage, me, for_job=one) for one in ids[1:]]

    await storage.claims.finish([dead(node)])

    assert sorted(await claim_ids(storage, me)) == [one.job_id for one in waits]
    assert (await wait(storage, waits[0].job_id)).signal == "dead"


async def test_a_cancelled_flow_wakes_those_that_wait_for_its_nodes(storage):
    me = await worker(storage)
    nodes = [NewNode("a", job(priority=5)), NewNode("b", job(), after=(Edge(0),))]
    flow_id, ids = await storage.flows.start(NewFlow("f", nodes))
    await claim(storage, me, limit=1)
    first = await awaiting(storage, me, for_job=ids[1])

    await storage.flows.cancel(flow_id)

    assert await claim_ids(storage, me) == [first.job_id]


async def test_a_job_that_is_replaced_goes_on_to_wake_those_that_wait_for_it(storage):
    me = await worker(storage)
    other = await enqueue(storage, key="ada", priority=5)
    first = await awaiting(storage, me, for_job=other)
    await enqueue(storage, key="ada", key_mode=KeyMode.REPLACE, priority=5)
    [claimed] = await claim(storage, me)
    assert claimed.job_id == other
    await storage.claims.finish([done(claimed)])
    assert await claim_ids(storage, me) == [first.job_id]


async def test_a_job_with_groups_asks_for_a_place_when_the_end_of_another_one_wakes_it(storage):
    me = await worker(storage)
    other, first = await linked(storage, me)
    grouped = await awaiting(storage, me, for_job=other.job_id, groups='{"customer:42":{}}')
    await storage.claims.finish([done(other)])
    assert await state(storage, grouped.job_id) is State.SCHEDULED
    await storage.schedule.make_pending()
    assert sorted(await claim_ids(storage, me)) == [first.job_id, grouped.job_id]


async def test_an_end_in_a_callers_transaction_wakes_those_that_wait_once_it_commits(storage, database):
    me = await worker(storage)
    other, first = await linked(storage, me)
    async with database.transaction() as connection:
        completion = await complete(storage, other, connection)
        assert await state(storage, first.job_id) is State.WAITING
    assert await storage.completions.fate(completion) is Fate.COMMITTED
    assert await claim_ids(storage, me) == [first.job_id]


async def test_a_job_that_has_ended_is_not_waited_for(storage):
    me = await worker(storage)
    first = await running(storage, me)
    buried = await running(storage, me)
    await storage.claims.finish([dead(buried, 'it "broke"')])
    step = await storage.signals.wait(first, NewWait(1, "one", for_job=buried.job_id))
    assert (step.is_over, step.signal, step.result) == (True, "dead", b'"it \\"broke\\""')
    step = await storage.signals.wait(first, NewWait(2, "two", for_job=4711))
    assert (step.is_over, step.signal, step.result) == (True, "gone", None)


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_job_waits_though_the_look_for_an_end_of_just_that_moment_fails(storage, monkeypatch):
    me = await worker(storage)
    other = await enqueue(storage, delay=timedelta(days=1))
    fails = "SELECT pg_terminate_backend(pg_backend_pid()) FROM unnest($1::bigint[])"
    monkeypatch.setattr("forge_jobs.storage.postgres.claims.LOOK_AGAIN", fails)

    first = await awaiting(storage, me, for_job=other)

    assert await state(storage, first.job_id) is State.WAITING


async def test_the_leader_finds_the_ends_of_which_nobody_heard(storage, database):
    me = await worker(storage)
    first = await awaiting(storage, me, for_job=await enqueue(storage, delay=timedelta(days=1)))
    epoch = await leader(storage)
    assert await storage.signals.end_waits(epoch=epoch) == (0, 1)
    assert await storage.schedule.upcoming(NOW) == {}
    await database.run("UPDATE waiting SET for_job = 4711; UPDATE step SET for_job = 4711")
    jobs, _ = (await storage.schedule.upcoming(NOW))["default"]
    assert jobs == 1  # whoever ends once nothing is left to do does not leave it behind
    await storage.signals.end_waits(epoch=epoch - 1)
    assert await state(storage, first.job_id) is State.WAITING

    assert await storage.signals.end_waits(epoch=epoch) == (1, 0)

    await storage.schedule.make_pending()
    assert await claim_ids(storage, me) == [first.job_id]
    assert await storage.schedule.upcoming(NOW) == {}
    assert await storage.signals.end_waits(epoch=epoch + 1) == (0, 0)


async def circle(storage, me, count):
    """Let so many jobs wait for each other in a circle; return their claims, of which the last one does not wait yet."""
    claims = [await running(storage, me) for _ in range(count)]
    for waiting, other in itertools.pairwise(claims):
        step = await storage.signals.wait(waiting, NewWait(1, WAIT, for_job=other.job_id))
        assert not step.is_over
        await storage.claims.postpone([parked(waiting)])
    return claims


@pytest.mark.parametrize("count", [2, 3, 20])
async def test_the_last_job_of_a_circle_is_told_so_and_does_not_wait(storage, count):
    me = await worker(storage)
    claims = await circle(storage, me, count)

    step = await storage.signals.wait(claims[-1], NewWait(1, WAIT, for_job=claims[0].job_id))

    assert (step.is_over, step.signal) == (True, CIRCLE)
    assert [await state(storage, one.job_id) for one in claims[:-1]] == [State.WAITING] * (count - 1)
    await storage.claims.finish([dead(claims[-1])])
    await storage.signals.end_waits(epoch=await leader(storage))
    await storage.schedule.make_pending()
    assert await claim_ids(storage, me) == [claims[-2].job_id]


async def test_of_jobs_that_come_to_wait_for_each_other_at_once_one_is_told_so(storage):
    me = await worker(storage)
    claims = [await running(storage, me) for _ in range(3)]
    for one, other in zip(claims, [*claims[1:], claims[0]], strict=True):
        await storage.signals.wait(one, NewWait(1, WAIT, for_job=other.job_id))

    await asyncio.gather(*(storage.claims.postpone([parked(one)]) for one in claims))

    signals = [(await wait(storage, one.job_id)).signal for one in claims]
    assert 1 <= signals.count(CIRCLE) and set(signals) <= {CIRCLE, None}


async def test_a_wait_that_has_a_timeout_is_in_no_circle(storage):
    me = await worker(storage)
    one, other = [await running(storage, me) for _ in range(2)]
    await storage.signals.wait(one, NewWait(1, WAIT, for_job=other.job_id, timeout=60.0))
    await storage.claims.postpone([parked(one)])
    assert not (await storage.signals.wait(other, NewWait(1, WAIT, for_job=one.job_id))).is_over


async def test_jobs_that_wait_for_one_job_are_in_no_circle(storage):
    me = await worker(storage)
    top, left, right = [await running(storage, me) for _ in range(3)]
    for one in (left, right):
        await storage.signals.wait(one, NewWait(1, WAIT, for_job=top.job_id))
        await storage.claims.postpone([parked(one)])
    assert not (await storage.signals.wait(top, NewWait(1, WAIT, ("approved",)))).is_over


async def test_a_node_that_waits_for_one_after_it_is_told_so(storage):
    me = await worker(storage)
    nodes = [NewNode(str(number), job(), after=(Edge(number - 1),) if number else ()) for number in range(4)]
    _, ids = await storage.flows.start(NewFlow("order", nodes))
    [first] = await claim(storage, me)
    step = await storage.signals.wait(first, NewWait(1, WAIT, for_job=ids[3]))
    assert (step.is_over, step.signal) == (True, CIRCLE)


async def test_a_signal_reaches_a_job_that_waits_for_another_one(storage):
    me = await worker(storage)
    _, first = await linked(storage, me)
    [(_, answer)] = await storage.signals.send(Recipient(first.job_id), NewSignal("approved"))
    assert (answer, await state(storage, first.job_id)) == (Signalled.KEPT, State.WAITING)
