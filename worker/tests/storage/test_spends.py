"""Tokens of keys that many jobs ask for at once: who can have them now has them, and nothing is promised to the others."""

import asyncio
import random
from datetime import timedelta

import pytest

from forge_jobs.model.permit import Permit, PermitRequest
from tests.storage.spending import check_spending

MANY = [f"key {number}" for number in range(60)]
JOBS = range(1, 61)


@pytest.fixture(autouse=True)
async def now(storage, clock):
    """5 at once, and 2 a second; time stands still."""
    now = await clock.freeze()
    await storage.limits.set("api", capacity=5, refill=2.0)
    return now


async def spent(storage, scope="api"):
    """Return how many tokens of each key are spent."""
    return {use.key: round(use.spent, 1) for use in await storage.permits.hottest(scope, limit=1000)}


async def test_each_job_whose_key_has_tokens_now_has_paid(storage):
    for _ in range(2):
        answer = await storage.permits.spend("api", 2.0, MANY, JOBS)
        assert None not in answer.full_at

    assert await spent(storage) == dict.fromkeys(MANY, 4.0)


async def test_nothing_is_spent_or_promised_where_a_key_has_too_little(storage):
    await storage.permits.spend("api", 4.0, MANY[:30], JOBS[:30])

    answer = await storage.permits.spend("api", 2.0, MANY, JOBS)

    assert [full_at is None for full_at in answer.full_at] == [True] * 30 + [False] * 30
    assert await spent(storage) == {**dict.fromkeys(MANY[:30], 4.0), **dict.fromkeys(MANY[30:], 2.0)}


async def test_of_jobs_of_one_key_the_first_have_its_tokens(storage):
    answer = await storage.permits.spend("api", 1.0, ["ann"] * 60, JOBS)

    assert [full_at is None for full_at in answer.full_at] == sorted(
        full_at is None for full_at in answer.full_at
    )
    granted = sum(full_at is not None for full_at in answer.full_at)
    assert granted in (0, 5)
    later = await storage.permits.reserve([PermitRequest("api", "ann", 1.0, job) for job in JOBS[granted:]])
    waits = [permit.wait.total_seconds() for permit in later]
    assert waits == [max(0.0, 0.5 * (number - 4)) for number in range(granted, 60)]


async def test_a_job_for_which_a_permit_is_kept_pays_nothing_anew(storage):
    mine = PermitRequest("api", MANY[7], 1.0, JOBS[7])
    await storage.permits.keep(list(zip([mine], await storage.permits.reserve([mine]), strict=True)))

    answer = await storage.permits.spend("api", 1.0, MANY, JOBS)

    assert answer.full_at[7] is None
    [permit] = await storage.permits.reserve([mine])
    assert not permit.wait
    assert (await spent(storage))[MANY[7]] == 1.0


@pytest.mark.parametrize(("scope", "cost"), [("dry", 1.0), ("api", 6.0), ("nowhere", 1.0)])
async def test_nothing_is_spent_of_what_gives_no_permit(storage, scope, cost):
    await storage.limits.set("dry", capacity=5, refill=0)
    await storage.permits.spend("api", 1.0, MANY, JOBS)

    answer = await storage.permits.spend(scope, cost, MANY, JOBS)

    assert answer.full_at == [None] * len(MANY)
    assert await spent(storage) == dict.fromkeys(MANY, 1.0)


async def test_keys_may_hold_any_character(storage):
    keys = ["a\x1fb", "a", "b", "ä", "\x01", "a,b", "{}", '"', "\\", "'", "NULL", "%", "\n", "\x1f", "🦊"] * 4

    for _ in range(2):
        for request, full_at in zip(
            keys, (await storage.permits.spend("api", 0.5, keys, JOBS)).full_at, strict=True
        ):
            if full_at is None:
                await storage.permits.reserve([PermitRequest("api", request, 0.5)])

    assert await spent(storage) == dict.fromkeys(keys, 4.0)


async def have_tokens(storage, cost):
    """Spend so much of each key; return whether it was there. A database that has just found most keys short looks at none once."""
    await storage.permits.spend("other", 1.0, MANY, JOBS)
    answer = await storage.permits.spend("api", cost, MANY, JOBS)
    return [full_at is not None for full_at in answer.full_at]


async def test_a_limit_that_is_emptied_or_changed_or_made_full_is_so_for_who_spends(storage, clock):
    await storage.limits.set("other", capacity=1000, refill=1)
    await storage.permits.spend("api", 1.0, MANY, JOBS)
    await storage.tokens.empty("api")
    assert not any(await have_tokens(storage, 1.0))
    await storage.permits.reset("api", MANY[0])
    [permit] = await storage.permits.reserve([PermitRequest("api", MANY[0], 5.0)])
    assert not permit.wait
    await clock.advance(seconds=10)
    assert all(await have_tokens(storage, 5.0))
    await storage.limits.set("api", capacity=7, refill=2.0)

    assert all(await have_tokens(storage, 2.0))
    assert not any(await have_tokens(storage, 1.0))


@pytest.mark.parametrize("seed", range(4))
async def test_of_many_who_spend_at_once_nobody_gets_what_another_has(storage, another, now, seed):
    storages = [storage, *[await another() for _ in range(3)]]

    async def use(number):
        dice = random.Random(100 * seed + number)
        granted: list[Permit] = []
        for turn in range(12):
            keys = dice.choices(MANY[:40], k=dice.choice([1, 12, 60]))
            jobs = range(10_000 * number + 100 * turn, 10_000 * number + 100 * turn + len(keys))
            permits = storages[number].permits
            if dice.random() < 0.8:
                cost = dice.choice([0.25, 0.5])
                answer = await permits.spend("api", cost, keys, jobs)
                granted += [
                    Permit("api", key, cost, answer.at, timedelta(0), full_at)
                    for key, full_at in zip(keys, answer.full_at, strict=True)
                    if full_at is not None
                ]
            else:
                wanted = [PermitRequest("api", key, 1.0, job) for key, job in zip(keys, jobs, strict=True)]
                granted += await permits.reserve(wanted)
            if dice.random() < 0.2:
                await permits.sweep(limit=10)
        return granted

    permits = [permit for granted in await asyncio.gather(*map(use, range(4))) for permit in granted]

    check_spending(permits, capacity=5, refill=2, since=now)
    by_key = {key: sum(permit.cost for permit in permits if permit.key == key) for key in MANY[:40]}
    assert {key: tokens for key, tokens in by_key.items() if tokens} == pytest.approx(
        await spent(storage), abs=0.2
    )
