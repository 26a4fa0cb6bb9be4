"""What plugins sent along with jobs, in SQLite. It does not come with claims, which most workers want without it."""

import json
from collections.abc import Sequence

from forge_jobs.model.job import Claim
from forge_jobs.storage.sqlite.transaction import Transaction

READ = "SELECT id, meta FROM job WHERE id IN (SELECT value FROM json_each(?)) AND meta IS NOT NULL"


def read(transaction: Transaction, claims: Sequence[Claim]) -> None:
    """The claims have the meta of their jobs."""
    by_id = {claim.job_id: claim for claim in claims}
    for job_id, meta in transaction.rows(READ, (json.dumps(list(by_id)),)):
        by_id[job_id].meta = meta
