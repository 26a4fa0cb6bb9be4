"""A cron, a rate limit, and a handler that knows when to give up.

python examples/nightly.py
"""

import asyncio
from datetime import timedelta

from forge_jobs import Context, Dead, Forge, Worker

forge = Forge()
CHANNELS = {"general": 200, "random": 50, "closed": None}


@forge.handler(queue="reports")
async def report_everywhere(ctx: Context) -> int:
    """The cron's job: it enqueues one job for each channel."""
    jobs = await forge.enqueue_many("report", [{"channel": channel} for channel in CHANNELS])
    return len(jobs)


@forge.handler(queue="reports", max_attempts=3)
async def report(ctx: Context, channel: str) -> str:
    members = CHANNELS[channel]
    if members is None:
        raise Dead(f"channel {channel!r} is closed")  # a retry would not help
    await ctx.rate_limit.acquire("chat", wait=10)
    return f"told {members} members of {channel}"


async def main() -> None:
    async with forge:
        await forge.limits.set("chat", 1, per=timedelta(seconds=1))
        await forge.crons.set(
            "nightly", "0 3 * * *", kind="report_everywhere", queue="reports", timezone="Europe/Berlin"
        )
        await forge.crons.trigger("nightly")  # once now, so that there is something to see
        await Worker(forge, queues=["reports"]).run(until_empty=True)
        for job in reversed(await forge.jobs.list(kind="report")):
            print(job.state, (job.result or b"").decode() or job.error)


if __name__ == "__main__":
    asyncio.run(main())
