"""Gates that open and close again and again under workers that claim without a pause."""

import asyncio
import random
import time
from dataclasses import dataclass, field

import pytest

from forge_jobs.errors import PastEpoch
from forge_jobs.model.version import OPEN, Version, VersionState
from tests.storage.factories import done, enqueue_many, queue, worker

POOL, VERSIONS = "6f0c4e1a-pool", ("bbbbbbb1", "bbbbbbb2")
FLIPS, DRAIN_EVERY = 60, 10
CURRENT, RAMPING = VersionState.CURRENT, VersionState.RAMPING


@dataclass
class Closed:
    """A time for which a version was certainly closed; from `empty_from` on it had been seen empty twice."""

    version: str
    since: float
    until: float = float("inf")
    empty_from: float = float("inf")


@dataclass
class Took:
    """A claim statement that took jobs."""

    version: str
    began: float
    ended: float


@dataclass
class Record:
    """What the claimers and the operator did. Moments are monotonic seconds."""

    closed: list[Closed] = field(default_factory=list)
    took: list[Took] = field(default_factory=list)
    in_hand: set[int] = field(default_factory=set)
    done: list[int] = field(default_factory=list)
    turns: dict[int, int] = field(default_factory=dict)
    turned: asyncio.Event = field(default_factory=asyncio.Event)
    looks: int = 0

    def through_closed_gates(self):
        return [
            (took, closed)
            for closed in self.closed
            for took in self.took
            if took.version == closed.version and closed.since <= took.began and took.ended <= closed.until
        ]

    def after_being_seen_empty(self):
        return [
            (took, closed)
            for closed in self.closed
            for took in self.took
            if took.version == closed.version and closed.empty_from <= took.ended <= closed.until
        ]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)  # where several claim at the same time
async def test_while_gates_flip_each_job_runs_once_and_never_through_a_closed_one(storage, another, database):
    epoch = (await storage.versions.take_over("operator")).number
    for version, state in zip(VERSIONS, (CURRENT, VersionState.PENDING), strict=True):
        await storage.versions.put(Version(POOL, version, "1", "d", state), epoch=epoch)
    record, wanted = Record(), []
    record.closed.append(Closed(VERSIONS[1], time.monotonic()))
    claimers = [
        asyncio.create_task(work(await another(), version, record)) for version in VERSIONS for _ in range(4)
    ]
    looking = asyncio.create_task(look(database, record))
    try:
        for flip in range(FLIPS):
            wanted += await enqueue_many(storage, 20)
            closed = await swap(storage, epoch, flip, record)
            if flip % DRAIN_EVERY == 0:
                await drained(storage, closed, record)
                closed.empty_from = time.monotonic()
            else:
                await turn(record)
        async with asyncio.timeout(60):
            while len(record.done) < len(wanted):
                await turn(record)
    finally:
        for task in (looking, *claimers):
            task.cancel()
        results = await asyncio.gather(looking, *claimers, return_exceptions=True)
    assert [each for each in results if not isinstance(each, asyncio.CancelledError)] == []

    assert sorted(record.done) == sorted(wanted)
    assert record.in_hand == set()
    assert record.through_closed_gates() == []
    assert record.after_being_seen_empty() == []
    # and that it was a race at all
    assert {took.version for took in record.took} == set(VERSIONS)
    assert len(record.took) > FLIPS
    assert record.looks > FLIPS


async def swap(storage, epoch, flip, record):
    """Open the closed version and close the open one, at once or over a ramp; return the closed time that began."""
    opens, closes = VERSIONS[1 - flip % 2], VERSIONS[flip % 2]
    record.closed[-1].until = time.monotonic()
    if flip % 3 == 0:
        assert await storage.versions.move(POOL, opens, RAMPING, weight_percent=50, epoch=epoch)
        await turn(record)
    assert await storage.versions.promote(POOL, opens, epoch=epoch)
    assert not await storage.versions.move(POOL, opens, VersionState.FAILED, epoch=epoch)  # the last one
    record.closed.append(Closed(closes, time.monotonic()))
    return record.closed[-1]


async def turn(record):
    """Return when every claimer has ended a statement that began after now."""
    before = dict(record.turns)
    async with asyncio.timeout(30):
        while any(record.turns[me] < turns + 2 for me, turns in before.items()):
            record.turned.clear()
            await record.turned.wait()


async def drained(storage, closed, record):
    """Return when the version is proven empty: closed, acknowledged and without jobs, on two looks."""
    seen = 0
    async with asyncio.timeout(30):
        while seen < 2:
            [version] = [each for each in await storage.versions.all(POOL) if each.id == closed.version]
            assert version.state not in OPEN
            assert version.workers == 4
            seen = seen + 1 if version.acknowledged and version.in_progress == 0 else 0
            await turn(record)  # longer than any claim that was on its way


async def work(storage, version, record):
    """Claim, and finish or hand back, until cancelled."""
    me = await worker(storage, pool=POOL, version_id=version)
    default = (await queue(storage)).id
    chance = random.Random(me)
    record.turns[me] = 0
    while True:
        began = time.monotonic()
        claims = await storage.claims.claim(default, me, limit=chance.randint(1, 3))
        if claims:
            record.took.append(Took(version, began, time.monotonic()))
        ids = {claim.job_id for claim in claims}
        assert not ids & record.in_hand, "somebody else runs it"
        record.in_hand |= ids
        for claim in claims:
            record.in_hand.remove(claim.job_id)
            if chance.random() < 0.8:
                assert await storage.claims.finish([done(claim)]) == []
                record.done.append(claim.job_id)
            else:
                assert await storage.claims.hand_back([claim]) == []
        await storage.workers.beat(me)
        record.turns[me] += 1
        record.turned.set()


async def look(database, record):
    """See in a connection of our own that at every instant a gate is open, and at most one version current."""
    while True:
        states = [row[0] for row in await database.rows("SELECT state FROM worker_version")]
        assert OPEN & set(states), states
        assert states.count(CURRENT) <= 1
        record.looks += 1


async def test_of_two_who_close_the_last_two_gates_one_is_refused(storage, another):
    other = await another()
    epoch = (await storage.versions.take_over("operator")).number
    for version in VERSIONS:
        await storage.versions.put(Version(POOL, version, "1", "d", RAMPING), epoch=epoch)

    for _ in range(20):
        closed = await asyncio.gather(
            storage.versions.move(POOL, VERSIONS[0], VersionState.DRAINING, epoch=epoch),
            other.versions.move(POOL, VERSIONS[1], VersionState.DRAINING, epoch=epoch),
        )
        assert sorted(closed) == [False, True]
        for version in VERSIONS:
            assert await storage.versions.move(POOL, version, RAMPING, epoch=epoch)


async def test_of_two_who_promote_at_once_one_stays_current(storage, another):
    other = await another()
    epoch = (await storage.versions.take_over("operator")).number
    for version in VERSIONS:
        await storage.versions.put(Version(POOL, version, "1", "d"), epoch=epoch)

    for _ in range(20):
        assert await asyncio.gather(
            storage.versions.promote(POOL, VERSIONS[0], epoch=epoch),
            other.versions.promote(POOL, VERSIONS[1], epoch=epoch),
        ) == [True, True]
        states = sorted(each.state for each in await storage.versions.all(POOL))
        assert states in (["current", "draining"], ["current", "pending"])


async def test_once_an_operator_has_taken_over_the_one_before_it_writes_no_more(storage, another):
    other = await another()
    epoch = (await storage.versions.take_over("first")).number
    await storage.versions.put(Version(POOL, VERSIONS[0], "1", "d", CURRENT), epoch=epoch)
    took_over = asyncio.Event()

    async def write_on():
        while True:
            knew = took_over.is_set()
            try:
                await other.versions.put(Version(POOL, VERSIONS[1], "1", "d"), epoch=epoch)
            except PastEpoch:
                if knew:
                    return
            else:
                assert not knew, "it wrote after another had taken over"
            await asyncio.sleep(0)

    writing = asyncio.create_task(write_on())
    await storage.versions.take_over("second")
    took_over.set()
    await writing
