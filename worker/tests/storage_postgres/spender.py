"""A process that spends tokens of keys until it is killed, and prints what it got: key, cost, moment and where the bucket stands then."""

import asyncio
import random
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta

from forge_jobs.errors import RateLimited
from forge_jobs.model.permit import AT_ONCE, Permit, PermitRequest
from forge_jobs.storage.postgres import spend_log, spends
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.permits import PostgresPermits

KEYS = [f"key {number}" for number in range(15)]


async def main(url: str, seed: int) -> None:
    """All is logged, and logs begin and are folded and forgotten all the time."""
    dice = random.Random(seed)
    spends.LOGGED, spend_log.REST, spend_log.LONG = 1, 0.0, dice.choice([1, 3, 1000])
    spend_log.MOST_KEYS, spend_log.MOST_FOLDED = dice.choice([10, 1000]), dice.choice([5, 1000])
    database = PostgresDatabase(url)
    await database.open()
    permits = PostgresPermits(database)
    while True:
        sort = dice.random()
        if sort < 0.8:
            tell(await spent(permits, dice.choices(KEYS, k=dice.choice([1, 12, 60]))))
        elif sort < 0.85:
            tell(await permits.reserve([PermitRequest("api", key) for key in dice.choices(KEYS, k=3)]))
        elif sort < 0.9:
            with suppress(RateLimited):
                tell([await permits.reserve_within("api", dice.choice(KEYS), 2.0, timedelta(0))])
        elif sort < 0.99:
            await spend_log.end_log(database, "api")
        else:
            await permits.sweep(limit=100)


async def spent(permits: PostgresPermits, keys: list[str]) -> list[Permit]:
    answer = await permits.spend("api", 0.5, keys, range(len(keys)))
    return [
        Permit("api", key, 0.5, answer.at, AT_ONCE, full_at)
        for key, full_at in zip(keys, answer.full_at, strict=True)
        if full_at is not None
    ]


def tell(permits: Iterable[Permit]) -> None:
    for one in permits:
        print(one.key, one.cost, one.at.timestamp(), one.full_at, sep="\t", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
