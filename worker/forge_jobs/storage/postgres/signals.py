"""Signals in PostgreSQL: functions that lock the row of the job first.

In them each statement sees what was committed before it. So of a signal and a wait that meet, the second one finds the first.
"""

from collections.abc import Sequence
from typing import Any

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import Claim
from forge_jobs.model.signal import (
    JobSignal,
    KeptSignal,
    NewSignal,
    NewWait,
    Recipient,
    Signalled,
    TokenFacts,
)
from forge_jobs.model.step import JobStep
from forge_jobs.storage.postgres import interventions, steps
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.leadership import LEADS

WAIT = f"""
SELECT {steps.STEP}
FROM {{schema}}.wait_for($1, $2, $3, $4, $5, $6::text[], $7, $8::double precision, $9) AS step
WHERE step.job_id IS NOT NULL
"""

SEND = """
SELECT job_id, answer
FROM {schema}.signal_bytes($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""

CODECS = """
WITH given AS (
    SELECT $1::bigint AS job_id WHERE $1 IS NOT NULL
    UNION ALL SELECT job_key.job_id FROM {schema}.job_key WHERE job_key.kind = $2 AND job_key.key = $3
    UNION ALL SELECT job_tag.job_id FROM {schema}.job_tag WHERE job_tag.tag = $4
)
SELECT DISTINCT job.kind, job.codec, CASE WHEN kind.sealed THEN kind.codec END
FROM given JOIN {schema}.job ON job.id = given.job_id LEFT JOIN {schema}.kind ON kind.kind = job.kind
WHERE ($2::text IS NULL OR job.kind = $2)
  AND (SELECT finished.job_id FROM {schema}.finished WHERE finished.job_id = given.job_id) IS NULL
"""

TOKEN_FACTS = """
SELECT statement_timestamp() AS now, origin,
       coalesce((SELECT replaced FROM {schema}.job WHERE id = $1), 0) AS replaced
FROM {schema}.revision
"""

TOKEN_FACTS_OF_CLAIM = (
    TOKEN_FACTS
    + "WHERE EXISTS (SELECT FROM {schema}.claimed WHERE job_id = $1 AND worker_id = $2 AND attempt = $3)"
)

OF_JOB = "SELECT name, at, step FROM {schema}.signal WHERE job_id = $1 ORDER BY id"

KEPT = "SELECT name, at, value, codec FROM {schema}.signal WHERE job_id = $1 AND step IS NULL ORDER BY id"

END_WAITS_FOR = "SELECT {schema}.end_waits_for($1, false)"

# Each waits for one job: the rows of those are looked up one by one, since the planner would read whole tables.
END_WAITS = """
SELECT (SELECT count(*) FILTER (WHERE {schema}.end_wait(over.job_id, true)) FROM (
           SELECT waiting.job_id FROM {schema}.waiting JOIN {schema}.job ON job.id = waiting.job_id
           WHERE waiting.for_job IS NOT NULL AND {leads} AND (
               (SELECT finished.job_id FROM {schema}.finished WHERE finished.job_id = waiting.for_job) IS NOT NULL
               OR (SELECT other.id FROM {schema}.job AS other WHERE other.id = waiting.for_job) IS NULL)
           LIMIT $1 FOR NO KEY UPDATE OF job SKIP LOCKED) AS over) AS ended,
       (SELECT count(*) FROM {schema}.waiting WHERE for_job IS NOT NULL) AS waiting
""".replace("{leads}", LEADS.replace("{epoch}", "$2"))


class PostgresSignals:
    """`Signals` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def wait(self, claim: Claim, wait: NewWait) -> JobStep | None:
        record = await self._database.fetchrow(
            WAIT,
            claim.job_id,
            claim.worker_id,
            claim.attempt,
            wait.number,
            wait.name,
            list(wait.signals) or None,
            wait.for_job,
            wait.timeout,
            wait.serial,
        )
        return None if record is None else steps.shown(record)

    async def send(
        self, to: Recipient, signal: NewSignal, *, connection: Any = None, by: str | None = None
    ) -> Sequence[tuple[int | None, Signalled]]:
        if by is None:
            return await self._sent(to, signal, connection is not None, connection)
        async with self._database.transaction(connection) as transaction:
            answers = await self._sent(to, signal, connection is not None, transaction)
            reached = [
                job_id
                for job_id, answer in answers
                if job_id is not None and answer in (Signalled.WOKEN, Signalled.KEPT)
            ]
            facts = reached, Deed.SIGNALLED, by, signal.name
            await interventions.note_all(self._database, transaction, *facts)
        return answers

    async def _sent(
        self, to: Recipient, signal: NewSignal, is_callers: bool, connection: Any
    ) -> Sequence[tuple[int | None, Signalled]]:
        records = await self._database.fetch(
            SEND,
            signal.name,
            signal.value,
            signal.codec,
            to.job_id,
            to.kind,
            to.key,
            to.tag,
            signal.mode.value,
            signal.token,
            is_callers,
            to.after,
            to.most,
            signal.of_replaced,
            connection=connection,
        )
        return [(job_id, Signalled(answer)) for job_id, answer in records]

    async def codecs(self, to: Recipient, *, connection: Any = None) -> Sequence[tuple[str, str, str | None]]:
        asked = to.job_id, to.kind, to.key, to.tag
        records = await self._database.fetch(CODECS, *asked, connection=connection)
        return [(kind, codec, sealed) for kind, codec, sealed in records]

    async def token_facts(
        self, job_id: int | None = None, *, claim: Claim | None = None, connection: Any = None
    ) -> TokenFacts | None:
        if claim is None:
            record = await self._database.fetchrow(TOKEN_FACTS, job_id, connection=connection)
        else:
            proof = claim.job_id, claim.worker_id, claim.attempt
            record = await self._database.fetchrow(TOKEN_FACTS_OF_CLAIM, *proof, connection=connection)
        return None if record is None else TokenFacts(*record)

    async def of_job(self, job_id: int) -> Sequence[JobSignal]:
        return [JobSignal(*record) for record in await self._database.fetch(OF_JOB, job_id)]

    async def end_waits_for(self, job_ids: Sequence[int]) -> None:
        await self._database.execute(END_WAITS_FOR, list(job_ids))

    async def end_waits(self, *, epoch: LeaderEpoch, limit: int = 1000) -> tuple[int, int]:
        record = await self._database.fetchrow(END_WAITS, limit, epoch)
        assert record is not None
        return record["ended"], record["waiting"] - record["ended"]


async def kept(database: PostgresDatabase, job_id: int, connection: Any = None) -> tuple[KeptSignal, ...]:
    """Return the signals of a job that no wait has taken, in their order."""
    records = await database.fetch(KEPT, job_id, connection=connection)
    return tuple(KeptSignal(*record) for record in records)
