"""Each customer may ask so many questions a second, whoever else asks; and a heavy job leaves less room beside it.

python examples/limits.py
"""

import asyncio
from datetime import timedelta

from forge_jobs import Forge, KeyLimit, RateLimited, Worker

forge = Forge("sqlite://:memory:")


@forge.handler(limits=KeyLimit("model", by="customer"))
async def ask(customer: str, question: int) -> None:
    """Ask a model that counts the questions of each customer."""
    print(f"{customer} asks question {question}")


@forge.handler(slots=3)  # of the four that the worker has
async def train(customer: str) -> None:
    """Train a model, for which a worker has little memory."""
    print(f"a model is trained for {customer}")


async def look_up(customer: str) -> None:
    """Spend of the same limits where no job is, such as in a web request."""
    permit = await forge.limits.reserve("pages", customer, cost=2)
    try:
        await forge.limits.reserve("pages", customer, within=0)
    except RateLimited as error:
        print(f"{customer} has no tokens left for about {error.retry_after.total_seconds() / 60:.0f} minutes")
    await forge.limits.settle(permit, 0.5)  # it was cheaper than it might have been
    [hottest] = await forge.limits.hottest("pages")
    print(f"{hottest.key} has spent {hottest.spent:.1f}")


async def main() -> None:
    """Let two customers ask more than one of them may at once."""
    async with forge:
        await forge.queues.set("default", age_after=timedelta(minutes=5))  # waiting makes more urgent
        await forge.limits.set("model", 2, refill=10)  # of each customer two at once, and ten a second
        await forge.limits.set("pages", 2, per=timedelta(hours=1))
        await look_up("dan")

        jobs = await ask.enqueue_many([{"customer": "ann", "question": number} for number in range(1, 6)])
        jobs += [await ask.enqueue(customer="bob", question=1), await train.enqueue(customer="cyd")]
        worker = Worker(forge, queues=["default"], concurrency=4)
        working = asyncio.create_task(worker.run())
        await forge.wait_all(jobs, timeout=30)
        worker.stop()
        await working


if __name__ == "__main__":
    asyncio.run(main())
