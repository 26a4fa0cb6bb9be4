"""What plugins sent along with jobs, in PostgreSQL. It does not come with claims, which most workers want without it."""

from collections.abc import Sequence

from forge_jobs.model.job import Claim
from forge_jobs.storage.postgres.connection import PostgresDatabase

READ = "SELECT id, meta FROM {schema}.job WHERE id = ANY ($1::bigint[]) AND meta IS NOT NULL"


async def read(database: PostgresDatabase, claims: Sequence[Claim]) -> None:
    """The claims have the meta of their jobs."""
    by_id = {claim.job_id: claim for claim in claims}
    for job_id, meta in await database.claims.fetch(READ, list(by_id)):
        by_id[job_id].meta = meta
