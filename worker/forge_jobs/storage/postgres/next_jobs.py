"""Moves of all jobs that match, in PostgreSQL: the next ones of a state, as a part of a transaction."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from forge_jobs.errors import KeyBusy
from forge_jobs.model.facts import Moved
from forge_jobs.model.job import ENDED, State
from forge_jobs.model.match import Move
from forge_jobs.storage.postgres import interventions, key_wait
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.moves import STATEMENTS
from forge_jobs.storage.postgres.session_settings import PLANNED_AS_WALKS
from forge_jobs.storage.postgres.statement import filled
from forge_jobs.storage.postgres.walks import of_batch

_KEYS = """
WITH {pick}wanted AS (
    SELECT id, kind, key FROM {schema}.job WHERE id = ANY (ARRAY(SELECT job_id FROM meant)) AND key IS NOT NULL
)
SELECT kind, key FROM wanted ORDER BY kind, key, id
"""


def _noted(move: Move, state: State) -> str:
    """Return the statement, which notes what it does as a part of an operation."""
    becomes = {Move.CANCEL: "'dead'", Move.RETRY: "'pending'", Move.DELETE: "NULL"}.get(move, f"'{state}'")
    moves = "gone AS moves"
    if move is Move.CANCEL and state is State.IN_PROGRESS:
        becomes, moves = f"'{state}'", "flagged AS moves"
    note = filled(interventions.OF_OPERATION, was=state.value, becomes=becomes, moves=moves)
    return STATEMENTS[move].replace("\nSELECT {answer}", note, 1)


@lru_cache(maxsize=256)
def of_all(
    move: Move, state: State, *, tagged: bool = False, into: int | None = None, priority: int | None = None
) -> str:
    """Return the statement that makes the move with the next jobs of a state; see `walks.of_batch`."""
    statement = filled(_noted(move, state), into=str(into), priority=str(priority))
    other = f"coalesce(job.asked_priority, job.priority) <> {priority}" if move is Move.REPRIORITISE else None
    return of_batch(statement, state, tagged=tagged, of_job=other)


@dataclass(frozen=True, slots=True)
class NextJobs:
    """The next jobs of a state, and what is done to them."""

    move: Move
    state: State
    tagged: bool
    arguments: tuple[object, ...]  # of the walk
    into: int | None = None
    priority: int | None = None

    @staticmethod
    async def prepare(database: PostgresDatabase, connection: Any) -> None:
        """Batches in this transaction walk along indexes, and wait for no lock for long."""
        await database.execute(PLANNED_AS_WALKS, connection=connection)
        await key_wait.bound(connection)

    async def made(self, database: PostgresDatabase, connection: Any) -> tuple[Moved | None, Any]:
        """The move is made, as a part of this transaction; return what was done, None when no job was met, and the record of
        the walk: how many rows were `seen`, where the `last` one stands, and which groups have to be admitted to `again`.
        """
        statement = of_all(self.move, self.state, tagged=self.tagged, into=self.into, priority=self.priority)
        record: Any = await database.fetchrow(statement, *self.arguments, connection=connection)
        if not record["meant"]:
            return None, record
        moved, met = record["moved"], record["met"]
        return Moved(moved, met - moved, record["meant"] - met), record

    async def key_busy(self, database: PostgresDatabase) -> KeyBusy:
        """Return the error that names the key which was not given."""
        if self.move is Move.RETRY and self.state in ENDED:
            statement = of_batch(_KEYS, self.state, tagged=self.tagged)
            async with database.transaction() as connection:
                await database.execute(PLANNED_AS_WALKS, connection=connection)
                keys = await database.fetch(statement, *self.arguments, connection=connection)
            if keys:
                return await key_wait.busy(
                    database, [(row["kind"], row["key"]) for row in keys], undone="changed"
                )
        return KeyBusy(None, None, key_wait.KEY_WAIT, undone="changed")
