"""What a worker leaves that knows no flows, and what a crash leaves, is handed on by the audit."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import asyncpg
import pytest

from forge_jobs.errors import UnknownQueue
from forge_jobs.model.completion import Fate
from forge_jobs.model.correction import Correction
from forge_jobs.model.flow import Edge, FlowState, NewFlow, NewNode, NodePlan, OnDead, Role
from forge_jobs.model.job import NewJob, State
from forge_jobs.model.kind import Kind
from forge_jobs.model.signal import NewSignal, NewWait, Recipient, Signalled
from forge_jobs.storage.postgres import flow_start, flows
from forge_jobs.storage.postgres.outcomes import FINISH
from tests.storage.factories import WAIT, claim, dead, done, leader, parked, state, worker
from tests.storage.test_completions import reschedule

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)

CHAIN = NewFlow("f", [NewNode("a", NewJob("work")), NewNode("b", NewJob("work"), after=(Edge(0),))])


async def test_a_node_that_an_older_worker_has_ended_is_handed_on(storage, database):
    flow_id, ids = await storage.flows.start(CHAIN)
    [claimed] = await claim(storage, await worker(storage))
    proof = ([claimed.job_id], [claimed.worker_id], [claimed.attempt])
    older = storage.claims._database
    await older.fetch(FINISH, *proof, [False], [0.1], [b"1"], [None], [True], [False])
    assert await state(storage, ids[1]) is State.BLOCKED

    assert await storage.flows.audit(epoch=await leader(storage)) == 1

    assert await state(storage, ids[1]) is State.PENDING
    assert (await storage.flows.get(flow_id)).done == 1


async def test_a_node_that_waits_for_nothing_goes_on(storage, database):
    _, ids = await storage.flows.start(CHAIN)
    [claimed] = await claim(storage, await worker(storage))
    await storage.claims.finish([done(claimed)])
    await database.run("DELETE FROM ready")
    await database.run(
        "INSERT INTO blocked (job_id, pos, queue_id, attempt, priority) SELECT id, 1, queue_id, 0, 0 FROM job "
        f"WHERE id = {ids[1]}"
    )
    await database.run("INSERT INTO tally (queue_id, pending, blocked) SELECT queue_id, -1, 1 FROM blocked")

    assert await storage.flows.audit(epoch=await leader(storage)) == 1

    assert await state(storage, ids[1]) is State.PENDING


async def test_a_running_node_of_a_cancelled_flow_is_told_though_nobody_came_to_it(storage, database):
    me = await worker(storage)
    flow_id, _ = await storage.flows.start(CHAIN)
    [claimed] = await claim(storage, me)
    await database.run(f"SELECT cancel_flow({flow_id})")

    await storage.flows.audit(epoch=await leader(storage))

    [held] = await storage.claims.held(me)
    assert held.cancel_requested
    await storage.claims.finish([done(claimed)])
    assert (await storage.flows.get(flow_id)).state is FlowState.CANCELLED


async def test_a_cancelled_node_that_a_transaction_would_run_again_keeps_no_other_one_waiting(
    storage, database
):
    nodes = [NewNode("a", NewJob("work")), NewNode("b", NewJob("work"))]
    flow_id, _ = await storage.flows.start(NewFlow("f", nodes))
    first, second = await claim(storage, await worker(storage))
    await storage.jobs.cancel(first.job_id)
    async with database.transaction() as connection:
        completion = await reschedule(storage, first, connection)
        assert await storage.claims.finish([done(second)]) == []

    assert await storage.completions.fate(completion) is Fate.CANCELLED

    assert (await storage.flows.get(flow_id)).state is FlowState.DEAD


async def test_all_of_very_many_nodes_that_one_statement_deletes_have_ended(storage, database):
    before = [NewNode(f"n{number}", NewJob("work")) for number in range(2_500)]
    join = NewNode("join", NewJob("work"), after=tuple(Edge(index) for index in range(2_500)))
    flow_id, _ = await storage.flows.start(NewFlow("f", [*before, join]))

    await database.run(
        "WITH gone AS (DELETE FROM ready RETURNING queue_id) "
        "INSERT INTO tally (queue_id, pending) SELECT queue_id, -count(*) FROM gone GROUP BY queue_id"
    )
    await database.run("DELETE FROM job WHERE id IN (SELECT job_id FROM flow_node WHERE missing = 0)")

    flow = await storage.flows.get(flow_id)
    assert (flow.state, flow.dead) == (FlowState.DEAD, 2_501)


async def test_an_audit_looks_at_all_running_flows_step_by_step(storage, monkeypatch):
    monkeypatch.setattr(flows, "STEP", 3)
    me, epoch = await worker(storage), await leader(storage)
    started = [(await storage.flows.start(CHAIN))[1] for _ in range(5)]
    claimed = await claim(storage, me, limit=5)
    older = storage.claims._database
    for one in claimed:
        proof = ([one.job_id], [one.worker_id], [one.attempt])
        await older.fetch(FINISH, *proof, [False], [0.1], [b"1"], [None], [True], [False])

    assert await storage.flows.audit(epoch=epoch) == 5
    assert {await state(storage, last) for _, last in started} == {State.PENDING}

    monkeypatch.setattr(flows, "STEPS", 1)
    for one in await claim(storage, me, limit=5):
        proof = ([one.job_id], [one.worker_id], [one.attempt])
        await older.fetch(FINISH, *proof, [False], [0.1], [b"1"], [None], [True], [False])
    assert [await storage.flows.audit(epoch=epoch) for _ in range(5)] == [1, 2, 1, 1, 0]


async def test_all_ended_flows_are_looked_at_in_turn_whatever_is_kept_of_the_first(
    storage, clock, monkeypatch
):
    monkeypatch.setattr(flows, "LOOKED_AT", 2)
    me, epoch = await worker(storage), await leader(storage)
    started = [(await storage.flows.start(CHAIN))[0] for _ in range(5)]
    while claimed := await claim(storage, me, limit=10):
        await storage.claims.finish([done(one) for one in claimed])
    await storage.jobs.delete((await storage.flows.nodes(started[3]))[0].job_id)
    await storage.jobs.delete((await storage.flows.nodes(started[3]))[1].job_id)

    assert [await storage.flows.forget(epoch=epoch) for _ in range(6)] == [0, 1, 0, 0, 0, 0]

    await clock.advance(seconds=8 * 86_400)
    await storage.history.sweep(epoch=epoch)
    assert sum([await storage.flows.forget(epoch=epoch) for _ in range(6)]) == 4
    assert await storage.flows.all() == []


async def test_nodes_end_by_their_deadline_though_the_end_of_another_one_was_in_the_way(
    storage, database, clock
):
    flow_id, ids = await storage.flows.start(NewFlow("f", CHAIN.nodes, timedelta(seconds=5)))
    epoch = await leader(storage)
    await clock.advance(seconds=10)

    # whoever has waited for a second is refused; on a machine that is slower than that, it is this transaction
    with suppress(asyncpg.DeadlockDetectedError):
        async with database.transaction() as connection:
            await connection.execute("SELECT FROM forge_jobs.flow FOR UPDATE")
            expiring = asyncio.create_task(storage.time_limits.expire(epoch=epoch))
            while not await database.rows("SELECT 1 FROM pg_locks WHERE NOT granted"):
                assert not expiring.done()
            await connection.execute("SELECT FROM forge_jobs.blocked FOR UPDATE")

    ended, _ = await expiring
    assert sorted(one.job_id for one in ended) == sorted(ids)
    assert (await storage.flows.get(flow_id)).state is FlowState.DEAD


ROWS = """
SELECT job.kind, job.codec, job.payload, job.queue_id, job.priority, job.max_attempts, job.timeout, job.links, job.tags, job.meta,
       ready.pos = micros(job.created_at) AS is_ready, scheduled.reason, scheduled.run_at - job.created_at > '1 h' AS is_later,
       scheduled.links AS scheduled_links, blocked.priority AS blocked, blocked.attempt, blocked.pos >= micros(job.created_at) - 100000 AS is_last,
       time_limit.deadline - flow.created_at AS allowed, time_limit.look_at - flow.created_at AS looked_at, time_limit.start_by,
       node.number, node.name, node.codec AS written, node.plan, node.tolerated, node.delay, node.missing, node.fed, node.state,
       flow.name AS flow, flow.nodes, flow.state AS flow_state, flow.deadline - flow.created_at AS within,
       ARRAY(SELECT (edge.position, edge.on_dead, edge.taken, before.number)::text FROM flow_edge AS edge
             JOIN flow_node AS before ON before.job_id = edge.from_job WHERE edge.to_job = node.job_id ORDER BY edge.position) AS edges
FROM flow JOIN flow_node AS node ON node.flow_id = flow.id JOIN job ON job.id = node.job_id
LEFT JOIN ready ON ready.job_id = job.id LEFT JOIN scheduled ON scheduled.job_id = job.id
LEFT JOIN blocked ON blocked.job_id = job.id LEFT JOIN time_limit ON time_limit.job_id = job.id
WHERE flow.id = {flow_id} ORDER BY node.number
"""


@pytest.mark.parametrize("deadline", [None, timedelta(hours=3)])
async def test_a_flow_is_the_same_whether_one_statement_starts_it_or_many(
    storage, database, monkeypatch, deadline
):
    await worker(storage, queues=["default", "other"], kinds=("work", "other"))
    jobs = [
        NewJob(
            "work", b'{"a": 1}', priority=3, max_attempts=2, timeout=timedelta(seconds=5), tags=("x", "y")
        ),
        NewJob("other", b"\x81", codec="msgpack", queue="other", meta='{"m": 1}', declared=True),
        NewJob("work", queue="default"),
        NewJob("work", declared=True),
    ]
    nodes = [
        NewNode("a", jobs[0]),
        NewNode("b", jobs[1], NodePlan(Role.BRANCH), delay=timedelta(days=1), tolerated=True),
        NewNode("c", jobs[2], after=(Edge(1), Edge(0, OnDead.SKIP)), delay=timedelta(minutes=1)),
        NewNode("d", jobs[3], after=(Edge(2, OnDead.CONTINUE),)),
    ]
    flow = NewFlow("f", nodes, deadline)

    made = []
    for most in (flow_start.MOST_NODES, 0):
        monkeypatch.setattr(flow_start, "MOST_NODES", most)
        flow_id, ids = await storage.flows.start(flow)
        made.append([tuple(row) for row in await database.rows(ROWS.format(flow_id=flow_id))])
        assert sorted(ids) == list(ids)
    assert made[0] == made[1] and len(made[0]) == 4


async def test_a_flow_of_an_unknown_queue_leaves_nothing(storage, database):
    nodes = [NewNode("a", NewJob("work")), NewNode("b", NewJob("work", queue="nowhere"), after=(Edge(0),))]

    with pytest.raises(UnknownQueue, match="nowhere"):
        await storage.flows.start(NewFlow("f", nodes))

    assert await storage.flows.all() == []
    assert (
        await database.rows("SELECT FROM job UNION ALL SELECT FROM flow_node UNION ALL SELECT FROM tally")
        == []
    )


async def test_the_nodes_of_a_flow_are_as_their_kinds_say(storage):
    await storage.kinds.declare([Kind("work", deadline=timedelta(hours=1), priority=7)], by="me")

    _, ids = await storage.flows.start(CHAIN)

    found = [await storage.jobs.get(one) for one in ids]
    assert [one.priority for one in found] == [7, 7]
    assert found[0].deadline is not None


WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def test_a_waiting_node_that_is_cancelled_with_its_flow_and_signalled_at_once_does_not_run(
    storage, database
):
    me = await worker(storage)
    nodes = [NewNode("a", NewJob("work")), NewNode("b", NewJob("work"))]
    flow_id, _ = await storage.flows.start(NewFlow("f", nodes))
    waiting, held = await claim(storage, me)
    await storage.signals.wait(waiting, NewWait(1, WAIT, ("approved",)))
    await storage.claims.postpone([parked(waiting)])

    async def kept_waiting(count):
        while [(count,)] != await database.rows(WAITING):
            pass

    async with database.transaction() as connection, asyncio.timeout(30):
        await connection.execute("SELECT FROM forge_jobs.claimed WHERE job_id = $1 FOR UPDATE", held.job_id)
        cancelling = asyncio.create_task(storage.flows.cancel(flow_id))
        await kept_waiting(1)
        sending = asyncio.create_task(storage.signals.send(Recipient(waiting.job_id), NewSignal("approved")))
        await kept_waiting(2)

    await cancelling
    assert await sending == [(waiting.job_id, Signalled.ENDED)]
    assert await state(storage, waiting.job_id) is State.DEAD
    assert await claim(storage, me) == []


@pytest.mark.parametrize("ends", ["done", "dead"])
async def test_a_node_that_is_changed_while_what_it_waits_for_ends_hears_of_it_at_once(
    storage, database, ends
):
    flow_id, ids = await storage.flows.start(CHAIN)
    [claimed] = await claim(storage, await worker(storage))

    async def kept_waiting(count):
        while [(count,)] != await database.rows(WAITING):
            pass

    async with database.transaction() as connection, asyncio.timeout(30):
        await connection.execute("SELECT FROM forge_jobs.blocked WHERE job_id = $1 FOR UPDATE", ids[1])
        changing = asyncio.create_task(storage.corrections.change(ids[1], Correction(priority=7, attempts=2)))
        await kept_waiting(1)
        ending = asyncio.create_task(
            storage.claims.finish([done(claimed) if ends == "done" else dead(claimed)])
        )
        await kept_waiting(2)

    await changing
    assert await ending == []
    assert await storage.flows.audit(epoch=await leader(storage)) == 0
    found = await storage.jobs.get(ids[1])
    assert found.state is (State.PENDING if ends == "done" else State.DEAD)
    assert (found.priority, found.attempt) == (7, 2)
    assert ends == "done" or (await storage.flows.get(flow_id)).state is FlowState.DEAD
