"""A job in steps: what was done is not done again when an attempt fails, and a sleep holds no worker.

python examples/steps.py
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from forge_jobs import Context, Forge, Step, Worker

forge = Forge()


@dataclass
class Receipt:
    order: int
    cents: int


async def charge(order: int, cents: int) -> Receipt:
    print(f"charges order {order}")
    return Receipt(order, cents)


async def reserve(order: int) -> str:
    print(f"reserves a courier for order {order}")
    return f"parcel-{order}"


async def mail(text: str) -> None:
    print(f"mails: {text}")


@forge.handler
async def fulfil(ctx: Context, order: int) -> str:
    receipt = await ctx.step("charge", charge, order, cents=500)
    if ctx.attempt == 1:
        raise ConnectionError("the courier's server is away")
    parcel = await ctx.step(Step("reserve", attempts=3, timeout=30), reserve, order)
    await ctx.step("mail", mail, f"{receipt.cents} cents received, {parcel} is on its way")
    await ctx.sleep(timedelta(seconds=1), "a while")  # it may be days
    await ctx.step("ask", lambda: mail(f"how was {parcel}?"))
    return parcel


async def main() -> None:
    async with forge:
        await forge.queues.set("default", backoff_enabled=False)
        job = await fulfil.enqueue(order=7)
        worker = asyncio.create_task(Worker(forge, queues=["default"]).run())
        print(f"fulfilled: {await forge.wait(job)}")
        for step in (await forge.jobs.get(job)).steps:
            print(f"{step.number}. {step.name}, in attempt {step.attempt}")
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
