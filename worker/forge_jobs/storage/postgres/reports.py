"""What handlers have reported of jobs in PostgreSQL, as a claim brings it: the saved state, and the steps that were done."""

from collections.abc import Sequence

from forge_jobs.model.job import LARGE_PAYLOAD, Claim
from forge_jobs.model.links import REPORTED
from forge_jobs.model.step import MOST_RESULTS_AT_CLAIM, MOST_STEPS_AT_CLAIM, JobStep
from forge_jobs.storage.postgres import steps
from forge_jobs.storage.postgres.lane import Lane

# A row for each job, and one for each of its steps, unless they are much. Lengths are known without reading what is long. Each
# table is walked by one index, job by job, whatever the planner believes of it: the orders are those that only the indexes have.
READ = f"""
WITH asked AS MATERIALIZED (
    SELECT given.job_id, (
        SELECT count(*) <= {MOST_STEPS_AT_CLAIM} AND coalesce(sum(few.bytes), 0) <= {MOST_RESULTS_AT_CLAIM}
        FROM (SELECT octet_length(its.result) AS bytes FROM {{schema}}.step AS its WHERE its.job_id = given.job_id
              ORDER BY its.job_id, its.name LIMIT {MOST_STEPS_AT_CLAIM + 1}) AS few) AS is_small
    FROM unnest($1::bigint[]) AS given (job_id)
)
SELECT asked.job_id, asked.is_small, octet_length(saved.state) > {LARGE_PAYLOAD} AS is_large,
       CASE WHEN octet_length(saved.state) <= {LARGE_PAYLOAD} THEN saved.state END AS state, {steps.STEP}
FROM asked
LEFT JOIN LATERAL (
    SELECT its.state FROM {{schema}}.saved_state AS its WHERE its.job_id = asked.job_id
    ORDER BY its.job_id OFFSET 0) AS saved ON true
LEFT JOIN {{schema}}.step ON false
UNION ALL
SELECT asked.job_id, true, false, NULL, {steps.STEP}
FROM asked CROSS JOIN LATERAL (
    SELECT its.* FROM {{schema}}.step AS its WHERE its.job_id = asked.job_id AND asked.is_small
    ORDER BY its.job_id, its.name OFFSET 0) AS step
"""


async def read(lane: Lane, claims: Sequence[Claim]) -> None:
    """The claims of jobs of which handlers have reported have the saved state and the steps. A large state is read later,
    together with the payload, and many steps when the handler comes to the first.
    """
    reported = {claim.job_id: claim for claim in claims if claim.links is not None and claim.links & REPORTED}
    if not reported:
        return
    done: dict[int, list[JobStep]] = {}
    for record in await lane.fetch(READ, list(reported)):
        job_id, is_small, is_large, state, *_ = record
        if record["name"] is not None:
            done[job_id].append(steps.shown(record))
            continue
        claim = reported[job_id]
        claim.state = state
        if is_large:
            claim.payload = None
        if is_small:
            claim.steps = done[job_id] = []
