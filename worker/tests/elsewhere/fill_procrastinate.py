"""Fills a database as a program with procrastinate leaves it: python fill_procrastinate.py URL"""

# mypy: disable-error-code="untyped-decorator"

import asyncio
import datetime
import sys

import procrastinate
import psycopg

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=sys.argv[1]))


@app.task(name="send_email", queue="mail")
def send_email(to: str) -> None:
    """Is done elsewhere."""


@app.task(name="shop.ship", lock="orders")
def ship(order: int) -> None:
    """Is done elsewhere."""


@app.task(name="remind", queue="mail", priority=5)
def remind(cart: int) -> None:
    """Is done elsewhere."""


@app.task(name="flaky", queue="flaky", retry=procrastinate.RetryStrategy(max_attempts=9, wait=1_000_000_000))
def flaky(n: int) -> None:
    """Fails."""
    raise ValueError("not yet")


@app.task(name="broken", queue="flaky")
def broken(n: int) -> None:
    """Fails for good."""
    raise ValueError("never")


async def main() -> None:
    """Apply the schema, defer jobs, and let some of them fail."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await send_email.defer_async(to="ada@example.com")
        for order in (1, 2, 3):
            await ship.defer_async(order=order)
        at = datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC)
        await remind.configure(queueing_lock="cart:7", schedule_at=at).defer_async(cart=7)
        await flaky.defer_async(n=1)
        await broken.defer_async(n=1)
        await app.run_worker_async(queues=["flaky"], wait=False, install_signal_handlers=False)
        for order in (9, 10):
            await ship.configure(lock="busy").defer_async(order=order)
    async with await psycopg.AsyncConnection.connect(sys.argv[1], autocommit=True) as connection:
        # What a worker that was killed leaves behind.
        await connection.execute(
            "UPDATE procrastinate_jobs SET status = 'doing', attempts = 1 "
            "WHERE id = (SELECT min(id) FROM procrastinate_jobs WHERE lock = 'busy')"
        )


asyncio.run(main())
