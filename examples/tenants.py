"""A customer with very many reports does not keep the others waiting: they take turns.

python examples/tenants.py
"""

import asyncio

from forge_jobs import Forge, Worker

forge = Forge("sqlite://:memory:")


@forge.handler(fair_by="customer")
async def report(customer: str, number: int) -> None:
    """Write a report for a customer."""
    print(f"{customer} {number}")


async def main() -> None:
    """Enqueue the reports of three customers one after the other, and work until none is left."""
    async with forge:
        await forge.tenants.set_weight("cyd", 2, queue="default")  # who pays for two turns
        for customer, reports in (("ada", 100), ("bob", 3), ("cyd", 6)):
            await report.enqueue_many([{"customer": customer, "number": n} for n in range(1, reports + 1)])
        for tenant in await forge.tenants.list():
            print(f"{tenant.tenant}: weight {tenant.weight:g}, about {tenant.waiting} jobs wait")
        await Worker(forge, queues=["default"], concurrency=1).run(until_empty=True)


if __name__ == "__main__":
    asyncio.run(main())
