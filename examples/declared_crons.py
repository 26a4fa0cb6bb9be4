"""Crons that the code declares, beside the handler that they are for.

python examples/declared_crons.py
"""

import asyncio
from datetime import timedelta

from forge_jobs import Cron, Forge, every
from forge_jobs.testing import run_due_jobs, use_test_database

forge = Forge()


@forge.handler(cron=every.day(at="03:00"))
async def clean_up() -> None:
    """Throw away what nobody needs."""
    print("clean up")


@forge.handler(
    cron=[
        Cron("0 8 * * mon", payload={"days": 7}, timezone="Europe/Berlin"),
        Cron("0 8 1 * *", name="monthly", payload={"days": 31}, timezone="Europe/Berlin"),
    ]
)
async def report(days: int) -> None:
    """Write a report of some days."""
    print(f"report {days} days")


async def main() -> None:
    """Let five weeks go by, a day at a time."""
    async with use_test_database(forge) as clock:
        for cron in await forge.crons.list():
            print(f"{cron.name}: {cron.expression}")
        for _ in range(35):
            clock.advance(timedelta(days=1))
            await run_due_jobs(forge)


if __name__ == "__main__":
    asyncio.run(main())
