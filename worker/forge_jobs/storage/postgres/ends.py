"""The ends of jobs in PostgreSQL: looked up by their ids, and told by notifications that carry ids."""

from collections.abc import Mapping, Sequence

from forge_jobs.model.job import EndedJob, State
from forge_jobs.storage.interface.ends import ThreadsEar
from forge_jobs.storage.postgres.connection import PostgresDatabase

# Each is looked up by an index: as a join by `=` the planner might read whole tables.
LOOK = """
SELECT given.id, job.codec, finished.state, finished.error, coalesce(finished.result, saved_state.result)
FROM unnest($1::bigint[]) AS given (id)
LEFT JOIN {schema}.job ON job.id BETWEEN given.id AND given.id
LEFT JOIN {schema}.finished ON finished.job_id BETWEEN given.id AND given.id
LEFT JOIN {schema}.saved_state ON saved_state.job_id BETWEEN finished.job_id AND finished.job_id
WHERE job.id IS NULL OR finished.job_id IS NOT NULL
"""

# What a crash of the server loses is found by looking, so nobody waits for the disk.
TELL = """
SELECT {schema}.tell($1::text || ':' || ids), set_config('synchronous_commit', 'off', true)
FROM unnest($2::text[]) AS ids
"""

AT_ONCE = 350
"""Ids in one notification, which has room for 8,000 bytes."""


class PostgresEnds:
    """`Ends` in PostgreSQL."""

    subject, notice = "job", "ended"

    def __init__(self, database: PostgresDatabase, ear: ThreadsEar | None = None) -> None:
        self._database = database
        self.ear = ear

    @property
    def are_told(self) -> bool:
        return not self._database.pooled

    async def look(self, ids: Sequence[int]) -> Mapping[int, EndedJob | None]:
        records = await self._database.fetch(LOOK, list(ids))
        return {
            job_id: None if codec is None else EndedJob(State(state), codec, result, error)
            for job_id, codec, state, error, result in records
        }

    async def announce(self, ids: Sequence[int]) -> Sequence[int]:
        await self._tell("wait", ids)
        return ids

    async def tell(self, job_ids: Sequence[int]) -> None:
        await self._tell("ended", job_ids)

    async def _tell(self, kind: str, job_ids: Sequence[int]) -> None:
        notices = [
            ",".join(map(str, job_ids[start : start + AT_ONCE])) for start in range(0, len(job_ids), AT_ONCE)
        ]
        await self._database.execute(TELL, kind, notices)
