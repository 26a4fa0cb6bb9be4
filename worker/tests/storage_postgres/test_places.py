"""A row that is found by its place, and was updated meanwhile, is asked again whether it is still meant."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from forge_jobs.model.job import State
from forge_jobs.storage.postgres import permits, walks
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.permits import PostgresPermits


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


async def test_the_sweep_compares_more_of_a_key_than_its_place(
    database: PostgresDatabase, tables: str
) -> None:
    await PostgresPermits(database).sweep(limit=1)

    plan = await database.fetchval("EXPLAIN (FORMAT json) " + database.sql(permits.SWEEP_KEYS), "", "", 10)

    found = [
        node["Filter"]
        for node in nodes(json.loads(plan)[0]["Plan"])
        if node["Node Type"] == "Tid Scan" and node["Relation Name"] == "rate_key"
    ]
    assert ["full_at <=" in conditions for conditions in found] == [True, True], "it is locked, and deleted"


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("state", State)
def test_jobs_that_are_locked_are_asked_for_their_queue_again(state: State, tagged: bool) -> None:
    [lock] = [
        part
        for part in walks.of_batch("{pick}", state, tagged=tagged).split("MATERIALIZED (")
        if "FOR UPDATE SKIP LOCKED" in part
    ]

    assert "AND ($4::integer IS NULL OR queue_id = $4)" in lock
