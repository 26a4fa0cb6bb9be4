"""Each key of a rate limit has tokens of its own; who comes too early is told when its turn is."""

import asyncio
import itertools
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs.errors import InvalidInput, RateLimited, UnknownScope
from forge_jobs.maintenance import permits
from forge_jobs.model.job import Postponement, Reason
from forge_jobs.model.permit import AwaitedKey, Permit, PermitRequest, Swept
from tests.storage.factories import enqueue, running, worker
from tests.storage.spending import check_spending

SECOND = timedelta(seconds=1)
KEYS = "abcdefgh"


@pytest.fixture(autouse=True)
async def api(storage):
    """5 at once, and 2 a second."""
    await storage.limits.set("api", capacity=5, refill=2.0)


async def waits(storage, *keys, **facts):
    permits = await storage.permits.reserve([PermitRequest("api", key, **facts) for key in keys])
    return [permit.wait.total_seconds() for permit in permits]


async def granted(storage, *wanted):
    """Return the requests with the permits that they got."""
    return list(zip(wanted, await storage.permits.reserve(wanted), strict=True))


async def has(storage, cost, key="ann"):
    """Whether the key has so many tokens now; then they are spent."""
    try:
        await storage.permits.reserve_within("api", key, cost, timedelta(0))
    except RateLimited:
        return False
    return True


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


async def test_what_was_reserved_and_not_used_is_there_again_and_what_was_used_beyond_is_paid(storage, clock):
    await clock.freeze()
    [permit] = await storage.permits.reserve([PermitRequest("api", "ann", cost=5)])

    await storage.permits.settle(permit, -3)
    assert await waits(storage, *["ann"] * 4) == [0, 0, 0, 0.5]

    [of_bob] = await storage.permits.reserve([PermitRequest("api", "bob", cost=1)])
    await storage.permits.settle(of_bob, 6)
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
    mine = await granted(storage, PermitRequest("api", "ann", 5, job_id=7))

    await storage.permits.keep(mine)
    await storage.permits.keep(mine)

    assert await waits(storage, "ann", cost=5, job_id=7) == [0]
    assert await waits(storage, "ann", cost=1, job_id=7) == [0.5]


async def test_what_is_kept_is_there_as_long_as_its_job_waits_for_another_permit(storage, clock):
    await clock.freeze()
    await storage.limits.set("slow", capacity=1, refill=1 / 108_000)
    mine = await granted(storage, PermitRequest("api", "ann", 5, job_id=7))
    await storage.permits.reserve([PermitRequest("slow", "ann")])
    await storage.permits.reserve([PermitRequest("slow", "ann", job_id=7)])
    await storage.permits.keep(mine)

    await clock.advance(hours=29)
    await storage.permits.sweep(limit=10)
    await waits(storage, "ann", cost=5)

    assert await waits(storage, "ann", cost=5, job_id=7) == [0]


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


async def left(storage, *, limit=1000):
    while await storage.permits.give_back(limit=limit):
        pass


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
@pytest.mark.parametrize("limit", [2, 1000])
async def test_the_last_moments_that_were_promised_to_jobs_which_have_ended_are_given_back(
    storage, clock, how, limit
):
    await clock.freeze()
    jobs = [await enqueue(storage) for _ in range(6)]
    await waits(storage, *["ann"] * 5)
    for number, job_id in enumerate(jobs):
        assert await waits(storage, "ann", job_id=job_id, take=number + 1) == [(number + 1) / 2]
    for job_id in jobs[1:3] + jobs[4:]:
        await (storage.jobs.cancel(job_id) if how == "cancelled" else storage.jobs.delete(job_id))

    await left(storage, limit=limit)

    assert await waits(storage, "ann") == [2.5]  # behind the one that lives
    assert [await waits(storage, "ann", job_id=jobs[number], take=number + 1) for number in (0, 3)] == [
        [0.5],
        [2],
    ]


async def test_nothing_is_given_back_twice_and_nothing_behind_which_others_were_promised_tokens(
    storage, clock
):
    await clock.freeze()
    first, last = await enqueue(storage), await enqueue(storage)
    await waits(storage, *["ann"] * 5)
    assert [await waits(storage, "ann", job_id=first), await waits(storage, "ann")] == [[0.5], [1]]
    assert await waits(storage, "ann", job_id=last) == [1.5]
    for job_id in (first, last):
        await storage.jobs.cancel(job_id)

    await left(storage)
    await left(storage)

    assert await waits(storage, "ann") == [1.5]


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
async def test_tokens_that_a_job_has_used_are_not_given_back_when_it_ends_while_it_waits_for_more(
    storage, clock, how
):
    await clock.freeze()
    job_id = await enqueue(storage)
    used = await granted(storage, *[PermitRequest("api", "ann", 1, job_id, take) for take in range(1, 6)])
    assert await waits(storage, "ann", job_id=job_id, take=6) == [0.5]
    await storage.permits.keep(used)
    await (storage.jobs.cancel(job_id) if how == "cancelled" else storage.jobs.delete(job_id))

    await left(storage)

    assert await waits(storage, "ann") == [0.5]


async def test_tokens_that_a_job_has_used_are_not_given_back_when_the_limit_is_lowered_before_it_ends(
    storage, clock
):
    await clock.freeze()
    job_id = await enqueue(storage)
    used = await granted(storage, *[PermitRequest("api", "ann", 1, job_id, take) for take in range(1, 6)])
    assert await waits(storage, "ann", job_id=job_id, take=6) == [0.5]
    await storage.permits.keep(used)
    await storage.limits.set("api", capacity=3, refill=2.0)
    await storage.jobs.cancel(job_id)

    await left(storage)

    assert await waits(storage, "ann") == [2]


async def test_a_job_that_is_retried_pays_anew_when_its_moment_was_given_back(storage, clock):
    await clock.freeze()
    job_id = await enqueue(storage)
    await waits(storage, *["ann"] * 5)
    await waits(storage, "ann", job_id=job_id)
    await storage.jobs.cancel(job_id)
    await left(storage)

    await storage.jobs.retry(job_id)

    assert await waits(storage, "ann") == [0.5]
    assert await waits(storage, "ann", job_id=job_id) == [1]


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

    assert await storage.permits.sweep(limit=10) == Swept(1, is_more=False)
    assert await keys() == ["ann"]

    await clock.advance(seconds=1)
    await storage.permits.sweep(limit=10)
    assert await keys() == []


async def test_a_sweep_looks_at_so_many_keys_and_the_next_at_those_behind_them(storage, clock, database):
    await waits(storage, *["ann"] * 3, "bob", "eve")
    await clock.advance(seconds=1)

    swept = [await storage.permits.sweep(limit=1) for _ in range(4)]
    assert swept == [Swept(0, True), Swept(1, True), Swept(1, True), Swept(0, False)]
    assert [row[0] for row in await database.rows("SELECT key FROM rate_key")] == ["ann"]

    await clock.advance(seconds=1)
    assert await storage.permits.sweep(limit=1) == Swept(1, is_more=True)
    assert await database.rows("SELECT key FROM rate_key") == []


async def test_a_look_at_keys_that_are_in_use_is_followed_by_a_long_rest(storage, clock, monkeypatch):
    monkeypatch.setattr(permits, "BATCH", 2)
    monkeypatch.setattr(permits, "breather", lambda began: 1.0)
    await waits(storage, *["ann"] * 3, *["bob"] * 3, "eve", "joe", "zoe")
    await clock.advance(seconds=1)

    rests = [await permits.sweep(storage.permits) for _ in range(3)]

    assert rests == [permits.LONGEST_REST, 1.0, None]


async def test_old_permits_are_swept_so_many_at_once(storage, clock, database):
    await waits(storage, *["ann"] * 5)
    for job_id in (7, 8, 9):
        await waits(storage, "ann", job_id=job_id)
    await clock.advance(hours=23)
    await storage.permits.sweep(limit=10)
    assert len(await database.rows("SELECT job_id FROM permit")) == 3

    await clock.advance(days=1)
    assert await storage.permits.sweep(limit=2) == Swept(2, is_more=True)
    assert len(await database.rows("SELECT job_id FROM permit")) == 1
    assert await storage.permits.sweep(limit=2) == Swept(1, is_more=False)
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
    await storage.permits.keep(await granted(storage, PermitRequest("api", "bob", 1, job_id=8)))
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
    await storage.permits.keep(await granted(storage, PermitRequest("api", "bob", 1, job_id=8)))
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
    await storage.limits.set("nix", capacity=5, refill=2.0)
    wanted = PermitRequest("nix", "ann", 1, job_id=7), PermitRequest("api", "ann", 5, job_id=7)
    mine = await granted(storage, *wanted)
    await storage.limits.delete("nix")

    await storage.permits.keep(mine)

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


async def test_a_job_waits_for_the_key_that_has_tokens_last(storage, clock):
    now = await clock.freeze()
    await storage.limits.set("slow", capacity=1, refill=0.01)
    me = await worker(storage)
    both, put_off, runs = [await running(storage, me) for _ in range(3)]
    await storage.permits.reserve([PermitRequest("api", "ann", 5), PermitRequest("slow", "bob")])
    wanted = [
        PermitRequest("api", "ann", 5, job_id=both.job_id),
        PermitRequest("slow", "bob", job_id=both.job_id),
        PermitRequest("api", "ann", 5, job_id=put_off.job_id),
        PermitRequest("api", "ann", 5, job_id=runs.job_id),
    ]
    _, last, _, _ = await storage.permits.reserve(wanted)
    await storage.claims.postpone(
        [
            Postponement(both, Reason.THROTTLED, run_at=last.at, counted=False),
            Postponement(put_off, Reason.THROTTLED, run_at=now + timedelta(days=1), counted=False),
        ]
    )

    assert await storage.permits.awaited(both.job_id) == AwaitedKey("slow", "bob")
    assert await storage.permits.awaited(put_off.job_id) is None, "it is for something else"
    assert await storage.permits.awaited(runs.job_id) is None


async def test_jobs_that_wait_for_tokens_are_counted_by_rate_limit(storage, clock):
    await clock.freeze()
    await storage.limits.set("slow", capacity=1, refill=0.01)
    await storage.limits.set("idle", capacity=1, refill=0.01)
    paid, *put_off = [await enqueue(storage, delay=timedelta(hours=1)) for _ in range(3)]
    await waits(storage, *["ann"] * 5, job_id=paid)  # there at once
    for job_id in put_off:
        await waits(storage, "ann", "bob", cost=5, job_id=job_id)
    await storage.permits.reserve([PermitRequest("slow", "ann", job_id=job_id) for job_id in put_off])

    assert await storage.permits.waiting() == {"api": 2, "slow": 1}

    await clock.advance(seconds=3)
    assert await storage.permits.waiting() == {"api": 1, "slow": 1}
    await clock.advance(minutes=1)
    assert await storage.permits.waiting() == {"slow": 1}


async def test_a_job_that_is_cancelled_waits_for_no_token_any_more(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 5)
    put_off = [await enqueue(storage, delay=timedelta(hours=1)) for _ in range(3)]
    for job_id in put_off:
        await waits(storage, "ann", job_id=job_id)

    await storage.jobs.cancel(put_off[1])

    assert await storage.permits.waiting() == {"api": 2}


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
    unknown = Permit("nix", "ann", 1, datetime.now(UTC), timedelta(0), 1)
    for refused in (
        storage.permits.reserve([PermitRequest("nix", "ann")]),
        storage.permits.reserve_within("nix", "ann", 1, SECOND),
        storage.permits.settle(unknown, 1),
        storage.permits.settle(unknown, -1),
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

    check_spending(permits, capacity=5, refill=2, since=now)
    assert {permit.key for permit in permits} == set("abc")


async def test_tokens_that_have_flowed_back_are_not_there_once_more_when_they_are_given_back(storage, clock):
    await clock.freeze()
    [permit] = await storage.permits.reserve([PermitRequest("api", "ann", 5)])
    await clock.advance(seconds=2.5)
    await waits(storage, "ann", cost=5)

    await storage.permits.settle(permit, -5)

    assert not await has(storage, 0.1)
    assert await waits(storage, "ann") == [0.5]


async def test_tokens_that_are_given_back_while_others_spend_are_there_but_for_what_has_flowed_back(
    storage, clock
):
    await clock.freeze()
    [permit] = await storage.permits.reserve([PermitRequest("api", "ann", 5)])
    await clock.advance(seconds=1)
    assert await has(storage, 1)

    await storage.permits.settle(permit, -5)

    assert not await has(storage, 4.1)
    assert await has(storage, 2)
    assert await has(storage, 2)
    assert not await has(storage, 0.1)
    await clock.advance(days=1)
    assert await has(storage, 5)
    assert not await has(storage, 0.1)


async def test_tokens_that_were_given_back_and_that_nobody_takes_flow_away(storage, clock):
    await clock.freeze()
    [permit] = await storage.permits.reserve([PermitRequest("api", "ann", 5)])
    await waits(storage, "ann", cost=5)
    await storage.permits.settle(permit, -5)
    [ann] = await storage.permits.hottest("api", limit=10)
    assert round(ann.spent, 3) == 5

    await clock.advance(seconds=1)

    assert not await has(storage, 3.1)
    assert await has(storage, 2.99)
    assert await waits(storage, "ann") == [2]


async def test_of_tokens_behind_which_others_were_promised_nothing_is_left_when_those_use_theirs(
    storage, clock
):
    await clock.freeze()
    [permit] = await storage.permits.reserve([PermitRequest("api", "ann", 5)])
    assert await waits(storage, "ann", cost=5) == [2.5]
    await storage.permits.settle(permit, -5)
    await clock.advance(seconds=2.5)

    assert not await has(storage, 0.1)


async def test_of_a_permit_for_later_nothing_is_there_before_its_time(storage, clock):
    await clock.freeze()
    await waits(storage, "ann", cost=5)
    later, _ = await storage.permits.reserve([PermitRequest("api", "ann", 1)] * 2)

    await storage.permits.settle(later, -1)

    assert not await has(storage, 0.1)


async def test_what_was_given_back_is_used_up_by_one_of_many_who_want_it(storage, another, clock):
    await clock.freeze()
    storages = [storage, *[await another() for _ in range(7)]]
    [permit] = await storage.permits.reserve([PermitRequest("api", "ann", 4)])
    await waits(storage, "ann")
    await storage.permits.settle(permit, -4)

    assert sum(await asyncio.gather(*(has(mine, 3) for mine in storages))) == 1
    assert sum(await asyncio.gather(*(has(mine, 0.5) for mine in storages))) == 2


async def test_tokens_that_were_emptied_away_are_not_there_again_when_they_are_given_back(storage, clock):
    await clock.freeze()
    [permit] = await storage.permits.reserve([PermitRequest("api", "ann", 5)])
    await storage.tokens.empty("api")

    await storage.permits.settle(permit, -5)

    assert not await has(storage, 0.1)
    assert await waits(storage, "ann") == [0.5]


async def test_tokens_that_were_given_back_are_emptied_away_as_well(storage, clock):
    await clock.freeze()
    [permit] = await storage.permits.reserve([PermitRequest("api", "ann", 4)])
    await waits(storage, "ann")
    await storage.permits.settle(permit, -4)

    await storage.tokens.empty("api")
    assert not await has(storage, 0.1)
    await storage.limits.set("api", capacity=3, refill=2.0)

    assert not await has(storage, 0.1)


async def test_tokens_are_given_back_once(storage, clock):
    await clock.freeze()
    await waits(storage, "ann", cost=4)
    [permit] = await storage.permits.reserve([PermitRequest("api", "ann", 1)])

    await storage.permits.settle(permit, -1)
    await storage.permits.settle(permit, -1)

    assert await waits(storage, *["ann"] * 2) == [0, 0.5]


@pytest.mark.parametrize("first", [-4, 0, 2])
@pytest.mark.parametrize("second", [-4, 0, 2])
async def test_a_permit_is_settled_once(storage, clock, first, second):
    await clock.freeze()
    permit = await storage.permits.reserve_within("api", "ann", 4, timedelta(0))
    await has(storage, 1)
    assert await storage.permits.settle(permit, first)
    [as_settled] = await storage.permits.hottest("api", limit=10)

    assert not await storage.permits.settle(permit, second)

    assert await storage.permits.hottest("api", limit=10) == [as_settled]


async def test_of_two_permits_that_end_at_one_number_each_is_settled(storage, clock):
    await clock.freeze()
    await waits(storage, "ann", cost=1)
    for _ in range(3):
        permit = await storage.permits.reserve_within("api", "ann", 4, timedelta(0))
        assert await storage.permits.settle(permit, -4)
    assert await waits(storage, "ann", cost=4) == [0]


async def test_of_many_who_settle_a_permit_at_once_one_does(storage, another, clock):
    await clock.freeze()
    storages = [storage, *[await another() for _ in range(7)]]
    permit = await storage.permits.reserve_within("api", "ann", 4, timedelta(0))
    await waits(storage, "ann")

    assert sum(await asyncio.gather(*(mine.permits.settle(permit, -2) for mine in storages))) == 1

    assert await has(storage, 2)
    assert not await has(storage, 0.1)


async def test_that_a_permit_was_settled_is_known_for_an_hour_after_its_tokens_have_flowed_back(
    storage, clock, database
):
    await storage.limits.set("api", capacity=5, refill=5 / 7200)
    permit = await storage.permits.reserve_within("api", "ann", 5, timedelta(0))
    await storage.permits.settle(permit, -1)

    await clock.advance(hours=2.9)
    await storage.permits.sweep(limit=10)
    assert not await storage.permits.settle(permit, 2)

    await clock.advance(hours=0.2)
    await storage.permits.sweep(limit=10)
    assert await database.rows("SELECT id FROM settled_permit") == []


async def test_what_was_granted_before_a_limit_was_emptied_is_not_kept_after_it(storage, clock):
    await clock.freeze()
    mine = await granted(storage, PermitRequest("api", "ann", 1, job_id=7))
    await storage.tokens.empty("api")
    await clock.advance(seconds=0.25)

    await storage.permits.keep(mine)

    assert await waits(storage, "ann", job_id=7) == [0.25]
    assert await waits(storage, "ann", "bob") == [0.75, 0.25]


async def test_a_permit_that_two_ask_for_in_one_call_is_used_by_one_of_them(storage, clock):
    await clock.freeze()
    await storage.permits.keep(await granted(storage, PermitRequest("api", "ann", 5, job_id=7)))

    assert sorted(await waits(storage, "ann", "ann", cost=5, job_id=7)) == [0, 2.5]


async def test_two_who_ask_for_one_later_permit_in_one_call_wait(storage, clock):
    await clock.freeze()
    await waits(storage, *["ann"] * 5)

    for _ in range(2):
        assert all(wait > 0 for wait in await waits(storage, "ann", "ann", job_id=7))


async def test_a_permit_that_many_ask_for_at_once_is_used_by_one_of_them(storage, another, clock):
    await clock.freeze()
    storages = [storage, *[await another() for _ in range(7)]]
    for job_id in range(20):
        await storage.permits.keep(
            await granted(storage, PermitRequest("api", str(job_id), 5, job_id=job_id))
        )

    for job_id in range(20):
        got = await asyncio.gather(*(waits(mine, str(job_id), cost=5, job_id=job_id) for mine in storages))
        assert sum(wait == [0] for wait in got) == 1


@dataclass
class Use:
    """Tokens that somebody may use from a moment on."""

    permit: Permit
    cost: float


class User:
    """Does with a rate limit whatever can be done, and remembers what it may use."""

    def __init__(self, storage, seed):
        self.permits, self.tokens = storage.permits, storage.tokens
        self.dice = random.Random(seed)
        self.seed = seed
        self.uses = []
        self.unsettled = []
        self.waiting = {}  # by request of a job: what it was promised, and may have to pay anew

    async def spend(self):
        many = self.dice.random() < 0.3
        wanted = [
            PermitRequest("api", self.dice.choice(KEYS if many else "ab"), cost=self.dice.choice([0.5, 1, 3]))
            for _ in range(12 if many else self.dice.randint(1, 3))
        ]
        for permit in await self.permits.reserve(wanted):
            self._may_use(permit)

    async def spend_soon(self):
        key, cost = self.dice.choice("ab"), self.dice.choice([1, 2, 5])
        with suppress(RateLimited):
            within = timedelta(seconds=self.dice.choice([0, 1]))
            self._may_use(await self.permits.reserve_within("api", key, cost, within))

    async def settle(self):
        if self.unsettled:
            use = self.unsettled.pop(self.dice.randrange(len(self.unsettled)))
            unused = use.cost * self.dice.choice([0.25, 1])
            use.cost -= unused
            await self.permits.settle(use.permit, -unused)

    async def begin_job(self):
        job_id = 1000 * self.seed + len(self.waiting)
        await self._ask(PermitRequest("api", self.dice.choice("ab"), self.dice.choice([1, 2]), job_id=job_id))

    async def come_again(self):
        if self.waiting:
            await self._ask(self.dice.choice(list(self.waiting)))

    async def _ask(self, request):
        [permit] = await self.permits.reserve([request])
        before = self.waiting.get(request)
        if before is None or before.permit.full_at != permit.full_at:
            if before is not None:  # it was emptied away, or given back
                before.cost = 0
            before = self.waiting[request] = Use(permit, request.cost)
            self.uses.append(before)
        if permit.wait == timedelta(0):
            await self.permits.keep([(request, permit)])  # handed back before it has begun

    async def give_back(self):
        await self.permits.give_back(
            limit=self.dice.choice([1, 3, 1000])
        )  # no job of these is in the database

    async def empty(self):
        await self.tokens.empty("api")

    def _may_use(self, permit):
        self.uses.append(Use(permit, permit.cost))
        self.unsettled.append(self.uses[-1])


WEIGHTS = {
    User.spend: 3,
    User.spend_soon: 4,
    User.settle: 6,
    User.begin_job: 2,
    User.come_again: 3,
    User.empty: 0.3,
    User.give_back: 2,
}


@pytest.mark.parametrize("seed", range(4))
async def test_in_no_time_more_tokens_go_out_than_flow_in_it_and_a_bucket_holds(
    storage, another, clock, seed
):
    now = await clock.freeze()
    storages = [storage, *[await another() for _ in range(3)]]
    users = [User(mine, 10 * seed + number) for number, mine in enumerate(storages)]
    dice = random.Random(seed)

    for _ in range(60):
        steps = [dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0] for _ in users]
        await asyncio.gather(*(step(user) for step, user in zip(steps, users, strict=True)))
        await clock.advance(seconds=dice.choice([0, 0, 0.1, 0.5, 2]))

    for user in users:
        for request in list(user.waiting):  # what was given back is paid anew
            await user._ask(request)
    for key in KEYS:
        uses = [
            ((use.permit.at - now).total_seconds(), use.cost)
            for user in users
            for use in user.uses
            if use.permit.key == key
        ]
        moments = sorted({at for at, _ in uses})
        for first, last in itertools.combinations_with_replacement(moments, 2):
            out = sum(cost for at, cost in uses if first <= at <= last)
            assert out <= 5 + 2 * (last - first) + 1e-3
