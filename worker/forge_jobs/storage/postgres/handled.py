"""Handled kinds in PostgreSQL: those for which whoever serves a queue has a handler. And the jobs of other kinds."""

from forge_jobs.model.job import Unhandled
from forge_jobs.storage.postgres.connection import PostgresDatabase

HANDLED = "SELECT queue, kinds FROM {schema}.handled"

UNHANDLED = "SELECT queue, kind, pending, due, paused FROM {schema}.unhandled ORDER BY queue, pending + due DESC, kind"


async def handled(database: PostgresDatabase) -> dict[str, frozenset[str]]:
    """Return the handled kinds by queue; a queue of which they are not known is left out."""
    return {queue: frozenset(kinds) for queue, kinds in await database.fetch(HANDLED)}


async def unhandled(database: PostgresDatabase) -> list[Unhandled]:
    """Return the jobs that wait in vain, by queue."""
    return [Unhandled(**record) for record in await database.fetch(UNHANDLED)]
