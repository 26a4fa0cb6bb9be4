"""Jobs in PostgreSQL: enqueued, looked at, and moved by people."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from forge_jobs.errors import ForgeError, JobNotFound
from forge_jobs.model.facts import Waiting
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import (
    ENDED,
    WAITING,
    Alike,
    Cancelled,
    Counts,
    Enqueued,
    Job,
    NewJob,
    State,
    Unhandled,
)
from forge_jobs.storage import refusals
from forge_jobs.storage.interface.jobs import AHEAD_LIMIT
from forge_jobs.storage.postgres import (
    endings,
    enqueue,
    flows,
    groups,
    handled,
    job_rows,
    pins,
    signals,
    steps,
    tags,
)
from forge_jobs.storage.postgres.buckets import FILLED
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.job_filter import argument
from forge_jobs.storage.postgres.moves import CANCEL, COUNT, DELETE, RETRY, RUN_NOW, Noted, move
from forge_jobs.storage.postgres.queues import QUEUE_COLUMNS, queue_config
from forge_jobs.storage.postgres.schedule import join
from forge_jobs.storage.postgres.tally import fold

ENQUEUED_AT = "SELECT created_at FROM {schema}.job WHERE id = $1"

NEWEST = "SELECT coalesce(max(id), 0) FROM {schema}.job"
LAST_ID = 2**63 - 1

COUNTS = """
SELECT queue, pending, scheduled, blocked, waiting, in_progress, done, dead, expired,
       timestamptz 'epoch' + oldest_since * interval '1 microsecond' AS oldest_pending_at
FROM {schema}.depth ORDER BY queue
"""

WAITING_FACTS = (
    """
SELECT {columns}, now() AS now, held.slots, held.slots_held,
    timestamptz 'epoch' + coalesce(place.since, place.pos) * interval '1 microsecond' AS ready_at,
    (SELECT max(at) FROM (
        SELECT max(claimed_at) AS at FROM {schema}.claimed WHERE claimed.queue_id = queue.id
        UNION ALL (SELECT done.started_at
                   FROM {schema}.done_together AS dated CROSS JOIN LATERAL {dated_jobs}
                   WHERE dated.queue_id = queue.id
                   ORDER BY dated.at DESC LIMIT 1)
        UNION ALL (SELECT started_at FROM {schema}.finished
                   WHERE finished.queue_id = queue.id AND finished.state <> 'done'
                   ORDER BY finished_at DESC LIMIT 1)) AS taken) AS taken_at,
    (SELECT ({filled})::double precision FROM {schema}.rate_limit WHERE rate_limit.scope = queue.rate_limit) AS tokens,
    before.ahead, before.ahead_of_tenant
FROM {schema}.job
JOIN {schema}.queue ON queue.id = job.queue_id
LEFT JOIN LATERAL (SELECT pos, since FROM {schema}.ready WHERE ready.ctid = {schema}.place($1)) AS place ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS ahead, count(*) FILTER (WHERE job.tenant IS NOT NULL AND (
               SELECT other.tenant FROM {schema}.job AS other WHERE other.id = first.job_id) = job.tenant) AS ahead_of_tenant
    FROM (
        SELECT ready.job_id FROM {schema}.ready
        WHERE ready.queue_id = job.queue_id AND (ready.priority, ready.pos) < (job.priority, coalesce(
            place.pos, (SELECT {schema}.micros(run_at) FROM {schema}.scheduled WHERE scheduled.job_id = $1), 0))
        LIMIT {limit}) AS first
) AS before
CROSS JOIN LATERAL (
    SELECT count(*) AS slots, count(slot.worker_id) AS slots_held FROM {schema}.slot WHERE slot.queue_id = queue.id
) AS held
WHERE job.id = $1
""".replace("{columns}", QUEUE_COLUMNS)
    .replace("{dated_jobs}", endings.DATED_JOBS)
    .replace("{filled}", FILLED)
    .replace("{limit}", str(AHEAD_LIMIT))
)


class PostgresJobs:
    """`Jobs` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def enqueue(self, job: NewJob, *, connection: Any = None) -> Enqueued:
        return await enqueue.enqueue(self._database, job, connection)

    async def enqueue_many(self, jobs: Sequence[NewJob] | Alike, *, connection: Any = None) -> list[Enqueued]:
        return await enqueue.enqueue_many(self._database, jobs, connection)

    async def get(self, job_id: int, *, connection: Any = None) -> Job:
        record = await self._database.fetchrow(job_rows.ONE, job_id, connection=connection)
        if record is None:
            raise JobNotFound(job_id)
        failures = await self._database.fetch(job_rows.FAILURES, job_id, connection=connection)
        reruns = await self._database.fetch(job_rows.RERUNS, job_id, connection=connection)
        job = job_rows.shown(record, failures, reruns)
        return replace(
            job,
            steps=tuple(await steps.of_job(self._database, job_id, connection)),
            pin=await pins.of_job(self._database, job_id, connection),
            signals=await signals.kept(self._database, job_id, connection),
        )

    async def enqueued_at(self, job_id: int, *, connection: Any = None) -> datetime:
        at: datetime | None = await self._database.fetchval(ENQUEUED_AT, job_id, connection=connection)
        if at is None:
            raise JobNotFound(job_id)
        return at

    async def find(
        self,
        *,
        state: State | None = None,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        limit: int = 100,
        before: int | None = None,
        with_tags: tuple[str, ...] = (),
    ) -> list[Job]:
        last = LAST_ID if before is None else before
        statement, more = (job_rows.TAGGED, [with_tags]) if with_tags else (job_rows.NEWEST, [])
        records = await self._database.fetch(
            statement[state], last, queue, argument(kind, key, group), limit, *more
        )
        return [job_rows.shown(record) for record in records]

    async def cancel(self, job_id: int, *, by: str | None = None) -> Cancelled:
        possible, noted = WAITING | {State.IN_PROGRESS}, Noted(Deed.CANCELLED, by, State.DEAD)
        record = await move(self._database, CANCEL, job_id, possible=possible, noted=noted)
        await groups.admit(self._database, record["again"])
        if record["state"] in ENDED:
            return Cancelled.ENDED
        return Cancelled.REQUESTED if record["state"] == State.IN_PROGRESS else Cancelled.DEAD

    async def retry(self, job_id: int, *, by: str | None = None) -> bool:
        possible, noted = {State.DEAD, State.EXPIRED, State.RETRYING}, Noted(Deed.RETRIED, by, State.PENDING)
        record = await move(self._database, RETRY, job_id, possible=possible, noted=noted)
        if record["state"] not in possible:
            raise refusals.not_retried(job_id, record["state"])
        if record["is_refused"]:
            raise refusals.not_retried_alone(job_id, record["state"])
        await self._join(job_id, record["due"])
        return bool(record["moved"])

    async def run_now(self, job_id: int, *, by: str | None = None) -> bool:
        possible, noted = {State.SCHEDULED, State.RETRYING}, Noted(Deed.HURRIED, by, State.PENDING)
        record = await move(self._database, RUN_NOW, job_id, possible=possible, noted=noted)
        if record["state"] not in WAITING - {State.WAITING}:
            raise refusals.not_run_now(job_id, record["state"])
        await self._join(job_id, record["due"])
        return bool(record["moved"])

    async def delete(self, job_id: int, *, by: str | None = None) -> None:
        noted = Noted(Deed.DELETED, by, None)
        record = await move(self._database, DELETE, job_id, possible=WAITING | ENDED, noted=noted)
        if record["state"] == State.IN_PROGRESS:
            raise refusals.not_deleted(job_id, record["state"])
        await groups.admit(self._database, record["again"])

    async def count(
        self,
        state: State,
        *,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        with_tags: tuple[str, ...] = (),
    ) -> int:
        statement, more = (tags.COUNT, [with_tags]) if with_tags else (COUNT, [])
        found: int = await self._database.fetchval(statement[state], queue, argument(kind, key, group), *more)
        return found

    async def newest(self) -> int:
        job_id: int = await self._database.fetchval(NEWEST)
        return job_id

    async def counts(self) -> list[Counts]:
        return [Counts(**record) for record in await self._database.fetch(COUNTS)]

    async def unhandled(self) -> list[Unhandled]:
        return await handled.unhandled(self._database)

    async def waiting(self, job_id: int) -> Waiting:
        record = await self._database.fetchrow(WAITING_FACTS, job_id)
        if record is None:
            raise JobNotFound(job_id)
        facts = dict(record)
        around = {
            name: facts.pop(name)
            for name in (
                "now",
                "slots",
                "slots_held",
                "ready_at",
                "taken_at",
                "tokens",
                "ahead",
                "ahead_of_tenant",
            )
        }
        full = await groups.full_groups(self._database, job_id)
        needs = await flows.needs(self._database, job_id)
        return Waiting(
            queue=queue_config(facts), ahead_limit=AHEAD_LIMIT, full_groups=full, needs=needs, **around
        )

    async def _join(self, job_id: int, due: int) -> None:
        """The job has joined its groups if it was made due just now; should this fail, a worker sees to it."""
        if due:
            with suppress(ForgeError):
                await join(self._database, [job_id])

    async def fold(self) -> int:
        return await fold(self._database)
