"""Processes that spend tokens of the same keys are killed and started again; nobody gets what another one has."""

import asyncio
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from forge_jobs.storage.postgres.buckets import FLOWED
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.limits import PostgresLimits
from forge_jobs.storage.postgres.permits import PostgresPermits
from tests.storage_postgres.conftest import until

CAPACITY, REFILL = 5.0, 200.0
SPENDERS, LIVES = 3, 3
GRANTS = 500  # of one life, at least
NEARLY = 1e-4
WORKER = Path(__file__).parents[2]

STANDS = """
SELECT key, max(full_at) AS full_at FROM (
    SELECT key, full_at FROM {schema}.rate_key
    UNION ALL
    SELECT key, full_at FROM {schema}.logged_keys('api', 9223372036854775807)
) AS stands GROUP BY key
"""


async def test_what_a_killed_process_got_is_nobody_elses(
    database: PostgresDatabase, tables: str, url: str, tmp_path: Path
) -> None:
    limits, permits = PostgresLimits(database), PostgresPermits(database)
    await limits.set("api", capacity=CAPACITY, refill=REFILL)
    dice = random.Random(7)

    async def live(spender: int) -> None:
        for life in range(LIVES):
            told = tmp_path / f"{spender} {life}"
            with told.open("wb") as file:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "tests.storage_postgres.spender", url, str(10 * life + spender)),
                    stdout=file,
                    cwd=WORKER,
                )
            try:
                enough = GRANTS + dice.randrange(GRANTS)

                async def has_enough(told: Path = told, enough: int = enough) -> bool:
                    return told.read_bytes().count(b"\n") >= enough

                await until(has_enough)
            finally:
                process.kill()
                await process.wait()
            await limits.set("api", capacity=CAPACITY, refill=REFILL)
            await permits.sweep(limit=100)

    async with asyncio.TaskGroup() as lives:
        for spender in range(SPENDERS):
            lives.create_task(live(spender))

    by_key: defaultdict[str, list[Sequence[float]]] = defaultdict(list)
    for told in tmp_path.iterdir():
        for line in told.read_text().rpartition("\n")[0].splitlines():
            key, *numbers = line.split("\t")
            by_key[key].append([float(number) for number in numbers])
    stands = {record["key"]: record["full_at"] for record in await database.fetch(STANDS)}
    flowed = await database.fetchval(f"SELECT {FLOWED} FROM {{schema}}.rate_limit")
    for key, got in by_key.items():
        check(key, got)
        # a key that is full again has no row
        assert max(full_at for _, _, full_at in got) <= stands.get(key, flowed) + NEARLY, key


def check(key: str, got: Sequence[Sequence[float]]) -> None:
    """Each is for tokens of its own, and between any two moments there are no more than the capacity and what flowed meanwhile."""
    reached = 0.0
    for cost, _, full_at in sorted(got, key=lambda one: one[2]):
        assert full_at - cost >= reached - NEARLY, key
        reached = full_at
    level, last = 0.0, 0.0
    for cost, at, _ in sorted(got, key=lambda one: one[1]):
        level, last = max(0.0, level - REFILL * (at - last)) + cost, at
        assert level <= CAPACITY + 0.05, key
