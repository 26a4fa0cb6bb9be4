"""Who waits for flows learns how they have ended, and of those that somebody waits for all who listen are told."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from forge_jobs.model.flow import FlowState
from forge_jobs.storage.postgres import PostgresStorage
from tests.storage.ear import Ear
from tests.storage.factories import claim, dead, done, worker
from tests.storage.test_flows import node, start

ON_POSTGRES = pytest.mark.parametrize("database", ["postgres"], indirect=True)


async def test_those_that_have_ended_are_told_and_those_that_run_are_left_out(storage):
    me = await worker(storage)
    first, _ = await start(storage, node("a"), node("b", 0))
    second, _ = await start(storage, node("a"))
    third, _ = await start(storage, node("a"))
    [a, of_second, of_third] = await claim(storage, me)
    await storage.claims.finish([done(a), done(of_second), dead(of_third)])

    found = await storage.flow_ends.look([first, second, third, 10**12])

    assert {flow: end and end.state for flow, end in found.items()} == {
        second: FlowState.DONE,
        third: FlowState.DEAD,
        10**12: None,
    }
    assert found[second] == await storage.flows.get(second)
    assert await storage.flow_ends.look([]) == {}


@ON_POSTGRES
@pytest.mark.parametrize("way", ["done", "dead", "cancelled"])
async def test_whatever_ends_a_flow_that_somebody_waits_for_tells(storage, way):
    me = await worker(storage)
    flow, _ = await start(storage, node("a"), node("b", 0))
    assert storage.flow_ends.are_told
    async with Ear(storage) as ear:
        assert list(await storage.flow_ends.announce([flow, 10**12])) == [flow, 10**12]
        [a] = await claim(storage, me)
        if way == "cancelled":
            await storage.flows.cancel(flow)
        await storage.claims.finish([dead(a) if way == "dead" else done(a)])
        if way == "done":
            assert ("flow", str(flow)) not in ear.told
            await storage.claims.finish([done(one) for one in await claim(storage, me)])
        await ear.hears("flow", flow)
    assert ear.told.count(("flow", str(flow))) == 1
    assert (await storage.flows.get(flow)).state == way


@ON_POSTGRES
async def test_nobody_is_told_of_flows_that_nobody_waits_for(storage):
    me = await worker(storage)
    other, _ = await start(storage, node("a", priority=9))
    flow, _ = await start(storage, node("a", priority=3))
    async with Ear(storage) as ear:
        await storage.flow_ends.announce([other])
        for _ in range(2):
            await storage.claims.finish([done(one) for one in await claim(storage, me, limit=1)])
        await ear.hears("flow", other)
    assert ("flow", str(flow)) not in ear.told


@ON_POSTGRES
async def test_a_flow_ends_and_is_waited_for_at_one_moment_and_one_of_both_sees_the_other(storage, another):
    me, waiter = await worker(storage), await another()
    flows = [(await start(storage, node("a")))[0] for _ in range(100)]
    claims = await claim(storage, me)
    missed = []

    async def wait(flow):
        told = await waiter.flow_ends.announce([flow])
        if not await waiter.flow_ends.look([flow]) and flow in told:
            missed.append(str(flow))

    async with Ear(storage) as ear:
        for flow, claimed in zip(flows, claims, strict=True):
            await asyncio.gather(wait(flow), storage.claims.finish([done(claimed)]))
        for flow in missed:
            await ear.hears("flow", flow)


@ON_POSTGRES
async def test_a_flow_that_somebody_keeps_locked_holds_up_no_wait_for_others(storage, database):
    first, _ = await start(storage, node("a"))
    second, _ = await start(storage, node("a"))
    connection = await asyncpg.connect(database.url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM forge_jobs.flow WHERE id = $1 FOR UPDATE", first)
            async with asyncio.timeout(10):
                assert list(await storage.flow_ends.announce([first, second])) == [second]
    finally:
        await connection.close()
    assert list(await storage.flow_ends.announce([first, second])) == [first, second]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_nobody_is_told_where_a_notice_would_be_a_commit(storage):
    flow, _ = await start(storage, node("a", delay=timedelta(days=1)))
    assert not storage.flow_ends.are_told
    assert list(await storage.flow_ends.announce([flow])) == []


@ON_POSTGRES
async def test_where_nothing_may_be_written_a_flow_is_waited_for_by_looking(storage, database):
    flow, _ = await start(storage, node("a"))
    reader: Any = PostgresStorage(
        database.url.replace("options=", "options=-cdefault_transaction_read_only%3Don%20")
    )
    await reader.open()
    try:
        assert list(await reader.flow_ends.announce([flow])) == []
        assert await reader.flow_ends.look([flow]) == {}
        await storage.claims.finish([done(one) for one in await claim(storage, await worker(storage))])
        assert (await reader.flow_ends.look([flow]))[flow].state is FlowState.DONE
    finally:
        await reader.close()
