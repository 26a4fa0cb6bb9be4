"""Nodes behind branches: they run where all branches before them lead to them, and are skipped for good elsewhere."""

import pytest

from forge_jobs.errors import JobNotFound
from forge_jobs.model.flow import Edge, FlowChanges, FlowState, NewNode, NodePlan, OnDead, Role
from forge_jobs.model.job import NewJob
from tests.storage.factories import claim, dead, done, leader, worker
from tests.storage.test_flows import flow_state, node, run, start

BRANCH = NodePlan(Role.BRANCH)


async def node_states(storage, flow_id):
    return {one.name: one.state for one in await storage.flows.nodes(flow_id)}


@pytest.mark.parametrize("taken_by", range(2))
@pytest.mark.parametrize("order", [(0, 1), (1, 0), None])
async def test_a_node_behind_two_branches_is_skipped_when_one_of_them_leads_elsewhere(
    storage, taken_by, order
):
    me = await worker(storage)
    flow_id, _ = await start(
        storage,
        node("one", plan=BRANCH),
        node("other", plan=BRANCH),
        node("both", 0, 1),
        node("beside", 0, 1),
        node("last", 2, 3),
    )
    branches = await claim(storage, me)
    ends = [
        done(branch, changes=FlowChanges(taken=("both", "beside") if place == taken_by else ("beside",)))
        for place, branch in enumerate(branches)
    ]

    for batch in [ends] if order is None else [[ends[place]] for place in order]:
        assert await storage.claims.finish(batch) == []

    found = await node_states(storage, flow_id)
    assert (found["both"], found["beside"], found["last"]) == ("skipped", "pending", "blocked")
    await run(storage, me)
    await run(storage, me)
    assert await flow_state(storage, flow_id) is FlowState.DONE


@pytest.mark.parametrize("taken", [("left",), ("right",)])
async def test_a_retried_flow_runs_no_node_that_its_branch_did_not_take(storage, taken):
    me = await worker(storage)
    flow_id, ids = await start(
        storage, node("choose", plan=BRANCH), node("left", 0), node("right", 0), node("last", 1, 2)
    )
    await storage.jobs.cancel(ids[1])  # before it is known whether it is wanted
    [choose] = await claim(storage, me)
    await storage.claims.finish([done(choose, changes=FlowChanges(taken=taken))])
    if taken == ("right",):
        await run(storage, me)
    assert await flow_state(storage, flow_id) is FlowState.DEAD

    await storage.flows.retry(flow_id)

    found = await node_states(storage, flow_id)
    if taken == ("left",):
        assert (found["left"], found["right"], found["last"]) == ("pending", "skipped", "blocked")
        await run(storage, me)
    else:
        assert (found["left"], found["right"], found["last"]) == ("skipped", "done", "pending")
    await run(storage, me)
    status = await storage.flows.get(flow_id)
    assert (status.state, status.done, status.dead, status.skipped) == (FlowState.DONE, 3, 0, 1)


async def test_a_retried_flow_runs_no_node_to_which_only_dead_ones_lead(storage):
    me = await worker(storage)
    flow_id, ids = await start(
        storage, node("mail", tolerated=True), node("file", 0, on_dead=OnDead.SKIP), node("last", 1)
    )
    await storage.jobs.cancel(ids[1])
    await run(storage, me, dead)
    assert await flow_state(storage, flow_id) is FlowState.DEAD

    await storage.flows.retry(flow_id)

    assert await node_states(storage, flow_id) == {"mail": "dead", "file": "skipped", "last": "skipped"}
    assert await flow_state(storage, flow_id) is FlowState.DONE


async def test_a_flow_is_retried_though_a_job_that_its_branch_did_not_take_is_gone(storage):
    me = await worker(storage)
    aside = NewNode("aside", NewJob("work"), NodePlan(), (Edge(0), Edge(1, OnDead.SKIP)))
    flow_id, ids = await start(
        storage, node("choose", plan=BRANCH), node("mail", tolerated=True), aside, node("next", 0)
    )
    choose, mail = await claim(storage, me)
    await storage.claims.finish([done(choose, changes=FlowChanges(taken=("next",)))])
    await storage.claims.finish([dead(mail)])
    await storage.flows.cancel(flow_id)
    assert list((await node_states(storage, flow_id)).values()) == ["done", "dead", "skipped", "dead"]
    await storage.jobs.delete(ids[2])

    assert await storage.flows.retry(flow_id) == (FlowState.CANCELLED, None)

    assert [await run(storage, me), await run(storage, me)] == [ids[1], ids[3]]
    status = await storage.flows.get(flow_id)
    assert (status.state, status.done, status.skipped) == (FlowState.DONE, 3, 1)


async def failed_for_want(storage):
    """A flow in which a failed node took one along, for want of which another was skipped."""
    return await start(
        storage,
        node("charge"),
        node("mail", 0, tolerated=True),
        NewNode("file", NewJob("work", payload=b'{"number":7}'), NodePlan(), (Edge(1, OnDead.SKIP),)),
    )


async def test_a_skipped_node_is_kept_for_as_long_as_its_flow_may_be_retried(storage, clock):
    me, epoch = await worker(storage), await leader(storage)
    flow_id, ids = await failed_for_want(storage)
    await run(storage, me, dead)
    await clock.advance(seconds=8 * 86_400)  # longer than done jobs are kept
    assert await storage.history.sweep(epoch=epoch) == 0
    assert [look.findings async for look in storage.audit.jobs() if look.findings] == []

    assert await storage.flows.retry(flow_id) == (FlowState.DEAD, None)

    await run(storage, me)
    await run(storage, me)
    [file] = await claim(storage, me)
    assert (file.job_id, file.payload) == (ids[2], b'{"number":7}')
    await storage.claims.finish([done(file)])
    assert await flow_state(storage, flow_id) is FlowState.DONE


async def test_a_skipped_node_goes_when_its_flow_is_done_or_nothing_else_of_that_is_kept(storage, clock):
    me, epoch = await worker(storage), await leader(storage)
    done_id, _ = await start(storage, node("choose", plan=BRANCH), node("left", 0), node("right", 0))
    [choose] = await claim(storage, me)
    await storage.claims.finish([done(choose, changes=FlowChanges(taken=("left",)))])
    await run(storage, me)
    dead_id, ids = await failed_for_want(storage)
    await run(storage, me, dead)

    await clock.advance(seconds=8 * 86_400)
    assert await storage.history.sweep(epoch=epoch) == 3
    assert await storage.flows.forget(epoch=epoch) == 1
    assert await storage.flows.get(done_id) is None

    await clock.advance(seconds=30 * 86_400)
    assert await storage.history.sweep(epoch=epoch) == 2
    assert await storage.flows.forget(epoch=epoch) == 1
    assert await storage.history.sweep(epoch=epoch) == 1
    assert await storage.flows.get(dead_id) is None
    with pytest.raises(JobNotFound):
        await storage.jobs.get(ids[2])
    [counts] = await storage.jobs.counts()
    assert (counts.done, counts.dead) == (0, 0)


async def test_a_flow_can_do_without_the_answer_of_what_it_can_do_without(storage):
    me = await worker(storage)
    flow_id, _ = await start(storage, node("mail", tolerated=True), node("file", 0, on_dead=OnDead.SKIP))
    [mail] = await claim(storage, me)
    await storage.claims.finish([done(mail, changes=FlowChanges([node("answer")], successor=0))])

    await run(storage, me, dead)

    assert await node_states(storage, flow_id) == {"mail": "done", "file": "skipped", "answer": "dead"}
    assert await flow_state(storage, flow_id) is FlowState.DONE
