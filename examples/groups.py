"""Orders of each customer are worked on one after the other, and those of all customers three at a time.

python examples/groups.py
"""

import asyncio

from forge_jobs import Forge, Group, Worker

forge = Forge("sqlite://:memory:")
running: list[str] = []


@forge.handler(group=lambda customer: [f"customer:{customer}", Group("everybody", limit=3)])
async def ship(customer: str, order: int) -> None:
    """Ship an order, which must not overtake the customer's last one."""
    running.append(customer)
    assert running.count(customer) == 1 and len(running) <= 3
    await asyncio.sleep(0.01)
    running.remove(customer)
    print(f"{customer} {order}")


async def main() -> None:
    """Enqueue twelve orders of four customers, and work until none is left."""
    async with forge:
        for order in range(1, 4):
            for customer in ("ada", "bob", "cyd", "dan"):
                await ship.enqueue(customer=customer, order=order)
        for group in await forge.groups.list():
            print(f"{group.name}: {group.occupants} of {group.limit}")
        await Worker(forge, queues=["default"], concurrency=10).run(until_empty=True)


if __name__ == "__main__":
    asyncio.run(main())
