"""What handlers have reported of jobs in SQLite, as a claim brings it: the saved state, and the steps that were done."""

import json
from collections.abc import Sequence

from forge_jobs.model.job import LARGE_PAYLOAD, Claim
from forge_jobs.model.links import REPORTED
from forge_jobs.model.step import MOST_RESULTS_AT_CLAIM, MOST_STEPS_AT_CLAIM
from forge_jobs.storage.sqlite import steps
from forge_jobs.storage.sqlite.transaction import Transaction

# Lengths are known without reading what is long.
READ = f"""
SELECT given.value AS job_id, length(saved_state.state) > {LARGE_PAYLOAD} AS is_large,
       CASE WHEN length(saved_state.state) <= {LARGE_PAYLOAD} THEN saved_state.state END AS state,
       (SELECT count(*) <= {MOST_STEPS_AT_CLAIM} AND coalesce(sum(length(result)), 0) <= {MOST_RESULTS_AT_CLAIM}
        FROM (SELECT result FROM step WHERE step.job_id = given.value LIMIT {MOST_STEPS_AT_CLAIM + 1})) AS is_small
FROM json_each(?) AS given LEFT JOIN saved_state ON saved_state.job_id = given.value
"""


def read(transaction: Transaction, claims: Sequence[Claim]) -> None:
    """The claims of jobs of which handlers have reported have the saved state and the steps. A large state is read later,
    together with the payload, and many steps when the handler comes to the first.
    """
    reported = {claim.job_id: claim for claim in claims if claim.links is not None and claim.links & REPORTED}
    if not reported:
        return
    for job_id, is_large, state, is_small in transaction.rows(READ, (json.dumps(list(reported)),)):
        claim = reported[job_id]
        claim.state = state
        if is_large:
            claim.payload = None
        if is_small:
            claim.steps = steps.of_job(transaction, job_id)
