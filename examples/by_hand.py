"""One order was paid in cash, one was withdrawn, and one has to wait: their jobs are ended and changed by hand.

python examples/by_hand.py
"""

import asyncio
from datetime import timedelta

from forge_jobs import Forge, Worker
from forge_jobs.errors import JobDead

forge = Forge("sqlite://:memory:")


@forge.handler
async def charge(order: int) -> str:
    """Charge an order's card."""
    return f"order {order} was charged"


async def main() -> None:
    """End two jobs by hand, change a third, and run what is left."""
    async with forge:
        paid, withdrawn, waiting = [
            await charge.options(key=f"order:{n}").enqueue(order=n) for n in (1, 2, 3)
        ]

        await forge.jobs.complete(paid, "order 1 was paid in cash")
        await forge.jobs.fail(withdrawn, "the customer withdrew it")
        await forge.jobs.change(waiting, delay=timedelta(days=1), priority=-5)

        print(await forge.wait(paid))
        try:
            await forge.wait(withdrawn)
        except JobDead as error:
            print(error)
        job = await forge.jobs.get(waiting)
        print(f"job {job.id} is {job.state}, with priority {job.priority}")

        await forge.jobs.change(waiting, delay=0)
        await Worker(forge, queues=["default"]).run(until_empty=True)
        print(await forge.wait(waiting))


if __name__ == "__main__":
    asyncio.run(main())
