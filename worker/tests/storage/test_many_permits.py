"""Many requests for tokens of keys in one call get what each would get by itself, and what is there at once is told fast."""

import asyncio
import itertools
import random
from datetime import timedelta

import pytest

from forge_jobs.errors import InvalidInput
from forge_jobs.model.permit import Permit, PermitRequest
from tests.storage.spending import check_spending

AT_ONCE = timedelta(0)


@pytest.fixture(autouse=True)
async def now(storage, clock):
    """5 at once, and 2 a second, of two rate limits that are alike; time stands still."""
    now = await clock.freeze()
    for scope in ("together", "alone"):
        await storage.limits.set(scope, capacity=5, refill=2.0)
    return now


async def each_alone(storage, wanted):
    """Return the permits for these requests, asked for one after the other and at the other rate limit."""
    return [
        permit
        for request in wanted
        for permit in await storage.permits.reserve(
            [PermitRequest("alone", request.key, request.cost, request.job_id, request.take)]
        )
    ]


def random_requests(dice, round):
    """Return requests of users and of jobs that have asked before, some of which are promised a later moment."""
    wanted: list[PermitRequest] = []
    for _ in range(dice.randint(10, 40)):
        job_id = dice.choice([None, dice.randint(1, 60), 1000 * round + len(wanted)])
        key = str(job_id % 7) if job_id is not None and job_id <= 60 else dice.choice("0123456789")
        cost = 1.0 if job_id is not None and job_id <= 60 else dice.choice([1, 1, 1, 0.5, 3])
        if job_id is None or all(job_id != other.job_id for other in wanted):
            wanted.append(PermitRequest("together", key, cost, job_id))
    return wanted


@pytest.mark.parametrize("seed", range(6))
async def test_many_requests_in_one_call_get_what_each_gets_by_itself(storage, clock, seed):
    dice = random.Random(seed)

    for round in range(1, 13):
        wanted = random_requests(dice, round)
        together = await storage.permits.reserve(wanted)
        alone = await each_alone(storage, wanted)
        for request, ours, theirs in zip(wanted, together, alone, strict=True):
            assert (ours.scope, ours.key, ours.cost) == ("together", request.key, request.cost)
            assert abs((ours.at - theirs.at).total_seconds()) < 1e-5
            assert abs((ours.wait - theirs.wait).total_seconds()) < 1e-5
            assert ours.full_at == pytest.approx(theirs.full_at, abs=1e-5)
        await clock.advance(seconds=dice.choice([0, 0.3, 1, 5, 60]))


async def test_many_requests_for_one_key_get_theirs_in_their_order(storage):
    permits = await storage.permits.reserve([PermitRequest("together", "ann")] * 12)

    waits = [permit.wait.total_seconds() for permit in permits]
    assert waits == [0, 0, 0, 0, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]


async def test_a_permit_that_was_kept_is_found_among_many_requests(storage):
    mine = PermitRequest("together", "ann", 5.0, 7)
    [permit] = await storage.permits.reserve([mine])
    await storage.permits.keep([(mine, permit)])
    others = [PermitRequest("together", str(number), 1.0, 100 + number) for number in range(30)]

    permits = await storage.permits.reserve([*others[:15], mine, *others[15:]])

    assert all(permit.wait == AT_ONCE for permit in permits)
    assert permits[15].full_at == permit.full_at
    [again] = await storage.permits.reserve([PermitRequest("together", "ann")])
    assert again.wait == timedelta(seconds=0.5), "it was paid once"


async def test_keys_may_hold_any_character(storage):
    keys = ["a\x1fb", "a", "b", "ä", "\x01", "a,b", "{}", '"', "\\", "'", "NULL", "%", "\n", "\x1f", "🦊"]

    for wait in (AT_ONCE, timedelta(seconds=2.5)):
        permits = await storage.permits.reserve([PermitRequest("together", key, 5.0) for key in keys])
        assert [(permit.key, permit.wait) for permit in permits] == [(key, wait) for key in keys]


@pytest.mark.parametrize("cost", [6.0, 5.0])
async def test_where_one_of_many_is_refused_nothing_is_spent(storage, cost):
    await storage.limits.set("dry", capacity=5, refill=0)
    refused = PermitRequest("together" if cost > 5 else "dry", "x", cost)
    wanted = [PermitRequest("together", str(number), 5.0) for number in range(30)]

    with pytest.raises(InvalidInput):
        await storage.permits.reserve([*wanted, refused])

    assert all(permit.wait == AT_ONCE for permit in await storage.permits.reserve(wanted))


async def test_keys_of_a_limit_that_was_emptied_have_nothing_at_once(storage):
    await storage.tokens.empty("together")

    permits = await storage.permits.reserve([PermitRequest("together", str(number)) for number in range(20)])

    assert {permit.wait for permit in permits} == {timedelta(seconds=0.5)}


@pytest.mark.parametrize("seed", range(3))
async def test_of_many_who_ask_for_many_at_once_nobody_gets_what_another_has(storage, another, now, seed):
    storages = [storage, *[await another() for _ in range(3)]]

    async def ask(number):
        dice = random.Random(100 * seed + number)
        granted: list[Permit] = []
        for _ in range(15):
            keys = dice.sample("abcdefghijklmnopqrstuvwxyz", dice.randint(10, 20))
            jobs = itertools.count(10_000 * number + 100 * len(granted))
            wanted = [PermitRequest("together", key, dice.choice([0.25, 1]), next(jobs)) for key in keys]
            granted += await storages[number].permits.reserve(wanted)
        return granted

    permits = [permit for granted in await asyncio.gather(*map(ask, range(4))) for permit in granted]

    check_spending(permits, capacity=5, refill=2, since=now)
    assert {permit.key for permit in permits} == set("abcdefghijklmnopqrstuvwxyz")
