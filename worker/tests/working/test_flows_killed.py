"""Flows under kill -9: each node is done, each join once, and what was passed on is what was returned."""

import asyncio

from forge_jobs import FlowState, Forge
from tests.storage.databases import Database
from tests.working.flowing import flow
from tests.working.processes import Fleet

FLOWS = 12
NODES = (
    2 * (3 + 5 + 1) + 1
)  # of each side: the three of the chain, five items and their collector; and the join


async def test_flows_end_whole_though_workers_are_killed_at_any_moment(
    forge: Forge, database: Database, workers: Fleet
) -> None:
    await forge.queues.set("default", backoff_enabled=False)
    for handler in flow().nodes:
        if handler.handler.kind not in forge.handlers:
            forge.handlers.add(handler.handler)
    started = [await forge.flows.start(flow(), 10 * number) for number in range(FLOWS)]
    await workers.start_leader()

    running: list[asyncio.subprocess.Process] = []
    async with asyncio.timeout(150):
        while await forge.flows.list(state="running", limit=1):
            running = [worker for worker in running if worker.returncode is None]
            while len(running) < 2:
                running.append(await workers.start("--concurrency", "10", app="flowing:forge"))
            await asyncio.sleep(0.1)

    for number, one in enumerate(started):
        status = await forge.flows.get(one.id)
        assert (status.state, status.nodes, status.done) == (FlowState.DONE, NODES, NODES)
        summed = 2 * sum(10 * number + each for each in range(5))
        assert await forge.flows.wait(one) == {"both": [summed, summed]}
        assert len({node.name for node in await forge.flows.nodes(one.id)}) == NODES
