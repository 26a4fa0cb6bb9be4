"""Codes that are of no use later than a moment, and a report that must not run for longer than it may.

python examples/time_limits.py
"""

import asyncio
from contextlib import suppress

from forge_jobs import Forge, JobDead, Worker

forge = Forge("sqlite://:memory:")


@forge.handler(start_by=0.5)
async def send_code(phone: str) -> None:
    """Send a code, which its owner waits for."""
    print(f"code for {phone}")


@forge.handler(deadline=1)
async def report(day: str) -> None:
    """Write a report, which takes too long today."""
    print(f"report of {day}")
    await asyncio.sleep(60)


async def main() -> None:
    """Enqueue a code that nobody sends in time, one that is sent, and a report."""
    async with forge:
        late = await send_code.enqueue(phone="1")
        await asyncio.sleep(0.6)
        jobs = [late, await send_code.enqueue(phone="2"), await report.enqueue(day="today")]
        await Worker(forge, queues=["default"]).run(until_empty=True)
        for job in jobs:
            with suppress(JobDead):
                await forge.wait(job, timeout=10)
            ended = await forge.jobs.get(job)
            print(f"{ended.kind} is {ended.state}{f': {ended.error}' if ended.error else ''}")


if __name__ == "__main__":
    asyncio.run(main())
