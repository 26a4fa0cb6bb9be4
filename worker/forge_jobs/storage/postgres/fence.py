"""The epoch of the operator that writes, in PostgreSQL.

The row is locked before anything else: operators write one after the other, and one that takes
over waits for a write that has begun.
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
    """Give a connection in a transaction of the operator of this epoch; None: of one who is no operator. Raises PastEpoch."""
    async with database.transaction() as connection:
        if epoch is not None and not await database.fetchval(FENCE, epoch, connection=connection):
            raise PastEpoch(epoch)
        yield connection
