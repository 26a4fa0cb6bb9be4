"""The epoch of the operator that writes, in PostgreSQL.

The row is locked before anything else: writes of operators come one after the other, and who
takes over waits for the write that goes on.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from forge_jobs.errors import PastEpoch
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.storage.postgres.connection import PostgresDatabase

FENCE = "SELECT true FROM {schema}.operator WHERE epoch = $1 FOR UPDATE"


@asynccontextmanager
async def writing(database: PostgresDatabase, epoch: OperatorEpoch | None) -> AsyncIterator[Any]:
    """Give a connection in a transaction of an operator (None: of anybody else). Raises PastEpoch."""
    async with database.transaction() as connection:
        if epoch is not None and not await database.fetchval(FENCE, epoch, connection=connection):
            raise PastEpoch(epoch)
        yield connection
