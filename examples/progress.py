"""A job that says how far it is, and goes on after a failure where it was.

python examples/progress.py
"""

import asyncio

from forge_jobs import Context, Forge, Worker

forge = Forge()
NAMES = ["ada", "bob", "cyd", "dan"]


@forge.handler
async def import_users(ctx: Context) -> int:
    done = ctx.state or 0  # None in the first attempt
    for number, name in enumerate(NAMES[done:], start=done + 1):
        print(f"attempt {ctx.attempt} imports {name}")
        await ctx.save(number)
        await ctx.progress(number / len(NAMES), f"{number} of {len(NAMES)} users")
        if number == 2 and ctx.attempt == 1:
            raise ConnectionError("the other side is gone")
    return len(NAMES)


async def main() -> None:
    async with forge:
        await forge.queues.set("default", backoff_enabled=False)
        job = await import_users.enqueue()
        await Worker(forge, queues=["default"]).run(until_empty=True)
        ended = await forge.jobs.get(job)
        if ended.progress is not None:
            print(f"{ended.progress.share:.0%}: {ended.progress.note}")
        print(f"imported: {await forge.wait(job)}")


if __name__ == "__main__":
    asyncio.run(main())
