"""Claims and outcomes look up the rows that they need, also when the planner takes a full table for an empty one."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from forge_jobs.model.job import NewJob
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.postgres import claiming, outcomes
from forge_jobs.storage.postgres.claims import PostgresClaims
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.jobs import PostgresJobs
from forge_jobs.storage.postgres.session_settings import CLAIMS, OUTCOMES
from forge_jobs.storage.postgres.workers import PostgresWorkers

TABLES = ("job", "ready", "claimed", "failure", "job_key")
STATEMENTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "claim": (claiming.CLAIM, CLAIMS),
    "claim that says turns": (claiming.WITH_TURNS[claiming.CLAIM], CLAIMS),
    "claim of stretches": (claiming.CLAIM_STRETCHES, CLAIMS),
    "claim from several queues": (claiming.CLAIM_FROM, CLAIMS),
    "claim without kinds": (claiming.CLAIM_WITHOUT_KINDS, CLAIMS),
    "front without kinds": (claiming.FRONT_WITHOUT_KINDS, CLAIMS),
    "finish plainly": (outcomes.FINISH_PLAIN, OUTCOMES),
    "finish": (outcomes.FINISH, OUTCOMES),
    "postpone": (outcomes.POSTPONE, OUTCOMES),
    "hand back": (outcomes.HAND_BACK, OUTCOMES),
}


@pytest.fixture
async def full(database: PostgresDatabase, tables: str) -> PostgresDatabase:
    """A database in which each of the tables holds something."""
    await PostgresWorkers(database).register(
        WorkerInfo(1, "me", "here", 1, "1", queues=("default",), kinds=("work",), concurrency=1)
    )
    await PostgresJobs(database).enqueue_many([NewJob("work", key=str(number)) for number in range(2_000)])
    await PostgresClaims(database).claim(1, 1, limit=1_000)
    await database.execute(
        "INSERT INTO {schema}.failure (job_id, attempt, at, worker_id, error) SELECT id, 1, now(), 1, 'e' FROM {schema}.job"
    )
    return database


@pytest.mark.parametrize("empty", TABLES)
async def test_no_index_is_read_from_end_to_end(full: PostgresDatabase, empty: str) -> None:
    for table in TABLES:
        await full.execute(f"ALTER TABLE {{schema}}.{table} SET (autovacuum_enabled = false)")
        await full.execute(f"ANALYZE {{schema}}.{table}")
    await full.execute(
        f"UPDATE pg_class SET reltuples = 0, relpages = 100 WHERE oid = '{{schema_text}}.{empty}'::regclass"
    )

    walked = {name: await _walked_through(full, *statement) for name, statement in STATEMENTS.items()}

    assert not {name: indexes for name, indexes in walked.items() if indexes}


async def _walked_through(
    database: PostgresDatabase, statement: str, settings: Mapping[str, str]
) -> list[str]:
    """Return what the statement reads without looking anything up."""
    text = database.sql(statement)
    values = ", ".join(["NULL"] * max(int(number) for number in re.findall(r"\$(\d+)", text)))
    connection = await database.connect(settings=settings)
    try:
        await connection.execute(f"PREPARE statement AS {text}")
        plan = await connection.fetchval(f"EXPLAIN (FORMAT json) EXECUTE statement ({values})")
    finally:
        await connection.close()
    return [
        f"{node['Node Type']} on {node['Relation Name']}"
        for node in _nodes(json.loads(plan)[0]["Plan"])
        if node.get("Relation Name") in TABLES and "Scan" in node["Node Type"] and not _looks_up(node)
    ]


def _looks_up(node: Mapping[str, Any]) -> bool:
    return "Index Cond" in node or "TID Cond" in node


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)
