"""Pins in SQLite: a row that only the holder of the claim writes, and that claims look at where there is one."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from forge_jobs.errors import JobNotFound
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import Claim, State
from forge_jobs.model.links import PINNED, is_pinned
from forge_jobs.model.pin import Pin, PinnedJobs
from forge_jobs.model.version import VersionState
from forge_jobs.rules.pins import heed
from forge_jobs.storage.sqlite import interventions, job_filter, tags
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.micros import moment
from forge_jobs.storage.sqlite.transaction import Transaction

FITS = "(pin.pool IS worker.pool AND pin.version_id IS worker.version_id AND pin.version = worker.version)"
"""Whether a `pin` is to the version of a `worker`."""

ELSEWHERE = """
  AND NOT EXISTS (SELECT 1 FROM pin CROSS JOIN worker
                  WHERE pin.job_id = ready.job_id AND worker.id = :worker_id AND NOT {fits})""".replace(
    "{fits}", FITS
)
"""Passes over those of `ready` that are pinned to another version than that of a worker."""

OWN = """
  AND EXISTS (SELECT 1 FROM pin CROSS JOIN worker
              WHERE pin.job_id = ready.job_id AND worker.id = :worker_id AND {fits})""".replace(
    "{fits}", FITS
)
"""Passes over all others than those that are pinned to the version of a worker."""

HELD = """
SELECT 1 FROM claimed JOIN worker ON worker.id = claimed.worker_id WHERE job_id = ? AND worker_id = ? AND attempt = ?
"""

LINK = f"UPDATE job SET links = coalesce(links, 0) | {PINNED} WHERE id = ?"

ADD = """
INSERT INTO pin (job_id, version, pool, version_id, at)
SELECT ?, version, pool, version_id, ? FROM worker WHERE id = ?
ON CONFLICT (job_id) DO NOTHING
"""

OF_JOB = """
SELECT pin.version, pin.at, pin.pool, pin.version_id, version.state
FROM pin LEFT JOIN worker_version AS version ON version.pool = pin.pool AND version.id = pin.version_id
WHERE pin.job_id = ?
"""

COUNTS = """
SELECT queue.name, pin.version, pin.pool, pin.version_id, count(*),
       count(*) FILTER (WHERE claimed.job_id IS NULL AND blocked.job_id IS NULL AND waiting.job_id IS NULL
                          AND coalesce(scheduled.run_at <= :now, true)),
       count(claimed.job_id)
FROM pin
JOIN job ON job.id = pin.job_id
JOIN queue ON queue.id = job.queue_id
LEFT JOIN claimed ON claimed.job_id = pin.job_id
LEFT JOIN scheduled ON scheduled.job_id = pin.job_id
LEFT JOIN blocked ON blocked.job_id = pin.job_id
LEFT JOIN waiting ON waiting.job_id = pin.job_id
WHERE NOT EXISTS (SELECT 1 FROM finished WHERE finished.job_id = pin.job_id)
GROUP BY queue.name, pin.version, pin.pool, pin.version_id
ORDER BY queue.name, pin.version, pin.version_id
"""

READ = f"""
SELECT pin.job_id, iif({FITS}, NULL, pin.version) FROM pin LEFT JOIN worker ON worker.id = ?
WHERE pin.job_id IN (SELECT value FROM json_each(?))
"""


PUT = "UPDATE pin SET version = ? WHERE job_id = ? AND pool IS NULL AND version <> ?"

OF_VERSION = """
SELECT pin.job_id FROM pin JOIN job ON job.id = pin.job_id JOIN queue ON queue.id = job.queue_id
WHERE :version IN (pin.version, pin.version_id) AND (:queue IS NULL OR queue.name = :queue)
  AND {fits} AND {has_all} AND (:of_pools OR pin.pool IS NULL) AND pin.job_id > :after
ORDER BY pin.job_id LIMIT :limit
""".replace("{fits}", job_filter.FITS).replace("{has_all}", tags.HAS_ALL)


class SqlitePins:
    """`Pins` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def add(self, claim: Claim, *, connection: Any = None) -> bool:
        def add(transaction: Transaction) -> bool:
            if transaction.row(HELD, (claim.job_id, claim.worker_id, claim.attempt)) is None:
                return False
            transaction.execute(LINK, (claim.job_id,))
            transaction.execute(ADD, (claim.job_id, transaction.now, claim.worker_id))
            return True

        if connection is not None:
            return await self._database.within(connection, add)
        return await self._database.write(add)

    async def of_job(self, job_id: int) -> Pin | None:
        return await self._database.read(lambda transaction: of_job(transaction, job_id))

    async def remove(self, job_id: int, *, by: str | None = None) -> bool:
        def remove(transaction: Transaction) -> bool:
            queue_id = transaction.value("SELECT queue_id FROM job WHERE id = ?", (job_id,))
            if queue_id is None:
                raise JobNotFound(job_id)
            if not transaction.changed("DELETE FROM pin WHERE job_id = ?", (job_id,)):
                return False
            transaction.execute(
                f"UPDATE job SET links = nullif(links & ~{PINNED}, 0) WHERE id = ?", (job_id,)
            )
            transaction.tell("queue", queue_id)
            if by is not None:
                state = State(transaction.value("SELECT state FROM jobs WHERE id = ?", (job_id,)))
                interventions.note(transaction, [job_id], Deed.UNPINNED, by, state, state)
            return True

        return await self._database.write(remove)

    async def put(self, job_id: int, name: str, *, by: str | None = None) -> bool:
        def put(transaction: Transaction) -> bool:
            if not transaction.changed(PUT, (name, job_id, name)):
                return False
            transaction.tell("queue", transaction.value("SELECT queue_id FROM job WHERE id = ?", (job_id,)))
            state = State(transaction.value("SELECT state FROM jobs WHERE id = ?", (job_id,)))
            to = f"to version {name}"
            interventions.note(transaction, [job_id], Deed.PINNED, by, state, state, note=to)
            return True

        return await self._database.write(put)

    async def of_version(
        self,
        name: str,
        *,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        with_tags: tuple[str, ...] = (),
        of_pools: bool = True,
        after: int = 0,
        limit: int = 1000,
    ) -> Sequence[int]:
        asked = {
            **{"version": name, "queue": queue, "kind": kind, "key": key, "group": group},
            "tags": json.dumps(with_tags),
            **{"of_pools": of_pools, "after": after, "limit": limit},
        }
        rows = await self._database.read(lambda transaction: transaction.rows(OF_VERSION, asked))
        return [job_id for (job_id,) in rows]

    async def counts(self) -> Sequence[PinnedJobs]:
        rows = await self._database.read(
            lambda transaction: transaction.rows(COUNTS, {"now": transaction.now})
        )
        return [PinnedJobs(*row) for row in rows]


def of_job(transaction: Transaction, job_id: int) -> Pin | None:
    """Return the version that has to go on with the job; None: any may."""
    row = transaction.row(OF_JOB, (job_id,))
    if row is None:
        return None
    version, at, pool, version_id, state = row
    return Pin(version, moment(at), pool, version_id, None if state is None else VersionState(state))


def read(transaction: Transaction, claims: Sequence[Claim]) -> None:
    """The claims of jobs that are pinned to another version than that of their worker say so."""
    pinned = {claim.job_id: claim for claim in claims if is_pinned(claim.links)}
    if pinned:
        heed(pinned, transaction.rows(READ, (claims[0].worker_id, json.dumps(list(pinned)))))


def forget(transaction: Transaction, job_ids: Iterable[int]) -> None:
    """The jobs, which have ended, need no version of the program any more."""
    transaction.execute_many("DELETE FROM pin WHERE job_id = ?", [(job_id,) for job_id in job_ids])
