"""A user's program whose handler goes through steps; some jobs kill their worker on the way."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import asyncpg

from forge_jobs import Context, Forge, Step

forge = Forge()

BOOK = "INSERT INTO book VALUES ({}, {})"

POINTS = ("calling", "called", "between", "beside", "booking", "booked", "committed", "awake", "last")
"""Where a job may kill its worker."""


@forge.handler(max_attempts=None)
async def walk(ctx: Context, kill: str | None = None, pause: float = 0.0) -> str:
    """Call, go two branches side by side, book, sleep and call once more; the first time that it comes to the point `kill`, it kills its worker."""

    async def reach(point: str) -> None:
        _perhaps_die(point, ctx, kill)
        if pause:
            await asyncio.sleep(random.uniform(0, pause))

    async def call(what: str, before: str, after: str) -> str:
        await reach(before)
        note(what, ctx)
        await reach(after)
        return what

    async def branch(name: str) -> None:
        for part in (f"{name} 1", f"{name} 2"):
            await ctx.step(part, call, part.replace(" ", "-"), "beside", "beside")

    called = await ctx.step("call", call, "call", "calling", "called")
    await reach("between")
    await asyncio.gather(branch("left"), branch("right"))
    await (_book_in_postgres if forge.storage.shared else _book_in_sqlite)(ctx, kill)
    await reach("committed")
    await ctx.sleep(0.1)
    await reach("awake")
    return called + str(await ctx.step("last", call, "last", "last", "last"))


WAIT_POINTS = ("asking", "leaving", "woken", "met")
"""Where a job that waits may kill its worker: before it waits, when its handler is left, when it is claimed again, before it has come to
a step, and when it goes on."""


@forge.handler(max_attempts=None)
async def consent(ctx: Context, timeout: float, kill: str | None = None) -> Any:
    """Wait for a signal, and return its value, or "nothing" when that does not come in time."""
    _perhaps_die("woken" if ctx.claim.steps else "asking", ctx, kill)
    try:
        value = await ctx.wait_for("approved", timeout=timeout)
    except TimeoutError:
        value = "nothing"
    except BaseException:
        _perhaps_die("leaving", ctx, kill)
        raise
    _perhaps_die("met", ctx, kill)
    return value


def note(what: str, ctx: Context) -> None:
    """Write down that an attempt does it, as the handlers of `program` do."""
    line = f"{what} {ctx.job_id} {ctx.attempt} {os.getpid()} {time.monotonic()}\n"
    descriptor = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


async def _book_in_postgres(ctx: Context, kill: str | None) -> None:
    connection = await asyncpg.connect(os.environ["FORGE_DATABASE_URL"])
    try:
        async with connection.transaction():

            async def book() -> None:
                _perhaps_die("booking", ctx, kill)
                await connection.execute(BOOK.format(ctx.job_id, ctx.attempt))

            await ctx.step(Step("book", connection=connection), book)
            _perhaps_die("booked", ctx, kill)
    finally:
        connection.terminate() if connection.is_in_transaction() else await connection.close()


async def _book_in_sqlite(ctx: Context, kill: str | None) -> None:
    path = os.environ["FORGE_DATABASE_URL"].removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")

        def book() -> None:
            _perhaps_die("booking", ctx, kill)
            connection.execute(BOOK.format(ctx.job_id, ctx.attempt))

        booking: Any = ctx.step(Step("book", connection=connection), book)
        with contextlib.suppress(StopIteration):
            booking.send(None)  # nothing is awaited between the lock and the commit
        _perhaps_die("booked", ctx, kill)
        connection.execute("COMMIT")


def _perhaps_die(point: str, ctx: Context, kill: str | None) -> None:
    ledger = Path(os.environ["LEDGER"])
    if kill == point and not (ledger.exists() and f"kill {ctx.job_id} " in ledger.read_text()):
        note("kill", ctx)
        os.kill(os.getpid(), signal.SIGKILL)
