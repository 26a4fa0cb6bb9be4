"""Jobs that are there once: by a key, by what they say, for a time, and for ever.

python examples/keys.py
"""

import asyncio
from datetime import timedelta

from forge_jobs import Forge, Reschedule, Unique, Worker

forge = Forge()
rounds = 0


@forge.handler
async def remind(cart: int, items: int) -> None:
    print(f"cart {cart} has {items} items")


@forge.handler(unique=Unique(by="customer", within=timedelta(hours=1)))
async def report(customer: str, pages: int) -> None:
    print(f"a report of {pages} pages for {customer}")


@forge.handler(unique=Unique(by="page", debounce=0.2, max_wait=5))
async def index(page: str, version: int) -> None:
    print(f"version {version} of {page} is indexed")


@forge.handler(singleton=True)
async def sync() -> None:
    global rounds
    rounds += 1
    if rounds < 3:
        raise Reschedule(after=0.1)
    print(f"synchronised {rounds} times")


async def main() -> None:
    async with forge:
        for items in (1, 2, 3):  # the last one counts
            answer = await remind.options(key="cart:7", key_mode="replace").enqueue(cart=7, items=items)
        print(f"replaced: {answer.replaced}")

        for pages in (10, 20):  # the first one counts
            answer = await report.enqueue(customer="ada", pages=pages)
        print(f"duplicate: {answer.duplicate}, and other pages were asked for: {answer.payload_differs}")

        for version in (1, 2, 3):
            await index.enqueue(page="home", version=version)
        await sync.ensure()
        await sync.ensure()

        await remind.options(key="cart:8", delay=timedelta(hours=1)).enqueue(cart=8, items=1)
        print(f"cart 8: {await forge.jobs.remove('remind', 'cart:8')}")

        worker = asyncio.create_task(Worker(forge, queues=["default"]).run())
        while await forge.jobs.count(state=["pending", "scheduled", "in_progress"]):
            await asyncio.sleep(0.05)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
