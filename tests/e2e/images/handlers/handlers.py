"""Handlers that write what they do into a ledger, a table beside the jobs: who ran what, and when.

The suite counts rows of this table and nothing else. A line is written until it is there, also while
the database is away, and once: each has an id of its own. A second table says which of the jobs that
would go on for ever may end.
"""

import asyncio
import os
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from forge_jobs import Context, Forge

forge = Forge()

POD = os.environ.get("FORGE_POD_NAME", "")
VERSION = os.environ.get("FORGE_WORKER_VERSION", "")
BROKEN = os.environ.get("E2E_BROKEN", "")  # how this version is broken; "yes": it fails at everything
KINDS = os.environ.get("E2E_KINDS", "").split()  # what this version has a handler for besides
LINE = """
    INSERT INTO ledger (id, what, job_id, attempt, pod, version) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT DO NOTHING
"""
MAY_END = "SELECT FROM may_end WHERE job_id = $1"
# The driver's own error comes when a connection breaks while a statement on it is cancelled.
AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)

leaked: list[bytes] = []
pool: asyncpg.Pool | None = None
making = asyncio.Lock()


async def connect(dsn: str, **options: Any) -> asyncpg.Connection:
    """Return a connection by what the file with the URL says now."""
    url = Path(os.environ["FORGE_DATABASE_URL_FILE"]).read_text().strip()
    return await asyncpg.connect(url, **options)


async def connections() -> asyncpg.Pool:
    """Return the connections to the ledger, which are made at the first need."""
    global pool
    async with making:
        if pool is None:
            pool = await asyncpg.create_pool(min_size=0, max_size=2, command_timeout=10, connect=connect)
        return pool


async def asked(query: str, *parameters: Any) -> list[asyncpg.Record]:
    """Return the rows of a statement, however long it takes until the database answers."""
    while True:
        try:
            return await (await connections()).fetch(query, *parameters)
        except AWAY:
            await asyncio.sleep(0.5)


async def note(ctx: Context, what: str) -> None:
    """The ledger holds one more line."""
    id_: UUID = uuid4()
    await asked(LINE, id_, what, ctx.job_id, ctx.attempt, POD, VERSION)


async def take(ctx: Context, seconds: float | None) -> None:
    """So many seconds pass; None: as many as pass until the job may end."""
    if seconds is not None:
        await asyncio.sleep({"hangs": 86_400.0, "slow": 10 * seconds}.get(BROKEN, seconds))
        return
    while not await asked(MAY_END, ctx.job_id):
        await asyncio.sleep(0.5)


async def work(ctx: Context, seconds: float | None = 0.0, fail: bool = False) -> str:
    """Take so many seconds, and fail if that is asked for."""
    await note(ctx, "started")
    if BROKEN == "crashes":
        os._exit(1)
    if BROKEN == "leaks":
        leaked.append(b"x" * 50_000_000)  # written to, so that it is really there
    try:
        await take(ctx, seconds)
    except asyncio.CancelledError:
        await asyncio.shield(note(ctx, "stopped"))
        raise
    if fail or BROKEN == "yes":
        await note(ctx, "failed")
        raise RuntimeError("it was asked to fail" if fail else f"version {VERSION} is broken")
    await note(ctx, "ended")
    return VERSION


@forge.handler(pin="version")
async def onboard(ctx: Context, seconds: float = 0.0) -> str:
    """Begin on a version, wait to be approved, and end on the same."""
    await ctx.step("begin", note, ctx, "began")
    await ctx.wait_for("approved")
    await note(ctx, "ended")
    return VERSION


for kind in ("work", *KINDS):
    forge.handler(kind=kind)(work)
