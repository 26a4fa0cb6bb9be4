"""Whatever people do to single jobs of a flow, or to many at once, the flow knows it, and ends."""

import asyncio
import random
from contextlib import suppress
from datetime import timedelta

import pytest

from forge_jobs.errors import JobNotFound, WrongState
from forge_jobs.model.flow import FlowState, OnDead
from forge_jobs.model.job import State
from forge_jobs.model.match import Move
from tests.storage.factories import claim, dead, done, leader, move_all, patiently, state, worker
from tests.storage.test_flows import flow_state, node, run, start, states


async def test_to_retry_all_dead_jobs_begins_no_node_before_those_that_it_needs(storage):
    _, ids = await start(storage, node("charge"), node("ship", 0), node("mail", 1))
    await run(storage, await worker(storage), dead)

    moved = [one async for one in move_all(storage, Move.RETRY, State.DEAD)]

    assert (sum(one.changed for one in moved), sum(one.skipped for one in moved)) == (0, 3)
    assert await states(storage, ids) == [State.DEAD] * 3


async def test_a_dead_node_is_not_retried_without_its_flow(storage):
    flow_id, ids = await start(storage, node("a"), node("b", 0))
    await run(storage, await worker(storage), dead)

    for one in ids:
        with pytest.raises(WrongState, match="it is a node of a flow, which goes on from it"):
            await storage.jobs.retry(one)

    assert await states(storage, ids) == [State.DEAD, State.DEAD]
    await storage.flows.retry(flow_id)
    assert await states(storage, ids) == [State.PENDING, State.BLOCKED]


async def test_a_dead_node_that_is_completed_by_hand_counts_when_its_flow_is_retried(storage):
    flow_id, ids = await start(storage, node("a"), node("b", 0))
    await run(storage, await worker(storage), dead)
    await storage.corrections.end(ids[0], State.DONE, result=b"1")
    assert await flow_state(storage, flow_id) is FlowState.DEAD

    await storage.flows.retry(flow_id)

    assert await states(storage, ids) == [State.DONE, State.PENDING]


async def test_a_cancelled_flow_of_which_all_nodes_are_done_is_done_when_it_is_retried(storage):
    me = await worker(storage)
    flow_id, _ = await start(storage, node("a"))
    [running] = await claim(storage, me)
    await storage.flows.cancel(flow_id)
    await storage.claims.finish([done(running)])
    assert await flow_state(storage, flow_id) is FlowState.CANCELLED

    await storage.flows.retry(flow_id)

    assert await flow_state(storage, flow_id) is FlowState.DONE


async def test_a_node_that_is_completed_by_hand_is_done_though_its_queue_keeps_none(storage):
    await storage.queues.set("default", {"done_retention": timedelta(0)})
    _, ids = await start(storage, node("a"), node("b", 0))

    await storage.corrections.end(ids[0], State.DONE, result=b"1")

    assert await state(storage, ids[1]) is State.PENDING


async def test_a_node_that_is_cancelled_says_so_though_its_queue_keeps_no_dead(storage):
    await storage.queues.set("default", {"dead_retention": timedelta(0)})
    flow_id, ids = await start(storage, node("a"), node("b", 0))

    await storage.jobs.cancel(ids[0])

    assert (await storage.flows.nodes(flow_id))[0].error == "cancelled by user"


async def test_as_many_flows_are_forgotten_at_once_as_one_asks(storage, clock):
    me = await worker(storage)
    for _ in range(5):
        await start(storage, node("a"))
    await storage.claims.finish([done(one) for one in await claim(storage, me, limit=5)])
    epoch = await leader(storage)
    await clock.advance(seconds=8 * 86_400)
    await storage.history.sweep(epoch=epoch)

    assert [await storage.flows.forget(epoch=epoch, limit=2) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize("seed", range(2))
async def test_flows_end_whatever_people_do_to_them_at_once(storage, seed):
    me = await worker(storage)
    flows = [
        await start(
            storage,
            *(node(f"n{number}") for number in range(6)),
            node("join", *range(6)),
            node("next", 6, on_dead=OnDead.CONTINUE),
            node("last", 7),
        )
        for _ in range(6)
    ]

    async def meddle(number):
        dice = random.Random(f"{seed} {number}")
        for _ in range(30):
            flow_id, ids = dice.choice(flows)
            one = dice.choice(ids)
            claimed = await claim(storage, me, limit=dice.randint(1, 8))
            await patiently(
                storage.claims.finish, [dice.choice([dead, done, done, done])(each) for each in claimed]
            )
            moves = [storage.flows.cancel, storage.flows.retry, storage.jobs.cancel, storage.jobs.delete]
            move = dice.choices(moves, [2, 4, 2, 1])[0]
            with suppress(WrongState, JobNotFound):
                await move(flow_id if move in moves[:2] else one)

    await asyncio.gather(*(meddle(number) for number in range(6)))
    while claimed := await claim(storage, me, limit=100):
        await storage.claims.finish([done(each) for each in claimed])

    assert await storage.flows.audit(epoch=await leader(storage)) == 0
    assert FlowState.RUNNING not in [await flow_state(storage, flow_id) for flow_id, _ in flows]
