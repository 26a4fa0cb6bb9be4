"""A token is given to one process, and no more tokens than the bucket has."""

import asyncio
import math
import random
from datetime import timedelta

import pytest

from forge_jobs.errors import ForgeError, Managed, UnknownScope
from forge_jobs.model.rate_limit import RateLimit
from tests.storage.factories import worker


async def limit(storage, scope="slack"):
    [found] = [one for one in await storage.limits.all() if one.scope == scope]
    return found


@pytest.fixture
async def slack(storage, clock):
    """A bucket of ten tokens that gets two a second, at a moment that stands still."""
    await clock.freeze()
    await storage.limits.set("slack", capacity=10, refill=2)


async def test_a_new_bucket_is_full(storage):
    answer = await storage.limits.set("slack", capacity=10, refill=2)

    assert answer == RateLimit("slack", capacity=10, refill=2, tokens=10)
    assert await storage.limits.all() == [answer]


async def test_leased_tokens_are_out_of_the_bucket(storage, slack):
    lease = await storage.tokens.lease("slack", 4)

    assert (lease.scope, lease.tokens, lease.generation) == ("slack", 4, 0)
    assert (await limit(storage)).tokens == pytest.approx(6)


async def test_no_more_is_leased_than_there_is(storage, slack):
    assert (await storage.tokens.lease("slack", 25)).tokens == 10

    lease = await storage.tokens.lease("slack", 1)

    assert lease.tokens == 0
    assert lease.retry_after == pytest.approx(0.5, abs=0.01)


async def test_the_bucket_fills_with_time_up_to_its_capacity(storage, slack, clock):
    await storage.tokens.lease("slack", 10)

    await clock.advance(seconds=2)
    assert (await limit(storage)).tokens == pytest.approx(4, abs=0.01)
    assert (await storage.tokens.lease("slack", 10)).tokens == 4

    await clock.advance(hours=1)
    assert (await limit(storage)).tokens == 10
    assert (await storage.tokens.lease("slack", 99)).tokens == 10


async def test_only_whole_tokens_are_leased_and_the_rest_is_kept(storage, slack, clock):
    await storage.tokens.lease("slack", 10)

    await clock.advance(seconds=0.75)
    lease = await storage.tokens.lease("slack", 10)
    assert lease.tokens == 1
    assert lease.retry_after == pytest.approx(0.25, abs=0.01)

    await clock.advance(seconds=0.25)
    assert (await storage.tokens.lease("slack", 10)).tokens == 1


async def test_many_small_waits_mint_as_much_as_a_long_one(storage, slack, clock):
    await storage.tokens.lease("slack", 10)

    got = 0
    for _ in range(40):
        await clock.advance(seconds=0.1)
        got += (await storage.tokens.lease("slack", 10)).tokens

    assert got == 8


async def test_a_bucket_that_is_never_filled_says_so(storage):
    await storage.limits.set("once", capacity=1, refill=0)

    assert (await storage.tokens.lease("once", 1)).tokens == 1
    assert math.isinf((await storage.tokens.lease("once", 1)).retry_after)


async def test_tokens_that_were_not_spent_are_given_back(storage, slack):
    lease = await storage.tokens.lease("slack", 5)

    await storage.tokens.give_back(lease, 3)

    assert (await limit(storage)).tokens == pytest.approx(8)


async def test_giving_back_never_overfills_the_bucket(storage, slack, clock):
    lease = await storage.tokens.lease("slack", 5)
    await clock.advance(hours=1)

    await storage.tokens.give_back(lease, 5)

    assert (await limit(storage)).tokens == 10
    assert (await storage.tokens.lease("slack", 99)).tokens == 10


async def test_what_has_flowed_back_meanwhile_is_not_given_back_too(storage, slack, clock):
    first = await storage.tokens.lease("slack", 10)
    await clock.advance(seconds=2)
    assert (await storage.tokens.lease("slack", 99)).tokens == 4

    await storage.tokens.give_back(first, 10)

    assert (await limit(storage)).tokens == pytest.approx(6)  # as if nobody had taken the first ten


async def test_a_bucket_that_others_use_gets_back_what_it_has_room_for(storage, slack, clock):
    await storage.tokens.lease("slack", 6)
    lease = await storage.tokens.lease("slack", 2)
    await clock.advance(seconds=1)
    await storage.tokens.lease("slack", 1)

    await storage.tokens.give_back(lease, 2)

    assert (await limit(storage)).tokens == pytest.approx(5)


@pytest.mark.parametrize(("capacity", "left"), [(20, 6), (12, 6), (8, 4), (5, 1)])
async def test_what_is_given_back_is_measured_by_the_capacity_of_now(storage, slack, clock, capacity, left):
    lease = await storage.tokens.lease("slack", 10)
    await storage.limits.set("slack", capacity=capacity, refill=2)
    await clock.advance(seconds=2)
    await storage.tokens.lease("slack", 4)

    await storage.tokens.give_back(lease, 6)

    assert (await limit(storage)).tokens == pytest.approx(left)


@pytest.mark.parametrize("seed", range(5))
async def test_in_no_time_more_tokens_are_spent_than_flow_in_it_and_a_bucket_holds(
    storage, slack, clock, seed
):
    dice, spent, held, now = random.Random(seed), [], [], 0.0
    for _ in range(100):
        match dice.choice(["lease", "lease", "give back", "wait"]):
            case "lease":
                lease = await storage.tokens.lease("slack", dice.choice([1, 5, 10]))
                unspent = dice.choice([0, lease.tokens])
                spent.append((now, lease.tokens - unspent))
                held.append((lease, unspent))
            case "give back" if held:
                await storage.tokens.give_back(*held.pop(dice.randrange(len(held))))
            case _:
                step = dice.choice([0.5, 1, 4])
                await clock.advance(seconds=step)
                now += step

    for begin, _ in spent:
        for end in {moment for moment, _ in spent if moment >= begin}:
            assert sum(count for at, count in spent if begin <= at <= end) <= 10 + 2 * (end - begin)


async def test_a_emptied_bucket_is_empty_for_all_and_fills_again(storage, slack, clock):
    generation = await storage.tokens.empty("slack")

    lease = await storage.tokens.lease("slack", 1)
    assert (lease.tokens, lease.generation, generation) == (0, 1, 1)
    found = await limit(storage)
    assert (found.tokens, found.generation) == (0, 1)
    assert abs(found.emptied_at - clock.now()) < timedelta(milliseconds=1)

    await clock.advance(seconds=1)
    assert (await storage.tokens.lease("slack", 5)).tokens == 2


async def test_tokens_leased_before_a_bucket_was_emptied_do_not_come_back(storage, slack):
    lease = await storage.tokens.lease("slack", 5)
    await storage.tokens.empty("slack")

    await storage.tokens.give_back(lease, 5)

    assert (await limit(storage)).tokens == 0


async def test_a_clock_that_goes_back_mints_nothing(storage, slack, clock):
    await storage.tokens.lease("slack", 10)
    await clock.advance(hours=-1)

    assert (await storage.tokens.lease("slack", 1)).tokens == 0
    await clock.advance(hours=1)
    assert (await storage.tokens.lease("slack", 1)).tokens == 0


async def test_new_numbers_keep_the_tokens_cut_to_the_capacity(storage, slack):
    await storage.tokens.lease("slack", 2)

    assert (await storage.limits.set("slack", capacity=20, refill=1)).tokens == pytest.approx(8)
    assert (await storage.limits.set("slack", capacity=5, refill=1)).tokens == pytest.approx(5)


async def test_a_limit_that_was_there_keeps_its_numbers(storage, slack):
    await storage.limits.ensure("slack", capacity=99, refill=99)
    await storage.limits.ensure("smtp", capacity=3, refill=1)

    assert [(one.scope, one.capacity) for one in await storage.limits.all()] == [("slack", 10), ("smtp", 3)]


async def test_an_unknown_scope_is_an_error_that_names_the_known_ones(storage, slack):
    for call in (
        storage.tokens.lease("smtp", 1),
        storage.tokens.empty("smtp"),
        storage.limits.delete("smtp"),
    ):
        with pytest.raises(UnknownScope) as caught:
            await call
        assert (caught.value.scope, caught.value.known) == ("smtp", ("slack",))


async def test_giving_back_to_a_limit_that_is_gone_is_nothing(storage, slack):
    lease = await storage.tokens.lease("slack", 1)
    await storage.limits.delete("slack")

    await storage.tokens.give_back(lease, 1)

    assert await storage.limits.all() == []


@pytest.mark.parametrize(("capacity", "refill"), [(0, 1), (-1, 1), (1, -1)])
async def test_impossible_numbers_are_refused(storage, capacity, refill):
    with pytest.raises(ForgeError):
        await storage.limits.set("slack", capacity=capacity, refill=refill)

    assert await storage.limits.all() == []


async def test_a_limit_that_belongs_to_somebody_is_changed_by_them_only(storage):
    await storage.limits.set("slack", capacity=1, refill=1, managed_by="operator/a")

    with pytest.raises(Managed):
        await storage.limits.set("slack", capacity=2, refill=1)
    with pytest.raises(Managed):
        await storage.limits.delete("slack")
    assert (await storage.limits.set("slack", capacity=3, refill=1, managed_by="operator/a")).capacity == 3


async def test_a_change_shows_in_the_next_heartbeat(storage, slack):
    me = await worker(storage)
    before = (await storage.workers.beat(me)).revision

    await storage.limits.set("slack", capacity=3, refill=1)

    assert (await storage.workers.beat(me)).revision != before


async def test_ten_who_race_for_one_token_get_one(storage, another, slack):
    await storage.tokens.lease("slack", 9)
    storages = [storage, *[await another() for _ in range(9)]]

    leases = await asyncio.gather(*(mine.tokens.lease("slack", 1) for mine in storages))

    assert sorted(lease.tokens for lease in leases) == [0] * 9 + [1]


async def test_ten_who_take_and_give_back_never_get_one_too_many(storage, another, slack):
    storages = [storage, *[await another() for _ in range(9)]]

    async def spend(mine):
        spent = 0
        for turn in range(10):
            lease = await mine.tokens.lease("slack", 3)
            unspent = lease.tokens if turn % 2 else 0
            await mine.tokens.give_back(lease, unspent)
            spent += lease.tokens - unspent
        return spent

    assert sum(await asyncio.gather(*map(spend, storages))) == 10
    assert (await limit(storage)).tokens == 0
