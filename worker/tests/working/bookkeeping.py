"""A user's program whose handler books its job in a table and completes it, in one transaction; some jobs kill their worker on the way."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
from typing import Any

import asyncpg

from forge_jobs import Context, Forge

forge = Forge()

POINTS = ("before", "booked", "completed", "committed")  # where a job may kill its worker

MAKE_BOOK = (
    # the tables of a program stay between tests; without a key, so that what is booked twice is seen
    "DROP TABLE IF EXISTS book; CREATE TABLE book (job_id bigint, attempt integer)"
)
BOOK = "INSERT INTO book VALUES ({}, {})"


@forge.handler(max_attempts=None)
async def book(ctx: Context, kill: str | None = None, freeze: str | None = None, pause: float = 0.0) -> None:
    """Book the job, once; in its first attempt it kills its worker at the point `kill`, or freezes it at `freeze`."""
    if freeze is not None and ctx.attempt == 1:
        await _book_in_postgres(ctx, freeze, pause, signal.SIGSTOP)
        return
    await _reach("before", ctx, kill, pause)
    if forge.storage.shared:
        await _book_in_postgres(ctx, kill, pause)
    else:
        _book_in_sqlite(ctx, kill)
    await _reach("committed", ctx, kill, pause)


async def _book_in_postgres(
    ctx: Context, kill: str | None, pause: float, number: signal.Signals = signal.SIGKILL
) -> None:
    connection = await asyncpg.connect(os.environ["FORGE_DATABASE_URL"])
    try:
        async with connection.transaction():
            await connection.execute(BOOK.format(ctx.job_id, ctx.attempt))
            await _reach("booked", ctx, kill, pause, number)
            await ctx.complete(connection)
            await _reach("completed", ctx, kill, pause, number)
    finally:
        connection.terminate() if connection.is_in_transaction() else await connection.close()


def _book_in_sqlite(ctx: Context, kill: str | None) -> None:
    path = os.environ["FORGE_DATABASE_URL"].removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(BOOK.format(ctx.job_id, ctx.attempt))
        _perhaps_die("booked", ctx, kill)
        completing: Any = ctx.complete(connection)
        with contextlib.suppress(StopIteration):
            completing.send(None)  # nothing is awaited between the lock and the commit
        _perhaps_die("completed", ctx, kill)
        connection.execute("COMMIT")


async def _reach(
    point: str, ctx: Context, kill: str | None, pause: float, number: signal.Signals = signal.SIGKILL
) -> None:
    _perhaps_die(point, ctx, kill, number)
    if pause:
        await asyncio.sleep(random.uniform(0, pause))


def _perhaps_die(point: str, ctx: Context, kill: str | None, number: signal.Signals = signal.SIGKILL) -> None:
    if kill == point and ctx.attempt == 1:
        os.kill(os.getpid(), number)
