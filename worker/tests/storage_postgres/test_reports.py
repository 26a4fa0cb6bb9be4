"""What was reported of claimed jobs is looked up, whatever the planner believes of the tables."""

import json

import pytest

from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.reports import READ
from forge_jobs.storage.postgres.session_settings import CLAIMS

FILL = """
INSERT INTO {schema}.step (job_id, number, name, sort, attempt, at)
SELECT job_id, number, 'step ' || number, 'step', 1, now()
FROM generate_series(1, 20000) AS job_id CROSS JOIN generate_series(1, 2) AS number
"""
SAVE = "INSERT INTO {schema}.saved_state (job_id, state) SELECT job_id, '1' FROM generate_series(1, 20000) AS job_id"


@pytest.mark.parametrize("is_believed_empty", [True, False])
async def test_a_job_costs_the_same_however_many_others_have_steps(
    database: PostgresDatabase, tables: str, is_believed_empty: bool
) -> None:
    analyzed = ("step", "saved_state")
    for table in analyzed if is_believed_empty else ():
        await database.execute(f"ANALYZE {{schema}}.{table}")
    for statement in (FILL, SAVE):
        await database.execute(statement)
    for table in () if is_believed_empty else analyzed:
        await database.execute(f"ANALYZE {{schema}}.{table}")

    connection = await database.connect(settings=CLAIMS)
    try:
        await connection.execute(f"PREPARE statement AS {database.sql(READ)}")
        asked = f"EXECUTE statement (ARRAY{list(range(1, 101))})"
        plan = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {asked}")
    finally:
        await connection.close()

    [said] = json.loads(plan)
    assert said["Plan"]["Actual Rows"] == 300
    assert said["Plan"]["Shared Hit Blocks"] + said["Plan"]["Shared Read Blocks"] < 100 * 30
