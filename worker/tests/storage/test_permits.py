"""Each key of a rate limit has tokens of its own; who comes too early is told when its turn is."""

import asyncio
import random
from datetime import timedelta

import pytest

from forge_jobs.errors import InvalidInput, RateLimited, UnknownScope
from forge_jobs.model.job import Postponement, Reason
from forge_jobs.model.permit import PermitRequest
from tests.storage.factories import running, worker

SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
async def api(storage):
    """5 at once, and 2 a second."""
    await storage.limits.set("api", capacity=5, refill=2.0)


async def waits(storage, *keys, **facts):
    permits = await storage.permits.reserve([PermitRequest("api", key, **facts) for key in keys])
    return [permit.wait.total_seconds() for permit in permits]


async def test_a_key_has_its_burst_and_then_one_token_after_another(storage, clock):
    await clock.freeze()

    assert await waits(storage, *["ann"] * 8) == [0, 0, 0, 0, 0, 0.5, 1, 1.5]


async def test_keys_do_not_share_tokens(storage, clock):
    await clock.freeze()

    assert await waits(storage, *["ann"] * 6, "bob") == [0, 0, 0, 0, 0, 0.5, 0]


async def test_requests_in_one_call_and_in_many_get_the_same(storage, clock):
    await clock.freeze()
    together = await waits(storage, *["ann"] * 9)

    assert [wait for _ in range(9) for wait in await waits(storage, "bob")] == together


async def test_tokens_come_back_with_time_up_to_the_burst(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 5)

    await clock.advance(seconds=1)
    assert await waits(storage, *["ann"] * 3) == [0, 0, 0.5]

    await clock.advance(days=1)
    assert await waits(storage, *["ann"] * 6) == [0, 0, 0, 0, 0, 0.5]


async def test_what_costs_more_takes_more(storage, clock):
    await clock.freeze()

    assert await waits(storage, "ann", cost=4) == [0]
    assert await waits(storage, "ann", cost=2) == [0.5]
    assert await waits(storage, "ann", cost=0.5) == [0.75]


async def test_the_permit_says_from_when_on_it_holds(storage, clock):
    now = await clock.freeze()
    await waits(storage, *["ann"] * 6)

    [permit] = await storage.permits.reserve([PermitRequest("api", "ann")])

    assert (permit.at, permit.wait, permit.cost) == (now + SECOND, SECOND, 1)


async def test_whoever_cannot_wait_spends_nothing_and_hears_when_to_come_again(storage, clock):
    await clock.freeze()
    for _ in range(5):
        await storage.permits.reserve_within("api", "ann", 1, timedelta(0))

    for _ in range(2):
        with pytest.raises(RateLimited, match=r"has no token for 'ann' before 0\.5 s") as refused:
            await storage.permits.reserve_within("api", "ann", 1, timedelta(seconds=0.4))
        assert refused.value.retry_after == timedelta(seconds=0.5)

    permit = await storage.permits.reserve_within("api", "ann", 1, timedelta(seconds=0.5))
    assert permit.wait == timedelta(seconds=0.5)


async def test_what_was_reserved_and_not_used_is_given_back_and_what_was_used_beyond_is_paid(storage, clock):
    await clock.freeze()
    await waits(storage, "ann", cost=5)

    await storage.permits.spend_more("api", "ann", -3)
    assert await waits(storage, *["ann"] * 4) == [0, 0, 0, 0.5]

    await storage.permits.spend_more("api", "bob", 7)
    assert await waits(storage, "bob") == [1.5]


async def test_a_job_that_asks_again_gets_the_permit_that_was_kept_for_it(storage, clock):
    now = await clock.freeze()
    await waits(storage, *["ann"] * 5)
    assert await waits(storage, "ann", job_id=7) == [0.5]
    assert await waits(storage, "ann") == [1.0]

    assert await waits(storage, "ann", job_id=7) == [0.5], "it asks too early"
    await clock.set(now + timedelta(seconds=0.5))
    assert await waits(storage, "ann", job_id=7) == [0], "its time has come, though others wait"
    assert await waits(storage, "ann", job_id=7) == [1.0], "a permit is used once"


async def test_what_a_job_was_granted_and_has_not_used_is_kept_and_not_paid_again(storage, clock):
    await clock.freeze()
    granted = [PermitRequest("api", "ann", 5, job_id=7)]
    await storage.permits.reserve(granted)

    await storage.permits.keep(granted)
    await storage.permits.keep(granted)

    assert await waits(storage, "ann", cost=5, job_id=7) == [0]
    assert await waits(storage, "ann", cost=1, job_id=7) == [0.5]


async def test_each_take_of_a_key_in_a_run_has_its_own_permit(storage, clock):
    now = await clock.freeze()
    await waits(storage, *["ann"] * 5)
    assert await waits(storage, "ann", job_id=7, take=1) == [0.5]
    assert await waits(storage, "ann", job_id=7, take=2) == [1.0]

    await clock.set(now + SECOND)
    assert await waits(storage, "ann", job_id=7, take=2) == [0]
    assert await waits(storage, "ann", job_id=7, take=1) == [0]
    assert await waits(storage, "ann") == [0.5]


async def test_a_permit_of_another_cost_is_no_answer(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 5)
    assert await waits(storage, "ann", job_id=7) == [0.5]

    assert await waits(storage, "ann", job_id=7, cost=2) == [1.5]


async def test_a_job_that_waits_for_its_turn_needs_no_permit_that_is_kept(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 5)

    assert await waits(storage, "ann", job_id=7, patience=SECOND) == [0.5]
    assert await waits(storage, "ann", job_id=7, patience=SECOND) == [1.0]


async def test_the_keys_in_use_are_listed_the_hottest_first(storage, clock):
    now = await clock.freeze()
    await waits(storage, *["ann"] * 3, *["bob"] * 9, "eve")
    await clock.advance(seconds=0.5)

    bob, ann = await storage.permits.hottest("api", limit=2)

    assert (bob.key, round(bob.spent, 3), bob.free_at) == ("bob", 8, now + timedelta(seconds=4.5))
    assert (ann.key, round(ann.spent, 3)) == ("ann", 2)
    assert [use.key for use in await storage.permits.hottest("api", limit=10)] == ["bob", "ann"], (
        "eve's tokens are back"
    )


async def test_a_key_has_a_row_only_while_it_is_in_use(storage, clock, database):
    async def keys():
        return [row[0] for row in await database.rows("SELECT key FROM rate_key ORDER BY key")]

    await waits(storage, *["ann"] * 3, "bob")
    await clock.advance(seconds=1)

    assert not await storage.permits.sweep(limit=10)
    assert await keys() == ["ann"]

    await clock.advance(seconds=1)
    await storage.permits.sweep(limit=10)
    assert await keys() == []


async def test_a_sweep_looks_at_so_many_keys_and_the_next_at_those_behind_them(storage, clock, database):
    await waits(storage, *["ann"] * 3, "bob", "eve")
    await clock.advance(seconds=1)

    assert [await storage.permits.sweep(limit=1) for _ in range(4)] == [True, True, True, False]
    assert [row[0] for row in await database.rows("SELECT key FROM rate_key")] == ["ann"]

    await clock.advance(seconds=1)
    assert await storage.permits.sweep(limit=1)
    assert await database.rows("SELECT key FROM rate_key") == []


async def test_old_permits_are_swept_so_many_at_once(storage, clock, database):
    await waits(storage, *["ann"] * 5)
    for job_id in (7, 8, 9):
        await waits(storage, "ann", job_id=job_id)
    await clock.advance(hours=23)
    await storage.permits.sweep(limit=10)
    assert len(await database.rows("SELECT job_id FROM permit")) == 3

    await clock.advance(days=1)
    assert await storage.permits.sweep(limit=2)
    assert len(await database.rows("SELECT job_id FROM permit")) == 1
    assert not await storage.permits.sweep(limit=2)
    assert await database.rows("SELECT job_id FROM permit") == []


async def test_the_keys_go_with_their_rate_limit(storage):
    await waits(storage, "ann")

    await storage.limits.delete("api")

    with pytest.raises(UnknownScope):
        await storage.permits.hottest("api", limit=10)
    await storage.limits.set("api", capacity=5, refill=2.0)
    assert await storage.permits.hottest("api", limit=10) == []


async def test_a_faster_limit_helps_keys_and_permits_at_once_and_a_slower_one_holds_them(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 5)
    assert await waits(storage, "ann", job_id=7) == [0.5]
    assert await waits(storage, "ann") == [1]

    await storage.limits.set("api", capacity=5, refill=10.0)
    assert await waits(storage, "ann", job_id=7) == [0.1]
    assert await waits(storage, "ann") == [0.3]

    await storage.limits.set("api", capacity=5, refill=0.5)
    assert await waits(storage, "ann", job_id=7) == [2]
    assert await waits(storage, "ann") == [8]

    await clock.advance(seconds=2)
    assert await waits(storage, "ann", job_id=7) == [0]


async def test_what_flowed_before_a_change_stays_counted_as_it_flowed(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 5)
    await clock.advance(seconds=1)

    await storage.limits.set("api", capacity=5, refill=1.0)
    await clock.advance(seconds=1)

    assert await waits(storage, *["ann"] * 4) == [0, 0, 0, 1]


async def test_a_larger_bucket_helps_keys_at_once_and_a_smaller_one_holds_them(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 5)
    assert await waits(storage, "ann", job_id=7) == [0.5]

    await storage.limits.set("api", capacity=7, refill=2.0)
    assert await waits(storage, "ann", job_id=7) == [0]
    assert await waits(storage, *["ann"] * 2) == [0, 0.5]

    await storage.limits.set("api", capacity=1, refill=2.0)
    assert await waits(storage, "ann") == [4]
    assert await waits(storage, *["bob"] * 2) == [0, 0.5]


async def test_a_limit_that_is_emptied_is_empty_for_each_key(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 3)

    await storage.tokens.empty("api")

    assert await waits(storage, "ann", "bob", "bob") == [0.5, 0.5, 1]
    with pytest.raises(RateLimited) as refused:
        await storage.permits.reserve_within("api", "eve", 1, timedelta(0))
    assert refused.value.retry_after == timedelta(seconds=0.5)
    await clock.advance(days=1)
    await storage.permits.sweep(limit=10)
    assert await waits(storage, *["ann"] * 6) == [0, 0, 0, 0, 0, 0.5]


async def test_who_was_promised_a_later_token_keeps_it_when_the_limit_is_emptied(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 5)
    granted = [PermitRequest("api", "bob", 1, job_id=8)]
    await storage.permits.reserve(granted)
    await storage.permits.keep(granted)
    assert await waits(storage, "ann", job_id=7) == [0.5]

    await storage.tokens.empty("api")

    assert await waits(storage, "ann", job_id=7) == [0.5]
    assert await waits(storage, "ann") == [1]
    assert await waits(storage, "bob", job_id=8) == [0.5], "its token was there, and is gone"


async def test_an_emptied_limit_that_becomes_smaller_or_larger_holds_its_keys_no_longer_than_before(
    storage, clock
):
    await clock.freeze()
    await storage.limits.set("api", capacity=1000, refill=2.0)
    await storage.tokens.empty("api")

    await storage.limits.set("api", capacity=10, refill=2.0)
    assert await waits(storage, "ann") == [0.5]
    await storage.limits.set("api", capacity=100, refill=2.0)
    assert await waits(storage, "bob") == [0.5]

    await clock.advance(seconds=10)
    await storage.limits.set("api", capacity=10, refill=2.0)
    assert await waits(storage, *["eve"] * 11) == [0] * 10 + [0.5]


async def test_keys_that_are_used_before_and_after_a_limit_is_emptied_wait_no_longer_when_it_becomes_smaller(
    storage, clock
):
    await clock.freeze()
    await storage.limits.set("api", capacity=1000, refill=2.0)
    await waits(storage, *["bob"] * 500)
    await storage.tokens.empty("api")
    assert await waits(storage, *["ann"] * 3) == [0.5, 1, 1.5]
    assert await waits(storage, "ann", job_id=7) == [2]

    await storage.limits.set("api", capacity=10, refill=2.0)

    assert await waits(storage, "bob") == [0.5]
    assert await waits(storage, "ann", job_id=7) == [2]
    assert await waits(storage, "ann") == [2.5]
    assert await waits(storage, "eve") == [0.5]
    await clock.advance(days=1)
    assert await waits(storage, *["ann"] * 11) == [0] * 10 + [0.5]


async def test_permits_hold_or_are_void_though_an_emptied_limit_becomes_smaller_or_larger(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 5)
    granted = [PermitRequest("api", "bob", 1, job_id=8)]
    await storage.permits.reserve(granted)
    await storage.permits.keep(granted)
    assert await waits(storage, "ann", job_id=7) == [0.5]
    await storage.tokens.empty("api")

    await storage.limits.set("api", capacity=6, refill=2.0)
    assert await waits(storage, "ann", job_id=7) == [0], "it gained one"
    await storage.limits.set("api", capacity=2, refill=2.0)
    assert await waits(storage, "bob", job_id=8) == [0.5], "its token is gone"
    assert await waits(storage, "bob", job_id=9) == [1]
    assert await waits(storage, "bob", job_id=8) == [0.5], "it is not paid twice"
    assert await waits(storage, "bob", job_id=9) == [1]


async def test_a_permit_is_used_when_its_job_waits_for_its_turn(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 5)
    assert await waits(storage, "ann", job_id=7) == [0.5]

    assert await waits(storage, "ann", job_id=7, patience=SECOND) == [0.5]
    assert await waits(storage, "ann", job_id=7, patience=SECOND) == [1.0]


async def test_of_a_limit_that_is_gone_nothing_is_kept(storage, clock):
    await clock.freeze()
    granted = [PermitRequest("nix", "ann", 1, job_id=7), PermitRequest("api", "ann", 5, job_id=7)]
    await waits(storage, "ann", cost=5)

    await storage.permits.keep(granted)

    assert await waits(storage, "ann", cost=5, job_id=7) == [0]


async def test_a_limit_is_changed_lately_when_its_numbers_are_others(storage, clock):
    assert await storage.limits.changed() == []
    await storage.limits.set("api", capacity=5, refill=2.0)
    assert await storage.limits.changed() == [], "it is as it was"

    await storage.limits.set("api", capacity=5, refill=3.0)
    assert await storage.limits.changed() == ["api"]

    await clock.advance(minutes=11)
    assert await storage.limits.changed() == []


async def test_jobs_that_wait_for_a_permit_come_sooner_when_the_limit_is_faster(storage, clock):
    now = await clock.freeze()
    await storage.limits.set("other", capacity=1, refill=0.01)
    me = await worker(storage)
    jobs = [await running(storage, me) for _ in range(3)]
    await storage.permits.reserve([PermitRequest("api", "ann", 5), PermitRequest("other", "ann")])
    wanted = [
        PermitRequest("api", "ann", 5, job_id=jobs[0].job_id),
        PermitRequest("api", "ann", 5, job_id=jobs[1].job_id),
        PermitRequest("other", "ann", job_id=jobs[1].job_id),
        PermitRequest("api", "ann", 1, job_id=jobs[2].job_id),
    ]
    first, _, both, _ = await storage.permits.reserve(wanted)
    whole_day = now + timedelta(days=1)
    moments = [first.at, both.at, whole_day]
    await storage.claims.postpone(
        [
            Postponement(claim, Reason.THROTTLED, run_at=at, counted=False)
            for claim, at in zip(jobs, moments, strict=True)
        ]
    )

    await storage.limits.set("api", capacity=5, refill=20.0)
    await storage.permits.moved("api")

    assert [(await storage.jobs.get(job.job_id)).run_at for job in jobs] == [
        now + timedelta(seconds=0.25),
        both.at,
        whole_day,
    ], "the second waits for another limit, and the third for something else"


async def test_permits_that_come_later_now_are_kept_for_longer(storage, clock):
    now = await clock.freeze()
    await waits(storage, *["ann"] * 5)
    await waits(storage, "ann", job_id=7, cost=5)

    await storage.limits.set("api", capacity=5, refill=5 / 172_800)
    await storage.permits.moved("api")
    await clock.set(now + timedelta(days=1.5))
    await storage.permits.sweep(limit=10)

    assert await waits(storage, "ann", job_id=7, cost=5) == [43_200]


async def test_a_limit_that_is_not_refilled_any_more_lists_its_keys(storage):
    await waits(storage, "ann")

    await storage.limits.set("api", capacity=5, refill=0)
    await storage.permits.moved("api")

    [ann] = await storage.permits.hottest("api", limit=10)
    assert (ann.key, ann.free_at) == ("ann", None)


async def test_who_is_told_to_come_again_is_never_told_to_come_now(storage, another, clock):
    await clock.freeze()
    storages = [storage, *[await another() for _ in range(7)]]

    async def take(mine):
        refused = []
        for _ in range(4):
            try:
                await mine.permits.reserve_within("api", "ann", 1, timedelta(0))
            except RateLimited as error:
                refused.append(error.retry_after)
        return refused

    answers = await asyncio.gather(*map(take, storages))

    refused = [wait for some in answers for wait in some]
    assert len(refused) == 32 - 5
    assert all(wait > timedelta(0) for wait in refused)


async def test_what_can_never_be_is_refused(storage):
    await storage.limits.set("once", capacity=5, refill=0)
    with pytest.raises(InvalidInput, match="never refilled"):
        await storage.permits.reserve([PermitRequest("once", "ann")])
    for refused in (
        storage.permits.reserve([PermitRequest("api", "ann"), PermitRequest("api", "bob", cost=6)]),
        storage.permits.reserve_within("api", "ann", 6, SECOND),
    ):
        with pytest.raises(
            InvalidInput, match="6 tokens of rate limit 'api' are wanted, allowed is at most 5"
        ):
            await refused
    for refused in (
        storage.permits.reserve([PermitRequest("nix", "ann")]),
        storage.permits.reserve_within("nix", "ann", 1, SECOND),
        storage.permits.spend_more("nix", "ann", 1),
    ):
        with pytest.raises(UnknownScope, match="rate limits: api, once"):
            await refused


async def test_where_one_of_many_requests_is_refused_nothing_is_spent(storage, clock):
    await clock.freeze()
    wanted = [PermitRequest("api", "ann", cost=5), PermitRequest("api", "ann", cost=6)]

    with pytest.raises(InvalidInput, match="6 tokens"):
        await storage.permits.reserve(wanted)

    assert await waits(storage, "ann", cost=5) == [0]


async def test_many_who_race_never_get_more_than_the_limit_allows(storage, another, clock):
    now = await clock.freeze()
    seeded = random.Random(7)
    storages = [storage, *[await another() for _ in range(3)]]

    async def race(mine):
        taken = []
        for _ in range(20):
            wanted = [
                PermitRequest("api", seeded.choice("abc"), cost=seeded.choice([1, 2]))
                for _ in range(seeded.randint(1, 5))
            ]
            taken += await mine.permits.reserve(wanted)
        return taken

    permits = [permit for taken in await asyncio.gather(*map(race, storages)) for permit in taken]

    for key in "abc":
        mine = sorted((permit for permit in permits if permit.key == key), key=lambda permit: permit.at)
        spent = 0.0
        for permit in mine:
            spent += permit.cost
            assert spent <= 5 + 2 * (permit.at - now).total_seconds() + 1e-3
        last = mine[-1].at
        assert spent >= 2 * (last - now).total_seconds(), "and none of it is lost"


async def test_tokens_that_are_given_back_are_there_again(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 5, "bob")

    await storage.permits.give_back([PermitRequest("api", key) for key in ("ann", "ann", "bob", "eve")])

    assert await waits(storage, *["ann"] * 3) == [0, 0, 0.5]
    assert await waits(storage, *["bob"] * 6) == [0, 0, 0, 0, 0, 0.5]
    assert await waits(storage, *["eve"] * 6) == [0, 0, 0, 0, 0, 0.5]


async def test_tokens_that_have_flowed_back_or_were_taken_from_all_are_not_given_back_twice(storage, clock):
    await clock.freeze()
    await waits(storage, "ann", "bob")
    await clock.advance(days=1)
    await storage.permits.give_back([PermitRequest("api", "ann")])
    assert await waits(storage, *["ann"] * 6) == [0, 0, 0, 0, 0, 0.5]

    await storage.tokens.empty("api")
    await storage.permits.give_back([PermitRequest("api", "bob", 5.0)])
    assert await waits(storage, "bob") == [0.5]
