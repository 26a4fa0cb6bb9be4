"""The notes that add up to the counts in PostgreSQL, and how they are folded.

Every statement that moves jobs appends a note of what each state gained or lost. A fold replaces
notes by their sum, a stretch of the table at a time: each stretch is one short transaction, and
what was folded before a failure stays folded. Rows that another fold has locked are passed over,
so that each note is added up once.
"""

from forge_jobs.storage.postgres.connection import PostgresDatabase

PAGES = 500
"""How much of the table is folded in one transaction: some 50,000 notes."""

# Nothing is written while each queue has one note, however often this runs.
EXTENT = """
SELECT pg_relation_size('{schema_text}.tally') / current_setting('block_size')::bigint
WHERE EXISTS (SELECT FROM {schema}.tally GROUP BY queue_id HAVING count(*) > 1)
"""

# The sums of the stretch before ($3) are folded with this one, so that one note for each queue is left.
# Where another note stands there by now, no harm is done: any note may be folded.
FOLD = """
WITH stretch AS MATERIALIZED (
    SELECT ctid FROM {schema}.tally
    WHERE ctid >= $1::text::tid AND ctid < $2::text::tid
    FOR UPDATE SKIP LOCKED
), before AS MATERIALIZED (
    SELECT ctid FROM {schema}.tally WHERE ctid = ANY ($3::text[]::tid[]) FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.tally
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM stretch UNION SELECT ctid FROM before))
    RETURNING tally.*
), sums AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled, blocked, in_progress, done, dead, expired, waiting)
    SELECT queue_id, sum(pending), sum(scheduled), sum(blocked), sum(in_progress), sum(done), sum(dead), sum(expired), sum(waiting)
    FROM gone GROUP BY queue_id
    RETURNING ctid
)
SELECT (SELECT count(*) FROM gone) AS notes, (SELECT coalesce(array_agg(ctid::text), '{}') FROM sums) AS sums
"""


async def fold(database: PostgresDatabase, pages: int = PAGES) -> int:
    """Each queue has one note in place of those that were there, unless others fold, too; return by how many notes there are fewer."""
    extent: int | None = await database.fetchval(EXTENT)
    fewer = 0
    sums: list[str] = []
    for first in range(0, extent or 0, pages):
        record = await database.fetchrow(FOLD, f"({first},0)", f"({first + pages},0)", sums)
        assert record is not None
        fewer += record["notes"] - len(record["sums"])
        sums = record["sums"]
    return fewer
