"""A job that appears when the order does: both are in one transaction.

FORGE_DATABASE_URL=postgresql://user:password@host/shop python examples/orders.py
"""

import asyncio

import asyncpg

from forge_jobs import Forge, Worker

forge = Forge()


@forge.handler(queue="mail")
async def confirm(order: int) -> str:
    return f"order {order} is confirmed"


async def order(connection: asyncpg.Connection, item: str, *, in_stock: bool) -> int:
    """The order and its job are committed together, or neither is."""
    async with connection.transaction():
        number: int = await connection.fetchval(
            "INSERT INTO shop_order (item) VALUES ($1) RETURNING id", item
        )
        job = await confirm.options(connection=connection, key=f"order:{number}").enqueue(order=number)
        if not in_stock:
            raise LookupError(f"{item} is not in stock")  # rolls back both
    return job.id


async def main() -> None:
    if not forge.settings.database_url.startswith("postgres"):
        raise SystemExit(
            "This example needs a PostgreSQL: set FORGE_DATABASE_URL=postgresql://user:password@host/shop"
        )
    async with forge:
        connection = await asyncpg.connect(forge.settings.database_url)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS shop_order (id bigint GENERATED ALWAYS AS IDENTITY, item text)"
        )
        job_id = await order(connection, "a book", in_stock=True)
        try:
            await order(connection, "a bike", in_stock=False)
        except LookupError as error:
            print(error)
        await connection.close()
        await Worker(forge, queues=["mail"]).run(until_empty=True)
        print(await forge.wait(job_id))


if __name__ == "__main__":
    asyncio.run(main())
