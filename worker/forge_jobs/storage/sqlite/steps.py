"""Steps in SQLite: rows that only the holder of the claim writes."""

import json
from datetime import timedelta
from typing import Any

from forge_jobs.errors import JobNotFound
from forge_jobs.model.job import Claim, Enqueued, NewJob
from forge_jobs.model.step import JobStep, NewStep, StepSort
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.enqueue import enqueue
from forge_jobs.storage.sqlite.micros import later, moment
from forge_jobs.storage.sqlite.saved_states import LINK, is_held
from forge_jobs.storage.sqlite.transaction import Record, Transaction

OF_JOB = """
SELECT step.number, step.serial, step.name, step.sort, step.attempt, step.at, step.result, coalesce(step.codec, job.codec) AS codec, step.until,
       coalesce(step.signals, '[]') AS signals, step.for_job, step.ended_at, step.signal, step.done_by
FROM step JOIN job ON job.id = step.job_id WHERE step.job_id = :job_id AND :name IN ('', step.name)
ORDER BY step.number, step.at, step.name
"""

ADD = """
INSERT INTO step (job_id, number, name, sort, attempt, at, result, until, serial) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (job_id, name) DO NOTHING
"""

COPY = """
INSERT INTO step (job_id, number, name, sort, attempt, at, result, until, serial, signals, for_job, ended_at, signal, codec, done_by)
SELECT ?, number, name, sort, attempt, at, result, until, serial, signals, for_job, ended_at, signal,
       coalesce(codec, (SELECT job.codec FROM job WHERE job.id = step.job_id)), coalesce(done_by, job_id)
FROM step
WHERE job_id = ? AND number < ? AND NOT (sort = 'wait' AND ended_at IS NULL)
"""


class SqliteSteps:
    """`Steps` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def of_job(self, job_id: int, *, connection: Any = None) -> list[JobStep]:
        if connection is not None:
            return await self._database.within(connection, lambda transaction: of_job(transaction, job_id))
        return await self._database.read(lambda transaction: of_job(transaction, job_id))

    async def add(self, claim: Claim, step: NewStep, *, connection: Any = None) -> JobStep | None:
        def add(transaction: Transaction) -> JobStep | None:
            if not is_held(transaction, claim):
                return None
            now = transaction.now
            until = None if step.sleep is None else later(now, timedelta(seconds=step.sleep))
            made = (
                claim.job_id,
                step.number,
                step.name,
                step.sort.value,
                claim.attempt,
                now,
                step.result,
                until,
                step.serial,
            )
            transaction.execute(ADD, made)
            [kept] = of_job(transaction, claim.job_id, step.name)
            return kept

        if connection is not None:
            return await self._database.within(connection, add)
        return await self._database.write(add)

    async def rerun(self, job: NewJob, *, before: int) -> Enqueued:
        def rerun(transaction: Transaction) -> Enqueued:
            if not transaction.value("SELECT EXISTS (SELECT 1 FROM job WHERE id = ?)", (job.rerun_of,)):
                raise JobNotFound(job.rerun_of or 0)
            [enqueued] = enqueue(transaction, [job])
            if enqueued.is_new and transaction.changed(COPY, (enqueued.id, job.rerun_of, before)):
                transaction.execute(LINK, (enqueued.id,))
            return enqueued

        return await self._database.write(rerun)


def of_job(transaction: Transaction, job_id: int, name: str = "") -> list[JobStep]:
    """Return the steps of a job in order; only the one of this name, unless that is empty."""
    return [
        JobStep(
            number=row["number"],
            serial=row["serial"],
            name=row["name"],
            sort=StepSort(row["sort"]),
            attempt=row["attempt"],
            at=moment(row["at"]),
            result=row["result"],
            codec=row["codec"],
            until=moment(row["until"]),
            is_over=_is_over(row, transaction.now),
            signals=tuple(json.loads(row["signals"])),
            for_job=row["for_job"],
            ended_at=moment(row["ended_at"]),
            signal=row["signal"],
            done_by=row["done_by"],
        )
        for row in transaction.records(OF_JOB, {"job_id": job_id, "name": name})
    ]


def _is_over(row: Record, now: int) -> bool:
    if row["sort"] == StepSort.WAIT:
        return row["ended_at"] is not None
    return row["until"] is None or row["until"] <= now
