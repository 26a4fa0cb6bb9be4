"""What nodes of flows get is looked up, also when the planner believes that all edges lead to one node."""

import json

from forge_jobs.model.flow import MOST_AT_CLAIM, MOST_INPUTS_AT_CLAIM, Edge, NewFlow, NewNode
from forge_jobs.model.job import NewJob
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.flows import PostgresFlows
from forge_jobs.storage.postgres.node_inputs import READ
from forge_jobs.storage.postgres.session_settings import CLAIMS

MANY = 3_000


async def test_a_node_costs_the_same_however_large_the_join_that_follows(
    database: PostgresDatabase, tables: str
) -> None:
    before = [NewNode(f"n{number}", NewJob("work")) for number in range(MANY)]
    join = NewNode("join", NewJob("work"), after=tuple(Edge(index) for index in range(MANY)))
    _, ids = await PostgresFlows(database).start(NewFlow("f", [*before, join]))
    for table in ("flow", "flow_node", "flow_edge"):
        await database.execute(f"ANALYZE {{schema}}.{table}")

    assert await _blocks(database, list(ids[:100])) < 100 * 30
    assert await _blocks(database, [ids[-1]]) < 30 + MOST_INPUTS_AT_CLAIM * 10


async def _blocks(database: PostgresDatabase, nodes: list[int]) -> int:
    """Return how many blocks the server looks at to read these nodes."""
    connection = await database.connect(settings=CLAIMS)
    try:
        await connection.execute(f"PREPARE statement AS {database.sql(READ)}")
        values = f"ARRAY{nodes}, {MOST_INPUTS_AT_CLAIM}, {MOST_AT_CLAIM}"
        plan = await connection.fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) EXECUTE statement ({values})"
        )
    finally:
        await connection.close()
    [said] = json.loads(plan)
    return int(said["Plan"]["Shared Hit Blocks"]) + int(said["Plan"]["Shared Read Blocks"])
