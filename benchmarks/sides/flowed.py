"""forge-jobs with flows: chains of many steps, and joins of very many jobs."""

from typing import Any

from benchmarks.sides import forge as plain
from benchmarks.workload import QUEUE, Starts
from forge_jobs import Flow, Forge


def program(url: str, starts: Starts) -> tuple[Forge, Any, Any]:
    """Return a program with two handlers, which do nothing: a step, and a join."""
    forge = Forge(url)

    @forge.handler(queue=QUEUE)
    async def step(number: int) -> int:
        starts.one()
        return number + 1

    @forge.handler(queue=QUEUE)
    async def join(numbers: list[int]) -> int:
        starts.one()
        return len(numbers)

    return forge, step, join


async def chains(url: str, jobs: int, steps: int) -> None:
    """So many jobs wait in chains of this many steps."""
    forge, step, _ = program(url, Starts())
    async with forge:
        flow = Flow("chain")
        for number in range(steps):
            flow.and_then(step, name=f"step {number}")
        for number in range(jobs // steps):
            await flow.start(number)


async def fan_in(url: str, jobs: int) -> None:
    """All but one of so many jobs wait, and the last one for all of them."""
    forge, step, join = program(url, Starts())
    async with forge:
        flow = Flow("fan-in")
        nodes = [flow.node(step, name=f"step {number}", number=number) for number in range(jobs - 1)]
        flow.node(join).collects(*nodes)
        await flow.start()


async def work_through(url: str, jobs: int, is_pinned: bool = False) -> dict[str, Any]:
    """Run all jobs; with `is_pinned` while a transaction is open that sees the database as it was before."""
    starts = Starts()
    return await plain.through(program(url, starts)[0], starts, url, jobs, is_pinned=is_pinned)
