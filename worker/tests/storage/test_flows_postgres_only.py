"""What a worker leaves that knows no flows, and what a crash leaves, is handed on by the audit."""

import pytest

from forge_jobs.model.flow import Edge, FlowState, NewFlow, NewNode
from forge_jobs.model.job import NewJob, State
from forge_jobs.storage.postgres.outcomes import FINISH
from tests.storage.factories import claim, done, leader, state, worker

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
