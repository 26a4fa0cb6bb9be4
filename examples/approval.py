"""A job that waits for a person: it holds no worker until somebody answers, or the time is over.

python examples/approval.py
"""

import asyncio
from datetime import timedelta

from forge_jobs import Context, Forge, NoSignal, State, Worker

forge = Forge()


async def ask(order: int) -> None:
    print(f"asks whether order {order} may be shipped")


async def ship(order: int, by: str) -> str:
    print(f"ships order {order}")
    return f"order {order}, approved by {by}"


@forge.handler
async def fulfil(ctx: Context, order: int, patience: float) -> str:
    await ctx.step("ask", ask, order)
    try:
        approval = await ctx.wait_for("approved", timeout=timedelta(seconds=patience))
    except NoSignal:
        return f"order {order}: nobody has answered"
    return await ctx.step("ship", ship, order, approval["by"])


async def main() -> None:
    async with forge:
        worker = asyncio.create_task(Worker(forge, queues=["default"], concurrency=1).run())
        answered = await fulfil.enqueue(order=7, patience=3 * 86_400)
        while (await forge.jobs.get(answered)).state is not State.WAITING:
            await asyncio.sleep(0.05)
        print((await forge.jobs.why(answered)).reasons[0].partition(" since ")[0])
        print(await forge.signal("approved", {"by": "ada"}, job=answered))
        print(await forge.signal("approved", {"by": "bob"}, job=answered))
        print(await forge.wait(answered))
        print(await forge.wait(await fulfil.enqueue(order=8, patience=0.5)))
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
