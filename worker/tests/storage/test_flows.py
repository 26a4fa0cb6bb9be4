"""Nodes of a flow wait for each other, and whatever ends one hands on to those that wait for it."""

import asyncio
import contextlib
import random
from dataclasses import replace
from datetime import timedelta

import pytest

from forge_jobs.errors import UnknownQueue, WrongState
from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.correction import Correction
from forge_jobs.model.flow import (
    MOST_AT_CLAIM,
    Edge,
    FlowChanges,
    FlowState,
    NewFlow,
    NewNode,
    NodePlan,
    OnDead,
    Role,
)
from forge_jobs.model.group import Group
from forge_jobs.model.group import encoded as groups_of
from forge_jobs.model.job import NewJob, State
from forge_jobs.model.match import Move
from forge_jobs.model.run import Outcome
from tests.storage.factories import claim, dead, done, leader, move_all, running, state, worker
from tests.storage.test_transactions import RolledBack


def node(name, *after, on_dead=OnDead.FAIL, delay=None, tolerated=False, plan=None, kind="work", **facts):
    """A node that waits for those of these numbers."""
    edges = tuple(Edge(index, on_dead) for index in after)
    job = NewJob(kind, **facts)
    return NewNode(name, job, plan or NodePlan(), edges, delay=delay, tolerated=tolerated)


async def start(storage, *nodes, deadline=None):
    return await storage.flows.start(NewFlow("f", nodes, deadline))


async def states(storage, ids):
    return [await state(storage, one) for one in ids]


async def flow_state(storage, flow_id):
    return (await storage.flows.get(flow_id)).state


async def run(storage, me, end=done, **facts):
    """The next job is run to its end; return its id."""
    [claimed] = await claim(storage, me, limit=1)
    assert await storage.claims.finish([end(claimed, **facts)]) == []
    return claimed.job_id


async def test_ends_that_add_very_many_nodes_are_written_together_or_not_at_all(storage):
    me = await worker(storage)
    await start(storage, node("a"), node("b"))
    first, second = await claim(storage, me)
    many = FlowChanges([node(f"n{number}") for number in range(10_000)])
    refused = FlowChanges([node("refused", queue="nowhere")])

    with pytest.raises(UnknownQueue):
        await storage.claims.finish([done(first, changes=many), done(second, changes=refused)])

    held = {claimed.job_id for claimed in await storage.claims.held(me)}
    assert held == {first.job_id, second.job_id}


async def test_nodes_without_predecessors_are_pending_and_the_others_are_blocked(storage):
    flow_id, ids = await start(storage, node("a"), node("b", 0), node("c", 1))

    assert await states(storage, ids) == [State.PENDING, State.BLOCKED, State.BLOCKED]
    [counts] = await storage.jobs.counts()
    assert (counts.pending, counts.blocked, counts.scheduled) == (1, 2, 0)
    status = await storage.flows.get(flow_id)
    assert (status.name, status.state, status.nodes, status.left) == ("f", FlowState.RUNNING, 3, 3)


async def test_a_job_says_of_which_flow_it_is_a_node(storage):
    flow_id, ids = await start(storage, node("a"), node("b", 0))
    plain = await storage.jobs.enqueue(NewJob("work"))

    assert [await storage.flows.of(one) for one in (*ids, plain.id)] == [flow_id, flow_id, None]


async def test_a_chain_runs_one_node_after_the_other(storage):
    me = await worker(storage)
    flow_id, ids = await start(storage, node("a"), node("b", 0), node("c", 1))

    assert [await run(storage, me) for _ in ids] == list(ids)

    status = await storage.flows.get(flow_id)
    assert (status.state, status.done, status.left) == (FlowState.DONE, 3, 0)
    assert status.ended_at is not None
    [counts] = await storage.jobs.counts()
    assert (counts.pending, counts.blocked, counts.done) == (0, 0, 3)


async def test_a_join_runs_when_the_last_of_its_predecessors_is_done(storage):
    me = await worker(storage)
    _, ids = await start(storage, node("a"), node("b"), node("join", 0, 1))

    await run(storage, me)
    assert await state(storage, ids[2]) is State.BLOCKED
    await run(storage, me)
    assert await state(storage, ids[2]) is State.PENDING


async def test_predecessors_that_end_in_one_batch_free_their_join_once(storage):
    me = await worker(storage)
    _, ids = await start(storage, *(node(f"n{number}") for number in range(20)), node("join", *range(20)))

    await storage.claims.finish([done(one) for one in await claim(storage, me, limit=100)])

    assert [one.job_id for one in await claim(storage, me, limit=100)] == [ids[-1]]


@pytest.mark.parametrize("seed", range(3))
async def test_joins_of_racing_predecessors_run_exactly_once(storage, seed):
    chance = random.Random(seed)
    flows = [
        (
            await start(
                storage,
                *(node(f"n{number}") for number in range(6)),
                node("join", *range(6)),
                node("tail", 6),
            )
        )
        for _ in range(8)
    ]
    ended: list[int] = []

    async def work(me):
        while claimed := await claim(storage, me, limit=chance.randint(1, 9)):
            chance.shuffle(claimed)
            lost = await storage.claims.finish([done(one) for one in claimed])
            assert lost == []
            ended.extend(one.job_id for one in claimed)

    workers = [await worker(storage) for _ in range(4)]
    for _ in range(4):  # one that finds nothing stops, though others may free more
        await asyncio.gather(*map(work, workers))

    assert sorted(ended) == sorted(one for _, ids in flows for one in ids)
    assert {await flow_state(storage, flow_id) for flow_id, _ in flows} == {FlowState.DONE}


async def test_a_node_gets_the_results_of_its_predecessors_in_their_order(storage):
    me = await worker(storage)
    await start(storage, node("a"), node("b"), node("join", 1, 0))
    first, second = await claim(storage, me)
    await storage.claims.finish([done(second, result=b'"2"')])
    await storage.claims.finish([done(first, result=b'"1"')])

    [join] = await claim(storage, me)

    assert join.payload == b"{}" and join.node is not None
    assert [(one.name, one.result) for one in join.node.inputs] == [("b", b'"2"'), ("a", b'"1"')]


async def test_results_that_are_large_together_are_read_when_their_node_begins(storage):
    me = await worker(storage)
    await start(storage, node("a"), node("b"), node("join", 0, 1), node("beside", 0))
    large = [b'"' + name * (MOST_AT_CLAIM // 2) + b'"' for name in (b"a", b"b")]
    ends = [done(one, result=result) for one, result in zip(await claim(storage, me), large, strict=True)]
    await storage.claims.finish(ends)

    join, beside = await claim(storage, me)
    assert (join.payload, join.node) == (None, None)
    assert beside.node is not None and [one.result for one in beside.node.inputs] == large[:1]

    assert await storage.claims.payload(join) == b"{}"
    assert join.node is not None and [one.result for one in join.node.inputs] == large


async def test_results_are_there_though_the_queue_keeps_no_done_jobs(storage, clock):
    me = await worker(storage)
    await storage.queues.set("default", {"done_retention": timedelta(0)})
    flow_id, _ = await start(storage, node("a"), node("b", 0))
    [first] = await claim(storage, me)
    await storage.claims.finish([done(first, result=b"1", keep=False)])
    await clock.advance(seconds=1)
    await storage.history.sweep(epoch=await leader(storage))

    [second] = await claim(storage, me)
    await storage.claims.payload(second)

    assert second.node is not None
    assert second.node.inputs[0].result == b"1"
    await storage.claims.finish([done(second)])
    assert await flow_state(storage, flow_id) is FlowState.DONE


async def test_a_dead_node_takes_those_that_need_it_along(storage):
    me = await worker(storage)
    flow_id, ids = await start(storage, node("charge"), node("b", 0), node("c", 1), node("other"))

    await run(storage, me, dead)

    assert await states(storage, ids) == [State.DEAD, State.DEAD, State.DEAD, State.PENDING]
    job = await storage.jobs.get(ids[1])
    assert job.error == f"job {ids[0]} (charge), which it needs, is dead"
    assert await flow_state(storage, flow_id) is FlowState.RUNNING
    await run(storage, me)
    status = await storage.flows.get(flow_id)
    assert (status.state, status.done, status.dead) == (FlowState.DEAD, 1, 3)


async def test_a_node_runs_though_its_predecessor_is_dead_where_that_is_to_continue(storage):
    me = await worker(storage)
    flow_id, ids = await start(storage, node("a", tolerated=True), node("b", 0, on_dead=OnDead.CONTINUE))

    await run(storage, me, dead)

    assert await state(storage, ids[1]) is State.PENDING
    await run(storage, me)
    assert await flow_state(storage, flow_id) is FlowState.DONE


async def test_a_node_to_which_only_dead_ones_lead_is_skipped_where_they_are_to_be_skipped(storage):
    me = await worker(storage)
    flow_id, ids = await start(
        storage,
        node("a", tolerated=True),
        node("b", 0, on_dead=OnDead.SKIP),
        node("c", 1),
        node("d"),
        node("e", 2, 3),
    )

    await run(storage, me, dead)

    assert await states(storage, ids) == [State.DEAD, State.DONE, State.DONE, State.PENDING, State.BLOCKED]
    assert [one.state for one in await storage.flows.nodes(flow_id)] == [
        "dead",
        "skipped",
        "skipped",
        "pending",
        "blocked",
    ]
    await run(storage, me)
    assert await run(storage, me) == ids[4]
    assert await flow_state(storage, flow_id) is FlowState.DONE


async def test_a_long_chain_falls_at_once(storage):
    me = await worker(storage)
    flow_id, ids = await start(
        storage, node("n0"), *(node(f"n{number}", number - 1) for number in range(1, 400))
    )

    await run(storage, me, dead)

    assert await flow_state(storage, flow_id) is FlowState.DEAD
    assert await state(storage, ids[-1]) is State.DEAD


async def test_a_delayed_node_is_scheduled_when_its_predecessors_have_ended(storage, clock):
    me = await worker(storage)
    _, ids = await start(storage, node("a"), node("b", 0, delay=timedelta(minutes=1)))

    await clock.advance(seconds=3600)
    await run(storage, me)

    assert await state(storage, ids[1]) is State.SCHEDULED
    await clock.advance(seconds=61)
    await storage.schedule.make_pending()
    assert await state(storage, ids[1]) is State.PENDING


async def test_a_node_of_a_group_waits_for_its_place_once_it_is_free(storage):
    me = await worker(storage)
    inside = {"groups": groups_of([Group("g")])}
    _, ids = await start(storage, node("a"), node("b", 0, **inside), node("c", 0, **inside))

    await run(storage, me)
    await storage.schedule.make_pending()

    assert sorted(await states(storage, ids[1:])) == [State.BLOCKED, State.PENDING]
    await run(storage, me)
    await run(storage, me)
    assert await states(storage, ids) == [State.DONE] * 3


async def test_time_limits_of_a_node_count_from_when_it_is_free(storage, clock):
    me = await worker(storage)
    _, ids = await start(storage, node("a"), node("b", 0, start_by=timedelta(seconds=30)))
    await clock.advance(seconds=3600)
    epoch = await leader(storage)
    assert not (await storage.time_limits.expire(epoch=epoch))[0]

    await run(storage, me)

    job = await storage.jobs.get(ids[1])
    assert timedelta(seconds=20) < job.start_by - await storage.now() <= timedelta(seconds=30)
    await clock.advance(seconds=31)
    await storage.time_limits.expire(epoch=epoch)
    assert await state(storage, ids[1]) is State.EXPIRED


async def test_the_deadline_of_a_flow_is_that_of_all_its_nodes(storage, clock):
    flow_id, ids = await start(storage, node("a"), node("b", 0), deadline=timedelta(minutes=1))
    await clock.advance(seconds=61)

    await storage.time_limits.expire(epoch=await leader(storage))

    assert await states(storage, ids) == [State.DEAD, State.DEAD]
    assert await flow_state(storage, flow_id) is FlowState.DEAD


async def test_of_a_nodes_own_deadline_and_that_of_its_flow_the_earlier_one_counts(storage, clock):
    me = await worker(storage)
    flow_id, ids = await start(
        storage,
        node("a", deadline=timedelta(seconds=50)),
        node("soon", 0, deadline=timedelta(seconds=30)),
        node("late", 0, deadline=timedelta(hours=1)),
        deadline=timedelta(seconds=100),
    )
    until = (await storage.flows.get(flow_id)).deadline
    own, *waiting = [(await storage.jobs.get(one)).deadline for one in ids]
    assert timedelta(seconds=49) < until - own < timedelta(seconds=51)
    assert waiting == [until, until]

    await clock.advance(seconds=40)
    await run(storage, me)

    soon, late = [(await storage.jobs.get(one)).deadline for one in ids[1:]]
    assert timedelta(seconds=20) < until - soon < timedelta(seconds=31) and late == until
    await clock.advance(seconds=41)
    epoch = await leader(storage)
    await storage.time_limits.expire(epoch=epoch)
    assert await states(storage, ids[1:]) == [State.DEAD, State.PENDING]
    await clock.advance(seconds=20)
    await storage.time_limits.expire(epoch=epoch)
    assert await states(storage, ids[1:]) == [State.DEAD, State.DEAD]


async def test_a_job_that_people_cancel_is_dead_in_its_flow(storage):
    flow_id, ids = await start(storage, node("a"), node("b", 0))

    await storage.jobs.cancel(ids[0])

    assert await states(storage, ids) == [State.DEAD, State.DEAD]
    assert await flow_state(storage, flow_id) is FlowState.DEAD


async def test_a_blocked_node_that_people_cancel_takes_those_along_that_need_it(storage):
    me = await worker(storage)
    flow_id, ids = await start(storage, node("a"), node("b", 0), node("c", 1))

    await storage.jobs.cancel(ids[1])

    assert await states(storage, ids) == [State.PENDING, State.DEAD, State.DEAD]
    await run(storage, me)
    assert await flow_state(storage, flow_id) is FlowState.DEAD


async def test_a_node_that_people_delete_is_dead_in_its_flow(storage):
    flow_id, ids = await start(storage, node("a"), node("b", 0))

    await storage.jobs.delete(ids[0])

    assert await state(storage, ids[1]) is State.DEAD
    assert await flow_state(storage, flow_id) is FlowState.DEAD
    assert (await storage.flows.nodes(flow_id))[0].error == "it was deleted"


async def test_all_jobs_of_a_state_may_be_cancelled_nodes_among_them(storage):
    flow_id, _ = await start(storage, *(node(f"n{number}") for number in range(5)), node("join", *range(5)))

    async for _ in move_all(storage, Move.CANCEL, State.PENDING):
        pass

    assert await flow_state(storage, flow_id) is FlowState.DEAD


async def test_a_cancelled_flow_ends_when_its_last_running_node_has_ended(storage):
    me = await worker(storage)
    flow_id, ids = await start(storage, node("a"), node("b"), node("c", 0), node("d", 1))
    [running] = await claim(storage, me, limit=1)

    assert await storage.flows.cancel(flow_id) is FlowState.RUNNING

    assert await states(storage, ids) == [State.IN_PROGRESS, State.DEAD, State.DEAD, State.DEAD]
    [held] = await storage.claims.held(me)
    assert held.cancel_requested
    await storage.claims.finish([done(running)])
    assert await flow_state(storage, flow_id) is FlowState.CANCELLED
    assert await storage.flows.cancel(flow_id) is FlowState.CANCELLED


async def test_there_is_nothing_to_cancel_of_an_unknown_flow(storage):
    assert await storage.flows.cancel(99) is None
    assert await storage.flows.retry(99) == (None, None)
    assert await storage.flows.get(99) is None


async def test_a_retried_flow_goes_on_from_what_failed(storage):
    me = await worker(storage)
    flow_id, ids = await start(storage, node("a"), node("b", 0), node("c", 1), node("d", 0))
    await run(storage, me)
    claimed = await claim(storage, me)
    await storage.claims.finish([(dead if one.job_id == ids[1] else done)(one) for one in claimed])
    assert await flow_state(storage, flow_id) is FlowState.DEAD

    assert await storage.flows.retry(flow_id) == (FlowState.DEAD, None)

    assert await states(storage, ids) == [State.DONE, State.PENDING, State.BLOCKED, State.DONE]
    assert [await run(storage, me), await run(storage, me)] == [ids[1], ids[2]]
    assert await flow_state(storage, flow_id) is FlowState.DONE


async def test_what_was_dead_or_skipped_for_want_of_a_node_runs_after_it_when_the_flow_is_retried(storage):
    me = await worker(storage)
    flow_id, ids = await start(
        storage,
        node("charge"),
        node("mail", 0, tolerated=True),
        node("file", 1, on_dead=OnDead.SKIP),
        node("last", 2),
    )
    await run(storage, me, dead)
    status = await storage.flows.get(flow_id)
    assert (status.state, status.dead, status.skipped) == (FlowState.DEAD, 2, 2)

    await storage.flows.retry(flow_id)

    assert await states(storage, ids) == [State.PENDING, *[State.BLOCKED] * 3]
    status = await storage.flows.get(flow_id)
    assert (status.state, status.dead, status.skipped) == (FlowState.RUNNING, 0, 0)
    assert [await run(storage, me) for _ in ids] == list(ids)
    assert await flow_state(storage, flow_id) is FlowState.DONE


async def test_what_is_skipped_again_when_a_flow_is_retried_is_counted_once(storage):
    me = await worker(storage)
    flow_id, _ = await start(
        storage, node("charge"), node("mail", 0, tolerated=True), node("file", 1, on_dead=OnDead.SKIP)
    )
    await run(storage, me, dead)
    await storage.flows.retry(flow_id)

    await run(storage, me)
    await run(storage, me, dead)

    status = await storage.flows.get(flow_id)
    assert (status.state, status.done, status.dead, status.skipped) == (FlowState.DONE, 1, 1, 1)


async def test_a_dead_node_that_its_flow_can_do_without_stays_so_with_those_that_were_skipped_for_it(storage):
    me = await worker(storage)
    flow_id, ids = await start(
        storage, node("mail", tolerated=True), node("file", 0, on_dead=OnDead.SKIP), node("charge")
    )
    await run(storage, me, dead)
    await run(storage, me, dead)

    await storage.flows.retry(flow_id)

    assert await states(storage, ids) == [State.DEAD, State.DONE, State.PENDING]
    await run(storage, me)
    status = await storage.flows.get(flow_id)
    assert (status.state, status.done, status.dead, status.skipped) == (FlowState.DONE, 1, 1, 1)


async def test_a_cancelled_flow_can_be_retried(storage):
    me = await worker(storage)
    flow_id, ids = await start(storage, node("a"), node("b", 0))
    await storage.flows.cancel(flow_id)

    await storage.flows.retry(flow_id)

    assert await states(storage, ids) == [State.PENDING, State.BLOCKED]
    assert [await run(storage, me), await run(storage, me)] == list(ids)
    assert await flow_state(storage, flow_id) is FlowState.DONE


async def test_a_running_or_done_flow_is_not_retried(storage):
    me = await worker(storage)
    flow_id, _ = await start(storage, node("a"))
    assert await storage.flows.retry(flow_id) == (FlowState.RUNNING, None)
    await run(storage, me)
    assert await storage.flows.retry(flow_id) == (FlowState.DONE, None)
    assert await flow_state(storage, flow_id) is FlowState.DONE


async def test_a_flow_of_which_a_dead_job_was_deleted_is_not_retried(storage):
    flow_id, ids = await start(storage, node("a"), node("b", 0))
    await storage.jobs.cancel(ids[0])
    await storage.jobs.delete(ids[0])

    assert await storage.flows.retry(flow_id) == (FlowState.DEAD, ids[0])
    assert await state(storage, ids[1]) is State.DEAD


async def test_a_node_adds_others_when_it_is_done(storage):
    me = await worker(storage)
    flow_id, _ = await start(storage, node("a"), node("b", 0))
    [claimed] = await claim(storage, me)
    added = FlowChanges((node("x"), node("y"), node("all", 0, 1)), successor=2)

    assert await storage.claims.finish([done(claimed, changes=added)]) == []

    nodes = await storage.flows.nodes(flow_id)
    assert [(one.name, one.state) for one in nodes] == [
        ("a", "done"),
        ("b", "blocked"),
        ("x", "pending"),
        ("y", "pending"),
        ("all", "blocked"),
    ]
    assert nodes[1].after == (nodes[4].job_id,)
    for _ in range(4):
        await run(storage, me)
    status = await storage.flows.get(flow_id)
    assert (status.state, status.nodes, status.done) == (FlowState.DONE, 5, 5)


async def test_what_a_node_makes_of_itself_stays_in_its_group_and_has_its_tags(storage):
    me = await worker(storage)
    group = groups_of([Group("g", 1, "drop_newest")])
    flow_id, _ = await start(storage, node("a", groups=group, tags=("night",)))
    await storage.schedule.make_pending()
    [claimed] = await claim(storage, me)
    more = [replace(node(name), alike=True) for name in ("a#2", "a#3")]

    await storage.claims.finish([done(claimed, changes=FlowChanges((*more, node("other"))))])
    await storage.schedule.make_pending()

    found = [await storage.jobs.get(one.job_id) for one in await storage.flows.nodes(flow_id, after=0)]
    assert [(one.groups, one.tags, one.state) for one in found] == [
        ((Group("g", 1),), ("night",), State.PENDING),
        ((Group("g", 1),), ("night",), State.BLOCKED),
        ((), (), State.PENDING),
    ]


async def test_what_a_node_makes_of_itself_is_on_behalf_of_its_tenant(storage):
    me = await worker(storage)
    flow_id, _ = await start(storage, node("a", tenant="ada"))
    await storage.schedule.make_pending()
    [claimed] = await claim(storage, me)

    await storage.claims.finish(
        [done(claimed, changes=FlowChanges((replace(node("a#2"), alike=True), node("other"))))]
    )

    found = [await storage.jobs.get(one.job_id) for one in await storage.flows.nodes(flow_id, after=0)]
    assert [one.tenant for one in found] == ["ada", None]


async def test_a_node_that_its_group_drops_is_dead_and_is_no_other_job(storage):
    me = await worker(storage)
    held = await running(storage, me, groups=groups_of([Group("g")]))

    flow_id, ids = await start(storage, node("a", groups=groups_of([Group("g", overflow="drop_newest")])))
    await storage.schedule.make_pending()

    assert held.job_id not in ids
    assert await states(storage, ids) == [State.DEAD]
    assert await flow_state(storage, flow_id) is FlowState.DEAD


async def test_the_first_error_of_a_flow_is_that_of_what_failed_and_not_of_what_needed_it(storage):
    me = await worker(storage)
    flow_id, _ = await start(storage, node("mail", tolerated=True), node("split"), node("ship", 1))
    assert await storage.flows.first_error(flow_id) is None
    await run(storage, me, dead, error="no address")
    await run(storage, me, changes=FlowChanges((node("item"),), successor=0))
    assert await storage.flows.first_error(flow_id) == ("mail", "no address")
    await run(storage, me, dead)

    assert await storage.flows.first_error(flow_id) == ("item", "it broke")
    assert await storage.flows.first_error(flow_id + 1) is None


async def test_nodes_that_end_together_change_their_flows_as_each_says(storage):
    me = await worker(storage)
    first = await start(
        storage, node("a"), node("b"), node("branch"), node("yes", 2), node("no", 2), node("join", 0)
    )
    second = await start(storage, node("a"), node("next", 0), deadline=timedelta(hours=1))
    await storage.jobs.enqueue(NewJob("work"))
    a, b, branch, other, plain = await claim(storage, me, limit=5)

    ends = [
        done(a, changes=FlowChanges((node("x"), node("last", 0)), successor=1)),
        done(b, changes=FlowChanges((node("y"),))),
        done(branch, changes=FlowChanges(taken=("yes",))),
        done(other, changes=FlowChanges((node("z"),), successor=0)),
        done(plain),
    ]
    await storage.claims.hand_back([b])
    assert await storage.claims.finish(ends) == [b.job_id]

    nodes = await storage.flows.nodes(first[0])
    assert [(one.number, one.name, one.state) for one in nodes] == [
        (0, "a", "done"),
        (1, "b", "pending"),
        (2, "branch", "done"),
        (3, "yes", "pending"),
        (4, "no", "skipped"),
        (5, "join", "blocked"),
        (6, "x", "pending"),
        (7, "last", "blocked"),
    ]
    assert nodes[5].after == (nodes[7].job_id,)
    nodes = await storage.flows.nodes(second[0])
    assert [(one.name, one.state, one.after) for one in nodes] == [
        ("a", "done", ()),
        ("next", "blocked", (nodes[2].job_id,)),
        ("z", "pending", ()),
    ]
    limits = [(await storage.jobs.get(one.job_id)).deadline for one in nodes[1:]]
    assert limits == [(await storage.flows.get(second[0])).deadline] * 2
    assert await state(storage, plain.job_id) is State.DONE


async def test_what_was_lost_adds_nothing(storage):
    me = await worker(storage)
    flow_id, ids = await start(storage, node("a"), node("b", 0))
    [claimed] = await claim(storage, me)
    await storage.claims.hand_back([claimed])

    assert await storage.claims.finish([done(claimed, changes=FlowChanges((node("x"),)))]) == [ids[0]]

    assert (await storage.flows.get(flow_id)).nodes == 2
    assert await states(storage, ids) == [State.PENDING, State.BLOCKED]


async def test_written_twice_it_adds_once(storage):
    me = await worker(storage)
    flow_id, ids = await start(storage, node("a"))
    [claimed] = await claim(storage, me)
    end = done(claimed, changes=FlowChanges((node("x"),)))

    assert await storage.claims.finish([end]) == []
    assert await storage.claims.finish([end]) == [ids[0]]

    assert (await storage.flows.get(flow_id)).nodes == 2


async def test_nothing_is_added_to_a_cancelled_flow(storage):
    me = await worker(storage)
    flow_id, _ = await start(storage, node("a"))
    [claimed] = await claim(storage, me)
    await storage.flows.cancel(flow_id)

    await storage.claims.finish([done(claimed, changes=FlowChanges((node("x"),)))])

    status = await storage.flows.get(flow_id)
    assert (status.state, status.nodes) == (FlowState.CANCELLED, 1)


async def test_a_node_whose_changes_came_after_its_flow_was_cancelled_runs_again_when_that_is_retried(
    storage,
):
    me = await worker(storage)
    flow_id, ids = await start(
        storage, node("map"), node("branch", plan=NodePlan(Role.BRANCH)), node("sum", 0), node("no", 1)
    )
    mapped, branch = await claim(storage, me)
    await storage.flows.cancel(flow_id)
    kids = FlowChanges((node("map[0]"), node("map[]", 0)), successor=1)
    assert await storage.claims.finish([done(mapped, changes=kids)]) == []
    assert await storage.claims.finish([done(branch, changes=FlowChanges(taken=()))]) == []
    assert await states(storage, ids) == [State.DEAD] * 4
    assert (await storage.jobs.get(ids[0])).error == "cancelled by user"

    await storage.flows.retry(flow_id)

    assert await states(storage, ids) == [State.PENDING, State.PENDING, State.BLOCKED, State.BLOCKED]
    mapped, branch = await claim(storage, me)
    ends = [done(mapped, changes=kids), done(branch, changes=FlowChanges(taken=()))]
    assert await storage.claims.finish(ends) == []
    nodes = await storage.flows.nodes(flow_id)
    assert [one.state for one in nodes] == ["done", "done", "blocked", "skipped", "pending", "blocked"]
    assert nodes[2].after == (nodes[5].job_id,)


async def test_a_branch_leads_to_those_that_it_names(storage):
    me = await worker(storage)
    flow_id, ids = await start(
        storage,
        node("a", plan=NodePlan(Role.BRANCH)),
        node("b", 0),
        node("c", 0),
        node("after", 2),
        node("join", 1, 2),
    )
    [claimed] = await claim(storage, me)
    await storage.claims.payload(claimed)
    assert claimed.node is not None
    assert list(claimed.node.successors) == ["b", "c"]

    await storage.claims.finish([done(claimed, changes=FlowChanges(taken=("b",)))])

    assert [one.state for one in await storage.flows.nodes(flow_id)] == [
        "done",
        "pending",
        "skipped",
        "skipped",
        "blocked",
    ]
    assert [await run(storage, me), await run(storage, me)] == [ids[1], ids[4]]
    assert await flow_state(storage, flow_id) is FlowState.DONE


async def test_a_branch_that_has_added_its_answer_leads_nowhere_else(storage):
    me = await worker(storage)
    branch = NodePlan(Role.BRANCH)
    flow_id, ids = await start(storage, node("choose", plan=branch), node("left", 0), node("right", 0))
    [choose] = await claim(storage, me)

    changes = FlowChanges([node("answer")], successor=0, taken=("left",))
    assert await storage.claims.finish([done(choose, changes=changes)]) == []
    await run(storage, me)

    assert await states(storage, ids[1:]) == [State.PENDING, State.DONE]
    assert [one.state for one in await storage.flows.nodes(flow_id)][1:3] == ["pending", "skipped"]


async def test_flows_are_listed_by_keyset(storage):
    ids = [(await start(storage, node("a")))[0] for _ in range(5)]
    await storage.flows.cancel(ids[1])

    assert [one.id for one in await storage.flows.all(limit=2)] == [ids[4], ids[3]]
    assert [one.id for one in await storage.flows.all(before=ids[3], limit=2)] == [ids[2], ids[1]]
    assert [one.id for one in await storage.flows.all(state=FlowState.CANCELLED)] == [ids[1]]
    assert await storage.flows.all(name="other") == []


async def test_flows_are_forgotten_with_their_jobs(storage, clock):
    me = await worker(storage)
    flow_id, _ = await start(storage, node("a"), node("b", 0))
    await run(storage, me)
    await run(storage, me)
    epoch = await leader(storage)
    await storage.flows.forget(epoch=epoch)
    assert await storage.flows.get(flow_id) is not None

    await clock.advance(seconds=8 * 86_400)
    await storage.history.sweep(epoch=epoch)
    await storage.flows.forget(epoch=epoch)

    assert await storage.flows.get(flow_id) is None


async def test_a_flow_without_nodes_is_done(storage):
    flow_id, ids = await start(storage)

    assert (await flow_state(storage, flow_id), list(ids)) == (FlowState.DONE, [])


async def test_a_blocked_node_knows_for_what_it_waits(storage):
    _, ids = await start(storage, node("a"), node("b"), node("c"), node("join", 0, 1, 2))

    waiting = await storage.jobs.waiting(ids[3])

    assert (waiting.needs.job_id, waiting.needs.name, waiting.needs.others) == (ids[0], "a", 2)


async def test_a_node_that_waits_stays_behind_the_others_whatever_is_changed_of_it(storage):
    me = await worker(storage)
    _, ids = await start(storage, node("a"), node("b", 0))

    await storage.corrections.change(ids[1], Correction(priority=-7, timeout=timedelta(seconds=5)))
    with pytest.raises(WrongState, match="it waits for other nodes of its flow"):
        await storage.corrections.change(ids[1], Correction(delay=timedelta(0)))

    assert await states(storage, ids) == [State.PENDING, State.BLOCKED]
    await run(storage, me)
    [claimed] = await claim(storage, me)
    assert (claimed.job_id, claimed.priority) == (ids[1], -7)


async def test_a_node_that_ends_by_hand_hands_on(storage):
    _, ids = await start(storage, node("a"), node("b", 0))

    await storage.corrections.end(ids[0], State.DONE, result=b"1")

    assert await states(storage, ids) == [State.DONE, State.PENDING]


async def test_a_node_that_is_completed_in_a_transaction_hands_on_after_its_commit(storage, database):
    flow_id, ids = await start(storage, node("a"), node("b", 0))
    [claimed] = await claim(storage, await worker(storage))
    async with database.transaction() as connection:
        at = await storage.completions.complete(done(claimed, result=b"1"), connection=connection)
        assert at is not None

    proof = Completion(claimed.job_id, claimed.worker_id, claimed.attempt, at, Outcome.DONE)
    assert await storage.completions.fate(proof) is Fate.COMMITTED

    assert await states(storage, ids) == [State.DONE, State.PENDING]
    assert (await storage.flows.get(flow_id)).done == 1


async def test_a_node_that_was_completed_in_a_transaction_is_done_though_its_job_is_not_kept(
    storage, database, clock
):
    me = await worker(storage)
    await storage.queues.set("default", {"done_retention": timedelta(0)})
    flow_id, ids = await start(storage, node("a"), node("b", 0))
    [claimed] = await claim(storage, me)
    async with database.transaction() as connection:
        await storage.completions.complete(done(claimed, result=b"1"), connection=connection)
    epoch = await leader(storage)
    await clock.advance(seconds=1)

    await storage.history.sweep(epoch=epoch)  # the worker is gone before it has handed on
    await storage.flows.audit(epoch=epoch)

    assert await state(storage, ids[1]) is State.PENDING
    [second] = await claim(storage, me)
    await storage.claims.payload(second)
    assert second.node is not None and second.node.inputs[0].result == b"1"
    await storage.claims.finish([done(second)])
    await clock.advance(seconds=1)
    await storage.history.sweep(epoch=epoch)
    assert await storage.jobs.find(limit=10) == []
    assert await flow_state(storage, flow_id) is FlowState.DONE


async def test_a_flow_that_starts_in_a_transaction_shares_its_fate(storage, database):
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            await storage.flows.start(NewFlow("f", [node("a"), node("b", 0)]), connection=connection)
            raise RolledBack
    assert await storage.flows.all() == []

    async with database.transaction() as connection:
        _, ids = await storage.flows.start(NewFlow("f", [node("a"), node("b", 0)]), connection=connection)
    assert await states(storage, ids) == [State.PENDING, State.BLOCKED]


async def test_an_audit_of_what_is_well_mends_nothing(storage):
    await start(storage, node("a"), node("b", 0))

    assert await storage.flows.audit(epoch=await leader(storage)) == 0
