"""Completions in PostgreSQL: an outcome, written by a statement of the caller's transaction.

A transaction may have begun long before, so moments are those of the statement. It holds the row of the
claim until it ends. Whoever looks what became of it does not wait for that.
"""

import asyncio
from contextlib import suppress
from typing import Any

from forge_jobs.errors import ForgeError
from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.job import WORKER_LOST, End, Postponement, State
from forge_jobs.model.links import AWAITED, FLOW
from forge_jobs.rules.fate import Traces, fate
from forge_jobs.storage import refusals
from forge_jobs.storage.interface.completions import Completions
from forge_jobs.storage.postgres import endings, groups
from forge_jobs.storage.postgres.claims import row
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.enqueue import MOMENT
from forge_jobs.storage.postgres.outcomes import POSTPONE, POSTPONE_KEYED, POSTPONE_LINKED

_PROOF = "job_id = $1 AND worker_id = $2 AND attempt = $3"
_CLAIM = _PROOF + " AND ($4::bigint IS NULL OR {schema}.micros(claimed_at) = $4)"


def _ended_nodes(of: str) -> str:
    """Of those of `of` for whose ends others wait, these hear after the commit: `ended_nodes`."""
    return f"""ended_nodes AS (
    INSERT INTO {{schema}}.ended_node (job_id)
    SELECT id FROM {{schema}}.job WHERE id = ANY (ARRAY(SELECT job_id FROM {of})) AND links & {FLOW | AWAITED} <> 0
    ON CONFLICT DO NOTHING
)"""


COMPLETE = f"""
WITH gone AS (
    DELETE FROM {{schema}}.claimed WHERE {_PROOF}
    RETURNING job_id, worker_id, attempt, queue_id, claimed_at, coalesce(
        (SELECT done_retention > interval '0' FROM {{schema}}.queue WHERE queue.id = claimed.queue_id), true)
        OR coalesce((SELECT links & {
    FLOW
} <> 0 FROM {{schema}}.job WHERE job.id = claimed.job_id), false) AS keep
), ended AS (
    INSERT INTO {{schema}}.finished (job_id, worker_id, started_at, finished_at, queue_id, attempt, state, error, result)
    SELECT job_id, worker_id, claimed_at, {
    MOMENT
}, queue_id, attempt, 'done', $4::text, $5::bytea FROM gone WHERE keep
), {endings.dated("gone WHERE keep", at=MOMENT)}, {
    endings.tallied(in_progress="-count(*)", done="count(*) FILTER (WHERE keep)")
}, {endings.unkeyed("gone")}, {endings.forgotten("gone WHERE NOT keep")}, {endings.vacated("gone")}, {
    endings.unlimited("gone")
}, {_ended_nodes("gone")}
SELECT {{schema}}.micros(claimed_at) FROM gone
"""


def _reschedule(postpone: str, waits: str) -> str:
    """Return the statement that postpones, for a transaction of which it is not known when it commits.

    Who will be idle then is not known either, so workers are always told; and also where the job stands, since jobs
    after it may have been claimed by then. Others hear of ends after the commit: until then nothing of theirs is locked.
    `waits` says which of `gone` do wait again.
    """
    told = f"""(SELECT count({{schema}}.tell('queue:' || queue_id)) FROM (SELECT DISTINCT queue_id FROM placed) AS woken),
       (SELECT count({{schema}}.tell('behind:' || concat_ws(',', queue_id, priority, {{schema}}.micros(now()), 0)))
        FROM gone WHERE due <= now() AND {waits}),
       (SELECT count({{schema}}.tell('due:')) FROM gone WHERE due > now() AND {waits})"""
    return (
        postpone.replace(
            "SELECT array_agg(job_id),", "SELECT {schema}.micros(min(claimed_at)), array_agg(job_id),"
        )
        .replace(f"{endings.LINKS} FROM gone", "NULL::smallint FROM gone", 1)
        .replace(", waits AS (", f", {_ended_nodes('kept')}, waits AS (", 1)
        .replace(endings.WOKEN, told)
        .replace("now()", MOMENT)
    )


RESCHEDULE = _reschedule(POSTPONE, "NOT is_cancelled")
RESCHEDULE_KEYED = _reschedule(POSTPONE_KEYED, "NOT (is_cancelled OR is_superseded)")
RESCHEDULE_LINKED = _reschedule(
    POSTPONE_LINKED.replace(f", {endings.LEFT}", "").replace(
        ", waits AS (", f", {endings.vacated('gone')}, waits AS (", 1
    ),
    f"NOT (is_cancelled OR is_superseded OR {endings.BY_TIME} IS NOT NULL)",
)

# A row that was deleted since the snapshot is neither: it looks locked, and the next look shows what became of it.
FATE = f"""
WITH free AS MATERIALIZED (
    SELECT FROM {{schema}}.claimed WHERE {_CLAIM} FOR UPDATE SKIP LOCKED
)
SELECT EXISTS (SELECT FROM {{schema}}.claimed WHERE {_CLAIM}) AS is_claimed,
       NOT EXISTS (SELECT FROM free) AS is_locked,
       EXISTS (SELECT FROM {{schema}}.failure WHERE {_PROOF} AND error = '{WORKER_LOST}')
       OR EXISTS (SELECT FROM {{schema}}.finished WHERE {_PROOF} AND error = '{WORKER_LOST}') AS is_taken_back,
       (SELECT state FROM {{schema}}.finished WHERE {_PROOF}) AS ended,
       (SELECT error FROM {{schema}}.finished WHERE {_PROOF}) AS error,
       EXISTS (SELECT FROM {{schema}}.job WHERE id = $1) AS is_known,
       EXISTS (SELECT FROM {{schema}}.unsettled WHERE group_id IS NOT NULL)
       OR EXISTS (SELECT FROM {{schema}}.ended_node) AS has_left_places
"""

KNOWN = "SELECT EXISTS (SELECT FROM {schema}.job WHERE id = $1)"


LONGEST_HAND_OVER = 0.2
"""Seconds for which the end of a handler may wait until the places that were left are given away."""


class PostgresCompletions(Completions):
    """`Completions` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def complete(self, end: End, *, connection: Any) -> int | None:
        claim = end.claim
        proof = claim.job_id, claim.worker_id, claim.attempt
        return await self._run(connection, COMPLETE, *proof, end.error, end.result)

    async def reschedule(self, postponement: Postponement, *, connection: Any) -> int | None:
        columns = [[value] for value in row(postponement)]
        if postponement.claim.links is not None:
            return await self._run(
                connection, RESCHEDULE_LINKED, *columns, [postponement.claim.key is not None]
            )
        if postponement.claim.key is None:
            return await self._run(connection, RESCHEDULE, *columns)
        return await self._run(connection, RESCHEDULE_KEYED, *columns, [True])

    async def _run(self, connection: Any, statement: str, *arguments: object) -> int | None:
        async with self._database.connection(connection) as given:
            if not given.is_in_transaction():
                raise refusals.no_transaction()
            claimed_at: int | None = await given.fetchval(self._database.sql(statement), *arguments)
            return claimed_at

    async def fate(self, completion: Completion) -> Fate:
        record = await self._database.fetchrow(FATE, *_proof(completion))
        assert record is not None
        became = _became(completion, record)
        if record["has_left_places"]:
            # They stay there for the next look, should it fail or take long: what became of the job is known.
            with suppress(ForgeError, TimeoutError):
                async with asyncio.timeout(LONGEST_HAND_OVER):
                    await groups.hand_over(self._database)
        return became

    async def stands(self, completion: Completion, *, connection: Any) -> bool:
        async with self._database.connection(connection) as given:
            record = await given.fetchrow(self._database.sql(FATE), *_proof(completion))
        is_there: bool = record["is_known"] or await self._database.fetchval(KNOWN, completion.job_id)
        return is_there and _became(completion, record).stands


def _proof(completion: Completion) -> tuple[int, int, int, int | None]:
    return completion.job_id, completion.worker_id, completion.attempt, completion.claimed_at


def _became(completion: Completion, record: Any) -> Fate:
    ended = None if record["ended"] is None else State(record["ended"])
    traces = Traces(
        record["is_claimed"],
        record["is_locked"],
        record["is_taken_back"],
        ended,
        record["error"],
        record["is_known"],
    )
    return fate(completion, traces)
