"""An order comes with its job, and a booking with the completion of the job: each pair is one commit.

The shop is a program without an event loop, the worker is not; both use the file of the jobs.
`python examples/bookings.py` needs nothing else.
"""

import asyncio
import sqlite3
from contextlib import closing

from forge_jobs import Context, Forge, Worker

forge = Forge()


def connected() -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(forge.settings.database_url.removeprefix("sqlite:///"), timeout=30))


def order(item: str) -> None:
    """The order is there with its job, or neither is."""
    with connected() as connection, connection:
        number = connection.execute("INSERT INTO shop_order (item) VALUES (?)", (item,)).lastrowid
        forge.enqueue_sync("book", {"number": number}, key=f"order:{number}", connection=connection)
        if item == "a bike":
            raise LookupError(f"{item} is not in stock")  # rolls back both


@forge.handler
def book(ctx: Context, number: int) -> None:
    """The order is booked once, however often the worker dies."""
    with connected() as connection, connection:
        connection.execute("INSERT INTO booking VALUES (?, ?)", (number, ctx.attempt))
        ctx.complete(connection, result=f"order {number} is booked")


async def main() -> None:
    async with forge:
        with connected() as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS shop_order (id integer PRIMARY KEY, item text)")
            connection.execute("CREATE TABLE IF NOT EXISTS booking (order_id integer, attempt integer)")
        order("a book")
        try:
            order("a bike")
        except LookupError as error:
            print(error)
        await Worker(forge, queues=["default"]).run(until_empty=True)
        [job] = await forge.jobs.list(kind="book")
        print(await forge.wait(job.id))
        with connected() as connection:
            print("bookings:", connection.execute("SELECT count(*) FROM booking").fetchone()[0])


if __name__ == "__main__":
    asyncio.run(main())
