"""One key of a rate limit is made full again by hand, and jobs that wait for its tokens get them first."""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import pytest

from forge_jobs.errors import RateLimited, UnknownScope
from forge_jobs.maintenance import permits
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import Postponement, Reason, State
from forge_jobs.model.permit import Permit, PermitRequest
from tests.storage.factories import ended, enqueue, running, worker

NOW = timedelta(0)


@pytest.fixture(autouse=True)
async def api(storage, clock):
    """5 at once, and 2 a second."""
    await clock.freeze()
    await storage.limits.set("api", capacity=5, refill=2.0)


async def waits(storage, *keys, **facts):
    permits = await storage.permits.reserve([PermitRequest("api", key, **facts) for key in keys])
    return [permit.wait.total_seconds() for permit in permits]


async def has(storage, cost, key="ann"):
    """Whether the key has so many tokens now; then they are spent."""
    try:
        await storage.permits.reserve_within("api", key, cost, NOW)
    except RateLimited:
        return False
    return True


async def waiting(storage, count, **facts):
    """Return jobs, each of which waits for its turn with a token of ann's, one after another."""
    me = await worker(storage)
    claims = [await running(storage, me) for _ in range(count)]
    for claim in claims:
        wanted = PermitRequest("api", "ann", job_id=claim.job_id, **facts)
        [permit] = await storage.permits.reserve([wanted])
        await storage.claims.postpone(
            [Postponement(claim, Reason.THROTTLED, run_at=permit.at, counted=False)]
        )
    return [claim.job_id for claim in claims]


async def test_a_key_that_is_reset_is_full_and_others_stay_as_they_are(storage):
    await waits(storage, *["ann"] * 7, *["bob"] * 5)

    assert await storage.permits.reset("api", "ann")

    assert await storage.permits.hottest("api", limit=9) == await storage.permits.hottest("api", limit=1)
    assert await waits(storage, *["ann"] * 6, "bob") == [0] * 5 + [0.5, 0.5]


@pytest.mark.parametrize("spent", [0, 3])
async def test_a_key_is_reset_though_its_limit_was_emptied(storage, clock, spent):
    await storage.limits.set("api", capacity=30, refill=2.0)
    await waits(storage, *["ann"] * spent)
    await storage.tokens.empty("api")

    assert await storage.permits.reset("api", "ann")
    await storage.permits.sweep(limit=100)

    assert await waits(storage, "bob") == [0.5]
    assert await waits(storage, *["ann"] * 20) == [0] * 20, "many at once"
    assert await has(storage, 5)
    assert await waits(storage, *["ann"] * 6) == [0, 0, 0, 0, 0, 0.5], "few at once"
    await clock.advance(seconds=2)
    assert [use.spent for use in await storage.permits.hottest("api", limit=2)] == [27, 27]
    await clock.advance(days=2)
    await storage.permits.sweep(limit=100)
    assert await waits(storage, *["ann"] * 31) == [0] * 30 + [0.5]


async def test_a_key_that_was_reset_is_emptied_with_its_limit(storage):
    for _ in range(2):
        await storage.tokens.empty("api")
        assert await waits(storage, "ann", "eve") == [0.5, 0.5]
        await storage.permits.reset("api", "ann")
        await storage.permits.reset("api", "eve")
        assert await waits(storage, "ann") == [0]
    await storage.tokens.empty("api")

    assert await waits(storage, "ann", "eve", "bob") == [0.5, 0.5, 0.5]


async def test_what_was_granted_before_a_limit_was_emptied_is_not_kept_since_another_key_was_reset(
    storage, clock
):
    wanted = PermitRequest("api", "bob", job_id=7)
    old = (wanted, *(await storage.permits.reserve([wanted])))
    await clock.advance(seconds=0.25)
    await storage.tokens.empty("api")
    await storage.permits.reset("api", "ann")

    await storage.permits.keep([old])
    assert await waits(storage, "bob", job_id=7) == [0.5], "it is paid anew"

    await clock.advance(seconds=0.5)
    new = (wanted, *(await storage.permits.reserve([wanted])))
    await storage.permits.keep([new])
    assert await waits(storage, "bob", job_id=7) == [0]


async def test_a_key_that_was_reset_is_as_full_as_it_is_when_its_emptied_limit_becomes_smaller(storage):
    await storage.limits.set("api", capacity=100, refill=2.0)
    await storage.tokens.empty("api")
    await storage.permits.reset("api", "ann")
    assert await waits(storage, "ann", "ann", cost=50, job_id=7) == [0, 0]
    assert await waits(storage, "ann", job_id=8) == [0.5]

    await storage.limits.set("api", capacity=10, refill=2.0)

    assert await waits(storage, "ann", job_id=8) == [45.5], "101 are spent, of which 91 flow back first"
    assert await waits(storage, "bob") == [0.5]


async def test_jobs_that_wait_for_a_key_which_is_reset_come_first_in_their_order(storage, clock):
    await waits(storage, *["ann"] * 5)
    first = await clock.freeze()
    jobs = await waiting(storage, 8)

    assert await storage.permits.reset("api", "ann")
    await storage.permits.moved("api", "ann")

    moments = [(await storage.jobs.get(job_id)).run_at - first for job_id in jobs]
    assert [moment.total_seconds() for moment in moments] == [0, 0, 0, 0, 0, 0.5, 1, 1.5]
    assert [await waits(storage, "ann", job_id=one) for one in jobs[4:7]] == [[0], [0.5], [1]]
    assert await waits(storage, "ann") == [2], "who asks later comes behind them"
    assert await storage.permits.reset("api", "ann"), "those that still wait come sooner once more"
    assert [await waits(storage, "ann", job_id=one) for one in jobs[5:]] == [[0], [0], [0]]


async def test_only_jobs_of_the_key_that_is_reset_come_sooner(storage, clock):
    now = await clock.freeze()
    await waits(storage, *["ann"] * 5, *["bob"] * 5)
    [mine] = await waiting(storage, 1)
    await storage.permits.reserve([PermitRequest("api", "bob", job_id=99)])
    await storage.limits.set("other", capacity=1, refill=0.01)
    await storage.permits.reserve([PermitRequest("other", "ann")])
    me = await worker(storage)
    both = await running(storage, me)
    [_, last] = await storage.permits.reserve(
        [PermitRequest("api", "ann", job_id=both.job_id), PermitRequest("other", "ann", job_id=both.job_id)]
    )
    await storage.claims.postpone([Postponement(both, Reason.THROTTLED, run_at=last.at, counted=False)])

    await storage.permits.reset("api", "ann")
    await storage.permits.moved("api", "ann")

    assert (await storage.jobs.get(mine)).run_at == now
    assert (await storage.jobs.get(both.job_id)).run_at == last.at, "it waits for another limit, too"
    assert await waits(storage, "bob", job_id=99) == [0.5]


async def test_a_job_that_was_told_its_moment_while_its_key_was_reset_comes_sooner(storage, clock):
    now = await clock.freeze()
    await waits(storage, *["ann"] * 9)
    claim = await running(storage, await worker(storage))
    [told] = await storage.permits.reserve([PermitRequest("api", "ann", job_id=claim.job_id)])
    await storage.permits.reset("api", "ann")
    await storage.claims.postpone([Postponement(claim, Reason.THROTTLED, run_at=told.at, counted=False)])

    assert await storage.permits.reset_lately() == [("api", "ann")]
    await clock.advance(minutes=11)
    assert await storage.permits.reset_lately() == []
    await clock.advance(minutes=-11)
    await permits.move(storage)  # as the leader does

    assert (await storage.jobs.get(claim.job_id)).run_at == now


async def test_jobs_whose_tokens_were_there_keep_them_and_do_not_hold_up_others(storage):
    await waits(storage, *["ann"] * 4)
    both = PermitRequest("api", "ann", 1, job_id=await enqueue(storage))
    await storage.permits.keep([(both, (await storage.permits.reserve([both]))[0])])  # it has used it
    assert await waits(storage, "ann", cost=5, job_id=both.job_id, take=2) == [2.5]

    await storage.permits.reset("api", "ann")

    assert await waits(storage, "ann", cost=5, job_id=both.job_id, take=2) == [0]
    assert await waits(storage, "ann", job_id=both.job_id) == [0]
    assert await waits(storage, "ann") == [0.5]


async def test_a_promise_that_has_come_long_ago_makes_no_room_for_others(storage, clock):
    await waits(storage, *["ann"] * 5)
    assert await waits(storage, "ann", job_id=await enqueue(storage)) == [0.5]
    await clock.advance(seconds=10)
    await waits(storage, *["ann"] * 5)
    assert await waits(storage, "ann", job_id=await enqueue(storage)) == [0.5]

    await storage.permits.reset("api", "ann")

    assert await waits(storage, *["ann"] * 5) == [0, 0, 0, 0, 0.5]


async def test_nobody_waits_for_jobs_that_have_ended_behind_a_key_that_is_reset(storage):
    await waits(storage, *["ann"] * 5)
    buried = await ended(storage, await worker(storage), State.DEAD)
    mine = await enqueue(storage)
    for job_id in (buried, 12345, mine):
        await waits(storage, "ann", cost=4, job_id=job_id)

    await storage.permits.reset("api", "ann")

    assert await waits(storage, "ann", cost=4, job_id=mine) == [0]
    assert await waits(storage, "ann", "ann") == [0, 0.5]


async def test_what_was_granted_before_a_reset_gives_nothing_back(storage, clock):
    before = await storage.permits.reserve_within("api", "ann", 5, NOW)
    await storage.permits.reset("api", "ann")
    assert await has(storage, 5)

    assert await storage.permits.settle(before, -5)
    assert not await has(storage, 0.1)

    await clock.advance(seconds=0.5)
    [after] = await storage.permits.reserve([PermitRequest("api", "ann")])
    assert await storage.permits.settle(after, -1)
    assert await has(storage, 1)
    assert await storage.permits.settle(after, 1), "what was used beyond it is paid"
    assert await waits(storage, "ann") == [1]


async def test_a_key_of_which_nothing_is_spent_is_full_and_an_unknown_limit_is_refused(storage):
    assert not await storage.permits.reset("api", "ann")
    await storage.tokens.empty("api")
    assert await storage.permits.hottest("api", limit=1) == [], "nothing is written of a key that is full"
    await storage.limits.delete("api")
    await storage.limits.set("api", capacity=5, refill=2.0)
    await waits(storage, "ann")
    assert await storage.permits.reset("api", "ann")
    assert not await storage.permits.reset("api", "ann")
    with pytest.raises(UnknownScope):
        await storage.permits.reset("nix", "ann")


async def test_a_reset_is_noted_with_who_did_it(storage):
    await waits(storage, "ann")
    await storage.permits.reset("api", "ann", by="ada")
    await storage.permits.reset("api", "ann", by="bob")  # it was full

    [noted] = await storage.interventions.all(subject="limit api")
    assert (noted.what, noted.by, noted.note) == (Deed.RESET, "ada", "key 'ann'")


async def test_many_who_spend_while_a_key_is_reset_get_two_buckets_at_most(storage, another):
    storages = [storage, *[await another() for _ in range(3)]]
    await waits(storage, *["ann"] * 5)

    async def spend(mine, first):
        return [await waits(mine, "ann", job_id=first + number) for number in range(6)]

    answers = await asyncio.gather(
        *(spend(mine, 100 * number) for number, mine in enumerate(storages)),
        storages[1].permits.reset("api", "ann"),
    )

    at_once = sum(wait == [0] for spent in answers[:4] for wait in spent)
    assert at_once <= 5, answers


@dataclass
class Use:
    """Tokens that somebody may use from a moment on, in seconds."""

    at: float
    cost: float
    permit: Permit | None = None  # that may be settled


class Ann:
    """Spends tokens of one key, and knows what it may use since it was reset."""

    def __init__(self, storage, clock):
        self.storage, self.clock = storage, clock
        self.now = self.reset_at = 0.0
        self.uses, self.waiting, self.before = [], {}, []  # `waiting`: jobs, and when their moments come

    async def spend(self, dice):
        wanted = [
            PermitRequest("api", "ann", dice.choice([0.5, 1, 2])) for _ in range(dice.choice([1, 2, 12]))
        ]
        for permit in await self.storage.permits.reserve(wanted):
            self.uses.append(Use(self.now + permit.wait.total_seconds(), permit.cost, permit))

    async def spend_soon(self, dice):
        cost, within = dice.choice([0.5, 1, 2, 5]), timedelta(seconds=dice.choice([0, 1]))
        with suppress(RateLimited):
            permit = await self.storage.permits.reserve_within("api", "ann", cost, within)
            self.uses.append(Use(self.now + permit.wait.total_seconds(), cost, permit))

    async def begin_job(self, dice):
        await self.ask(await enqueue(self.storage))

    async def ask(self, job_id):
        [permit] = await self.storage.permits.reserve([PermitRequest("api", "ann", job_id=job_id)])
        self.waiting.pop(job_id, None)
        if permit.wait:
            self.waiting[job_id] = self.now + permit.wait.total_seconds()
        else:
            self.uses.append(Use(self.now, 1.0))

    async def settle(self, dice):
        if mine := [use for use in self.uses if use.permit is not None]:
            use = dice.choice(mine)
            unused = use.cost * dice.choice([0.5, 1])
            await self.storage.permits.settle(use.permit, -unused)
            use.cost, use.permit = use.cost - unused, None

    async def settle_what_was_before(self, dice):
        if self.before:
            permit = self.before.pop(dice.randrange(len(self.before)))
            await self.storage.permits.settle(permit, -permit.cost)

    async def wait(self, dice):
        seconds = dice.choice([0.1, 0.5, 2, 10])
        self.now += seconds
        await self.clock.advance(seconds=seconds)

    async def reset(self, dice):
        if await self.storage.permits.reset("api", "ann"):
            self.before += [use.permit for use in self.uses if use.permit is not None]
            self.uses, self.reset_at = [], self.now
            line = sorted(self.waiting, key=self.waiting.__getitem__)
            for job_id in line:
                await self.ask(job_id)
            moments = [self.waiting.get(job_id, self.now) for job_id in line]
            assert moments == sorted(moments), "those that wait keep their order"
            assert moments[:1] in ([], [self.now]), "the first of them runs"

    async def check(self):
        for job_id in [job_id for job_id, at in self.waiting.items() if at <= self.now + 1e-6]:
            await self.ask(job_id)
        spent = 0.0
        for use in sorted(
            [*self.uses, *(Use(at, 1.0) for at in self.waiting.values())], key=lambda use: use.at
        ):
            spent += use.cost
            assert spent <= 5 + 2 * (use.at - self.reset_at) + 1e-3


WEIGHTS = {
    Ann.spend: 4,
    Ann.spend_soon: 3,
    Ann.begin_job: 5,
    Ann.settle: 4,
    Ann.settle_what_was_before: 2,
    Ann.wait: 4,
    Ann.reset: 1.2,
}


@pytest.mark.parametrize("seed", range(4))
async def test_since_a_reset_no_more_tokens_go_out_than_a_bucket_holds_and_flow_in(storage, clock, seed):
    ann, dice = Ann(storage, clock), random.Random(seed)

    for _ in range(80):
        [step] = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))
        await step(ann, dice)
        await ann.check()
