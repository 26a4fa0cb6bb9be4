"""What the attempts of a version came to: kept with the version, whatever becomes of its workers."""

import asyncio

import pytest

from forge_jobs.model.track_record import TrackRecord
from forge_jobs.model.version import Version, VersionState
from tests.storage.factories import claim, declare_lost, enqueue_many, leader, running, worker

POOL, OLD, NEW = "6f0c4e1a-pool", "bbbbbbb1", "bbbbbbb2"
CURRENT, RAMPING, PENDING = VersionState.CURRENT, VersionState.RAMPING, VersionState.PENDING
FAILED = VersionState.FAILED


@pytest.fixture
async def epoch(storage):
    """The number that the present operator writes with."""
    return (await storage.versions.take_over("operator-1")).number


async def put(storage, epoch, version_id, state):
    given = Version(POOL, version_id, "1.0", f"mail-worker-1-0-{version_id}", state)
    assert await storage.versions.put(given, epoch=epoch)


async def member(storage, version_id=NEW):
    return await worker(storage, pool=POOL, version_id=version_id)


async def version(storage, version_id=NEW):
    [found] = [each for each in await storage.versions.all(POOL) if each.id == version_id]
    return found


@pytest.fixture
async def both(storage, epoch):
    """An old version that serves beside a new one that is about to."""
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW, PENDING)


async def test_the_records_of_a_versions_workers_add_up(storage, both):
    one, two = await member(storage), await member(storage)
    await storage.workers.beat(
        one, record=TrackRecord(succeeded=7, failed=2, timed_out=1, durations={0: 6, 3: 3})
    )
    await storage.workers.beat(
        two, record=TrackRecord(succeeded=3, handed_back=4, postponed=1, durations={3: 3})
    )

    record = (await version(storage)).record

    assert record == TrackRecord(
        succeeded=10, failed=2, timed_out=1, handed_back=4, postponed=1, durations={0: 6, 3: 6}
    )
    assert (await version(storage, OLD)).record == TrackRecord()


async def test_a_version_keeps_what_its_workers_did_when_they_go(storage, both):
    one, two = await member(storage), await member(storage)
    await storage.workers.beat(one, record=TrackRecord(succeeded=5, durations={0: 5}))
    await storage.workers.beat(two, record=TrackRecord(succeeded=1, durations={0: 1}))

    await storage.workers.deregister(one, record=TrackRecord(succeeded=8, failed=1, durations={0: 9}))
    await storage.workers.deregister(two)

    assert (await version(storage)).record == TrackRecord(succeeded=9, failed=1, durations={0: 10})


async def test_a_worker_that_goes_twice_counts_once(storage, both):
    me = await member(storage)
    record = TrackRecord(succeeded=8)

    await asyncio.gather(*(storage.workers.deregister(me, record=record) for _ in range(3)))

    assert (await version(storage)).record == record


async def test_what_a_dead_worker_held_is_lost_to_its_version(storage, both, clock, epoch):
    await storage.versions.move(POOL, NEW, RAMPING, weight_percent=20, epoch=epoch)
    dead = await member(storage)
    await storage.workers.beat(dead, record=TrackRecord(succeeded=4))
    await enqueue_many(storage, 3)
    await claim(storage, dead)
    await clock.advance(seconds=31)
    await leader(storage)

    await declare_lost(storage)
    await declare_lost(storage)

    found = await version(storage)
    assert found.record == TrackRecord(succeeded=4, lost=3, workers_lost=1)
    assert (found.succeeded, found.failed, found.in_progress) == (4, 3, 3)


async def test_what_a_worker_that_went_still_held_is_lost_to_its_version(storage, both):
    me = await member(storage, OLD)
    await running(storage, me)

    await storage.workers.deregister(me)

    assert (await version(storage, OLD)).record == TrackRecord(lost=1)


async def test_workers_that_go_at_once_are_all_counted(storage, another, both):
    mine, others = [await member(storage) for _ in range(10)], [await member(storage) for _ in range(10)]
    other = await another()

    await asyncio.gather(
        *(storage.workers.deregister(each, record=TrackRecord(succeeded=1)) for each in mine),
        *(other.workers.deregister(each, record=TrackRecord(succeeded=1)) for each in others),
    )

    assert (await version(storage)).succeeded == 20


async def test_a_worker_of_no_version_leaves_nothing_behind(storage, both):
    free, stranger = await worker(storage), await member(storage, "bbbbbbb9")

    for each in (free, stranger):
        await storage.workers.deregister(each, record=TrackRecord(succeeded=3))

    assert {each.succeeded for each in await storage.versions.all()} == {0}


async def test_running_jobs_are_counted_by_how_long_ago_they_were_claimed(storage, both, clock):
    me = await member(storage, OLD)
    await clock.freeze()
    await running(storage, me)
    await clock.advance(seconds=40)
    await enqueue_many(storage, 2)
    await claim(storage, me)
    await clock.advance(seconds=5)

    found = await version(storage, OLD)

    assert found.running == {4: 2, 10: 1}  # four to six seconds, and 32 to 45
    assert found.in_progress == 3


# Since when a version is judged


async def test_with_a_new_share_goes_what_each_version_had_come_to_by_then(storage, both, epoch):
    old, gone = await member(storage, OLD), await member(storage)
    await storage.workers.beat(old, record=TrackRecord(succeeded=50))
    await storage.workers.deregister(gone, record=TrackRecord(failed=1))

    await storage.versions.move(POOL, NEW, RAMPING, weight_percent=20, epoch=epoch)
    await storage.workers.beat(old, record=TrackRecord(succeeded=70))

    found, before = await version(storage), await version(storage, OLD)
    assert found.baseline == {OLD: TrackRecord(succeeded=50), NEW: TrackRecord(failed=1)}
    assert before.record.since(found.baseline[OLD]) == TrackRecord(succeeded=20)
    assert before.baseline == {}

    await storage.versions.move(POOL, NEW, RAMPING, weight_percent=20, epoch=epoch)
    assert (await version(storage)).baseline == found.baseline, "the share is no new one"

    await storage.versions.move(POOL, NEW, RAMPING, weight_percent=50, epoch=epoch)
    assert (await version(storage)).baseline[OLD] == TrackRecord(succeeded=70)


async def test_a_version_has_a_share_since_its_first_one(storage, both, epoch, clock):
    began = await clock.freeze()
    assert (await version(storage)).ramping_since is None
    await storage.versions.move(POOL, NEW, RAMPING, weight_percent=20, epoch=epoch)
    await clock.advance(seconds=60)
    await storage.versions.move(POOL, NEW, RAMPING, weight_percent=50, epoch=epoch)

    found = await version(storage)
    assert found.ramping_since == began
    assert found.state_changed_at != began

    await storage.versions.promote(POOL, NEW, epoch=epoch)
    found = await version(storage)
    assert (found.ramping_since, found.baseline) == (None, {})


# Why a version failed


async def test_why_a_version_failed_is_kept_until_it_is_tried_again(storage, both, epoch):
    await storage.versions.move(POOL, NEW, RAMPING, weight_percent=20, epoch=epoch)
    await storage.versions.move(
        POOL, NEW, FAILED, failure_message="3 containers were OOMKilled.", epoch=epoch
    )
    await storage.versions.move(POOL, NEW, FAILED, failure_message="Something else.", epoch=epoch)
    assert (await version(storage)).failure_message == "3 containers were OOMKilled."

    await storage.versions.move(POOL, NEW, PENDING, epoch=epoch)
    assert (await version(storage)).failure_message is None


async def test_workers_of_a_version_that_failed_are_known_also_when_they_are_gone(storage, both, epoch):
    old, gone, here, free = (
        await member(storage, OLD),
        await member(storage),
        await member(storage),
        await worker(storage),
    )
    await storage.workers.deregister(gone)
    asked = [old, gone, here, free, 12345]
    assert await storage.versions.of_failed(asked) == set()

    await storage.versions.move(POOL, NEW, FAILED, epoch=epoch)

    assert await storage.versions.of_failed(asked) == {gone, here}
    assert await storage.versions.of_failed([]) == set()
