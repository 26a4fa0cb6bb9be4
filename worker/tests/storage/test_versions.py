"""Versions of worker pools: which of them may claim, who writes that down, and when one is empty."""

from datetime import timedelta

import pytest

from forge_jobs.errors import PastEpoch, WorkerLost
from forge_jobs.model.version import Version, VersionState
from tests.storage.ear import Ear
from tests.storage.factories import claim, claim_ids, done, enqueue_many, lost_claims, queue, running, worker

POOL = "6f0c4e1a-pool"
OLD, NEW, THIRD = "bbbbbbb1", "bbbbbbb2", "bbbbbbb3"
CURRENT, RAMPING, PENDING = VersionState.CURRENT, VersionState.RAMPING, VersionState.PENDING
DRAINING, DRAINED, RETIRED = VersionState.DRAINING, VersionState.DRAINED, VersionState.RETIRED
FAILED = VersionState.FAILED
CLOSED = [PENDING, DRAINING, DRAINED, RETIRED, FAILED]
SOON = timedelta(milliseconds=1)


@pytest.fixture
async def epoch(storage):
    """The number that the present operator writes with."""
    return (await storage.versions.take_over("operator-1")).number


async def put(storage, epoch, version_id=OLD, state=PENDING, pool=POOL, **facts):
    given = {"version": "1.0", "deployment": f"mail-worker-1-0-{version_id}", "state": state, **facts}
    assert await storage.versions.put(Version(pool, version_id, **given), epoch=epoch)


async def member(storage, version_id=OLD, pool=POOL, **facts):
    """Register a worker of this version; return its id."""
    return await worker(storage, pool=pool, version_id=version_id, **facts)


async def version(storage, version_id=OLD, pool=POOL):
    [found] = [each for each in await storage.versions.all(pool) if each.id == version_id]
    return found


async def states(storage, pool=POOL):
    return {each.id: each.state for each in await storage.versions.all(pool)}


async def info(storage, worker_id):
    [found] = [each for each in await storage.workers.all() if each.id == worker_id]
    return found


# What is known of a version


async def test_a_new_version_is_known_with_every_fact(storage, epoch, clock):
    now = await clock.freeze()
    await storage.versions.put(
        Version(
            POOL, OLD, "1.8.1+build.7", "mail-worker-1-8-1-bbbbbbb1", spec_hash="f00d", weight_percent=20
        ),
        epoch=epoch,
    )

    [found] = await storage.versions.all()

    assert (found.pool, found.id, found.version) == (POOL, OLD, "1.8.1+build.7")
    assert (found.deployment, found.spec_hash) == ("mail-worker-1-8-1-bbbbbbb1", "f00d")
    assert (found.state, found.weight_percent, found.control_revision) == (PENDING, 20, 1)
    assert abs(found.created_at - now) < SOON and abs(found.state_changed_at - now) < SOON
    assert (found.last_current_at, found.drain_started_at, found.drained_at) == (None, None, None)
    assert (found.workers, found.acknowledged, found.in_progress) == (0, True, 0)
    assert (found.succeeded, found.failed) == (0, 0)


async def test_a_version_that_was_known_keeps_its_state_and_gets_new_texts(storage, epoch):
    await put(storage, epoch)
    await storage.versions.promote(POOL, OLD, epoch=epoch)
    before = await version(storage)

    again = Version(POOL, OLD, "1.0-again", "mail-other", PENDING, weight_percent=5, spec_hash="beef")
    assert await storage.versions.put(again, epoch=epoch)

    after = await version(storage)
    assert (after.version, after.deployment, after.spec_hash) == ("1.0-again", "mail-other", "beef")
    assert (after.state, after.weight_percent) == (CURRENT, 100)
    assert (after.control_revision, after.created_at) == (before.control_revision, before.created_at)


async def test_a_version_may_be_new_in_any_state_but_not_a_second_current_one(storage, epoch):
    for number, state in enumerate(VersionState):
        await put(storage, epoch, f"bbbbbbb{number}", state)

    assert not await storage.versions.put(Version(POOL, "bbbbbbb9", "1", "d", CURRENT), epoch=epoch)

    assert list((await states(storage)).values()) == list(VersionState)


async def test_versions_are_listed_oldest_first_and_by_pool(storage, epoch, clock):
    await clock.freeze()
    for version_id, pool in [(NEW, POOL), (OLD, POOL), (THIRD, "other")]:
        await put(storage, epoch, version_id, pool=pool)
        await clock.advance(seconds=1)

    assert [each.id for each in await storage.versions.all()] == [NEW, OLD, THIRD]
    assert [each.id for each in await storage.versions.all(POOL)] == [NEW, OLD]
    assert await storage.versions.all("nobody's") == []


# Which operator writes


async def test_every_operator_that_takes_over_has_a_higher_epoch(storage):
    first = await storage.versions.take_over("a")
    second = await storage.versions.take_over("b")
    third = await storage.versions.take_over("b")

    assert [each.holder for each in (first, second, third)] == ["a", "b", "b"]
    assert first.number < second.number < third.number


async def test_before_an_operator_has_taken_over_nobody_writes(storage):
    for never in (0, 1):
        with pytest.raises(PastEpoch):
            await storage.versions.put(Version(POOL, OLD, "1", "d"), epoch=never)
    assert await storage.versions.all() == []


async def test_an_operator_of_a_past_epoch_writes_nothing(storage, epoch):
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW)
    await put(storage, epoch, THIRD, RETIRED)
    await put(storage, epoch, pool="other")
    me = await member(storage)
    await storage.workers.beat(me)
    before = await storage.versions.all(), await storage.workers.all()
    await storage.versions.take_over("operator-2")

    versions = storage.versions
    for write in (
        versions.put(Version(POOL, "bbbbbbb4", "2", "d"), epoch=epoch),
        versions.put(Version(POOL, OLD, "2", "d"), epoch=epoch),
        versions.promote(POOL, NEW, epoch=epoch),
        versions.move(POOL, NEW, RAMPING, weight_percent=1, epoch=epoch),
        versions.delete(POOL, THIRD, epoch=epoch),
        versions.forget("other", epoch=epoch),
        versions.cordon([me], True, epoch=epoch),
    ):
        with pytest.raises(PastEpoch):
            await write

    assert (await storage.versions.all(), await storage.workers.all()) == before


async def test_an_epoch_that_never_was_writes_nothing(storage, epoch):
    with pytest.raises(PastEpoch):
        await storage.versions.put(Version(POOL, OLD, "1", "d"), epoch=epoch + 1)
    assert await storage.versions.all() == []


# Opening and closing


async def test_promoting_opens_one_and_drains_the_others_that_were_open(storage, epoch, clock):
    now = await clock.freeze()
    for version_id, state in [(OLD, CURRENT), (NEW, PENDING), (THIRD, RAMPING), ("bbbbbbb4", FAILED)]:
        await put(storage, epoch, version_id, state, weight_percent=30)
    await clock.advance(minutes=1)

    assert await storage.versions.promote(POOL, NEW, epoch=epoch)

    assert await states(storage) == {OLD: DRAINING, NEW: CURRENT, THIRD: DRAINING, "bbbbbbb4": FAILED}
    new, old = await version(storage, NEW), await version(storage, OLD)
    assert (new.control_revision, new.weight_percent) == (2, 100)
    assert abs(new.last_current_at - now - timedelta(minutes=1)) < SOON
    assert abs(new.state_changed_at - now - timedelta(minutes=1)) < SOON
    assert (old.control_revision, old.weight_percent) == (2, 30)
    assert abs(old.drain_started_at - now - timedelta(minutes=1)) < SOON
    assert abs(old.last_current_at - now - timedelta(minutes=1)) < SOON  # the last moment at which it was
    assert (await version(storage, "bbbbbbb4")).control_revision == 1


async def test_promoting_touches_no_other_pool(storage, epoch):
    await put(storage, epoch, OLD, CURRENT, pool="other")
    await put(storage, epoch, NEW)

    await storage.versions.promote(POOL, NEW, epoch=epoch)

    assert await states(storage, "other") == {OLD: CURRENT}


async def test_promoting_a_version_that_does_not_exist_changes_nothing(storage, epoch):
    await put(storage, epoch, OLD, CURRENT)
    before = await storage.versions.all()

    assert not await storage.versions.promote(POOL, NEW, epoch=epoch)
    assert not await storage.versions.promote("nobody's", OLD, epoch=epoch)

    assert await storage.versions.all() == before


async def test_promoting_again_changes_nothing(storage, epoch, clock):
    await put(storage, epoch, OLD)
    await storage.versions.promote(POOL, OLD, epoch=epoch)
    before = await storage.versions.all()
    await clock.advance(minutes=1)

    assert await storage.versions.promote(POOL, OLD, epoch=epoch)

    assert await storage.versions.all() == before


@pytest.mark.parametrize("state", [each for each in VersionState if each is not CURRENT])
async def test_a_version_in_any_state_may_be_promoted_and_forgets_that_it_drained(storage, epoch, state):
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW, DRAINING)
    await storage.versions.move(POOL, NEW, state, epoch=epoch)

    assert await storage.versions.promote(POOL, NEW, epoch=epoch)

    found = await version(storage, NEW)
    assert (found.state, found.drain_started_at, found.drained_at) == (CURRENT, None, None)


async def test_rolling_back_is_promoting_the_one_before(storage, epoch):
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW)
    await storage.versions.promote(POOL, NEW, epoch=epoch)

    assert await storage.versions.promote(POOL, OLD, epoch=epoch)

    assert await states(storage) == {OLD: CURRENT, NEW: DRAINING}
    assert [each.control_revision for each in await storage.versions.all()] == [3, 3]


async def test_a_move_grows_the_revision_and_a_repeated_one_does_not(storage, epoch, clock):
    await put(storage, epoch)
    await clock.advance(minutes=1)

    assert await storage.versions.move(POOL, OLD, RAMPING, weight_percent=10, epoch=epoch)
    moved = await version(storage)
    assert (moved.state, moved.weight_percent, moved.control_revision) == (RAMPING, 10, 2)
    assert moved.state_changed_at - moved.created_at > timedelta(seconds=59)

    await clock.advance(minutes=1)
    assert await storage.versions.move(POOL, OLD, RAMPING, epoch=epoch)
    assert await version(storage) == moved


async def test_a_weight_may_change_without_the_state_and_its_moment_is_kept(storage, epoch, clock):
    start = await clock.freeze()
    await put(storage, epoch, OLD, RAMPING, weight_percent=10)

    for weight_percent, minutes in ((50, 1), (50, 1), (None, 1), (60, 4)):
        await clock.advance(minutes=1)
        given = {"weight_percent": weight_percent, "epoch": epoch}
        assert await storage.versions.move(POOL, OLD, RAMPING, **given)

        found = await version(storage)
        assert (found.weight_percent, found.control_revision) == (weight_percent or 50, 1)
        assert abs(found.state_changed_at - start - timedelta(minutes=minutes)) < SOON


async def test_the_last_open_gate_of_a_pool_is_not_closed(storage, epoch):
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW)
    await put(storage, epoch, OLD, CURRENT, pool="other")
    before = await storage.versions.all()

    for state in CLOSED:
        assert not await storage.versions.move(POOL, OLD, state, weight_percent=1, epoch=epoch)

    assert await storage.versions.all() == before


@pytest.mark.parametrize("state", CLOSED)
async def test_an_open_gate_is_closed_when_another_is_open(storage, epoch, state):
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW, RAMPING)

    assert await storage.versions.move(POOL, OLD, state, epoch=epoch)
    assert not await storage.versions.move(POOL, NEW, state, epoch=epoch)

    assert await states(storage) == {OLD: state, NEW: RAMPING}


async def test_a_current_version_may_ramp_when_it_is_the_only_one(storage, epoch):
    await put(storage, epoch, OLD, CURRENT)

    assert await storage.versions.move(POOL, OLD, RAMPING, epoch=epoch)
    assert await storage.versions.move(POOL, OLD, CURRENT, epoch=epoch)


async def test_a_second_version_does_not_become_current_by_a_move(storage, epoch):
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW, RAMPING)

    assert not await storage.versions.move(POOL, NEW, CURRENT, epoch=epoch)

    assert await states(storage) == {OLD: CURRENT, NEW: RAMPING}


async def test_a_version_that_does_not_exist_is_not_moved(storage, epoch):
    assert not await storage.versions.move(POOL, OLD, PENDING, epoch=epoch)
    assert await storage.versions.all() == []


async def test_the_moments_of_a_drain_are_kept_until_the_version_opens_again(storage, epoch, clock):
    start = await clock.freeze()
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW)
    await storage.versions.promote(POOL, NEW, epoch=epoch)
    for minutes, state in enumerate((DRAINED, RETIRED), 1):
        await clock.advance(minutes=1)
        assert await storage.versions.move(POOL, OLD, state, epoch=epoch)
        found = await version(storage)
        assert abs(found.drain_started_at - start) < SOON
        assert abs(found.drained_at - start - timedelta(minutes=1)) < SOON
        assert abs(found.state_changed_at - start - timedelta(minutes=minutes)) < SOON

    await storage.versions.move(POOL, OLD, PENDING, epoch=epoch)

    found = await version(storage)
    assert (found.drain_started_at, found.drained_at) == (None, None)
    assert abs(found.last_current_at - start) < SOON


async def test_a_closed_version_without_workers_is_deleted(storage, epoch):
    await put(storage, epoch, OLD, RETIRED)
    await put(storage, epoch, OLD, RETIRED, pool="other")

    assert await storage.versions.delete(POOL, OLD, epoch=epoch)
    assert await storage.versions.delete(POOL, OLD, epoch=epoch)

    assert [each.pool for each in await storage.versions.all()] == ["other"]


@pytest.mark.parametrize("state", [CURRENT, RAMPING])
async def test_an_open_version_is_not_deleted(storage, epoch, state):
    await put(storage, epoch, OLD, state)

    assert not await storage.versions.delete(POOL, OLD, epoch=epoch)

    assert await states(storage) == {OLD: state}


async def test_a_version_is_not_deleted_while_a_worker_of_it_is_registered(storage, epoch):
    await put(storage, epoch, OLD, RETIRED)
    me = await member(storage)
    assert not await storage.versions.delete(POOL, OLD, epoch=epoch)

    await storage.workers.deregister(me)
    assert await storage.versions.delete(POOL, OLD, epoch=epoch)


async def test_all_versions_of_a_pool_that_nobody_works_for_are_forgotten_together(storage, epoch):
    for number, state in enumerate(VersionState):
        await put(storage, epoch, f"bbbbbbb{number}", state)
    await put(storage, epoch, OLD, CURRENT, pool="other")
    await running(storage, await member(storage, OLD, "other"))

    assert await storage.versions.forget(POOL, epoch=epoch)
    assert await storage.versions.forget(POOL, epoch=epoch)

    assert [each.pool for each in await storage.versions.all()] == ["other"]


@pytest.mark.parametrize("version_id", [OLD, "unknown1"])
async def test_no_version_of_a_pool_is_forgotten_while_a_worker_of_it_is_registered(
    storage, epoch, version_id
):
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW, RETIRED)
    me = await member(storage, version_id)
    before = await states(storage)

    assert not await storage.versions.forget(POOL, epoch=epoch)
    assert await states(storage) == before

    await storage.workers.deregister(me)
    assert await storage.versions.forget(POOL, epoch=epoch)
    assert await storage.versions.all() == []


async def test_no_version_of_a_pool_is_forgotten_while_a_job_of_it_is_in_progress(storage, epoch):
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW, RETIRED)
    me = await member(storage)
    await running(storage, me)
    await storage.workers.deregister(me)
    before = await states(storage)

    assert not await storage.versions.forget(POOL, epoch=epoch)
    assert await states(storage) == before

    lost = await lost_claims(storage)
    await storage.claims.finish([done(each) for each in lost])
    assert await storage.versions.forget(POOL, epoch=epoch)
    assert await storage.versions.all() == []


# The gate


@pytest.mark.parametrize("state", CLOSED)
async def test_through_a_closed_gate_nothing_is_claimed(storage, epoch, state):
    ids = await enqueue_many(storage, 3)
    await put(storage, epoch, OLD, state)
    me, other = await member(storage), await worker(storage)

    assert await claim(storage, me) == []
    assert await claim(storage, me, without_kinds=["other"]) == []
    assert await claim_ids(storage, other) == ids


@pytest.mark.parametrize("state", [CURRENT, RAMPING])
async def test_through_an_open_gate_jobs_are_claimed(storage, epoch, state):
    ids = await enqueue_many(storage, 3)
    await put(storage, epoch, OLD, state)

    assert await claim_ids(storage, await member(storage)) == ids


async def test_a_worker_whose_version_nobody_knows_may_claim(storage, epoch):
    ids = await enqueue_many(storage, 3)
    await put(storage, epoch, OLD, DRAINING, pool="other")
    await put(storage, epoch, NEW, DRAINING)

    assert await claim_ids(storage, await member(storage)) == ids


async def test_a_worker_without_a_pool_may_claim(storage, epoch):
    ids = await enqueue_many(storage, 3)
    await put(storage, epoch, OLD, DRAINING)

    assert await claim_ids(storage, await worker(storage)) == ids


async def test_versions_of_two_pools_with_one_id_are_two(storage, epoch):
    await put(storage, epoch, OLD, DRAINING)
    await put(storage, epoch, OLD, CURRENT, pool="other")
    await storage.versions.promote("other", OLD, epoch=epoch)
    mine, others = await member(storage), await member(storage, pool="other")
    await enqueue_many(storage, 3)

    assert [(await storage.workers.beat(each)).is_open for each in (mine, others)] == [False, True]
    assert (await claim(storage, mine), len(await claim(storage, others, limit=2))) == ([], 2)
    assert [each.acknowledged for each in await storage.workers.all()] == [True, True]
    facts = {each.pool: (each.workers, each.in_progress) for each in await storage.versions.all()}
    assert facts == {POOL: (1, 0), "other": (1, 2)}

    await storage.versions.move(POOL, OLD, DRAINED, epoch=epoch)
    assert [(await info(storage, each)).acknowledged for each in (mine, others)] == [False, True]
    assert await storage.versions.delete(POOL, OLD, epoch=epoch) is False


async def test_a_promotion_takes_the_jobs_from_one_version_to_the_other(storage, epoch):
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW)
    old, new = await member(storage, OLD), await member(storage, NEW)
    ids = await enqueue_many(storage, 4)
    assert (await claim_ids(storage, new, limit=1), await claim_ids(storage, old, limit=1)) == ([], ids[:1])

    await storage.versions.promote(POOL, NEW, epoch=epoch)
    assert (await claim_ids(storage, old, limit=1), await claim_ids(storage, new, limit=1)) == ([], ids[1:2])

    await storage.versions.promote(POOL, OLD, epoch=epoch)
    assert (await claim_ids(storage, new, limit=1), await claim_ids(storage, old, limit=1)) == ([], ids[2:3])


async def test_a_closed_gate_leaves_slots_and_what_runs_alone(storage, epoch):
    await storage.queues.set("narrow", {"concurrency": 2})
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW)
    me = await member(storage, queues=["narrow"])
    narrow = (await queue(storage, "narrow")).id
    assert await storage.slots.take(narrow, me, 2) == 2
    await enqueue_many(storage, 2, queue="narrow")
    [claimed] = await claim(storage, me, "narrow", limit=1)

    await storage.versions.promote(POOL, NEW, epoch=epoch)

    assert await claim(storage, me, "narrow", in_hand=1) == []
    assert await storage.claims.finish([done(claimed)]) == []


async def test_a_cordoned_worker_claims_nothing_until_it_may_again(storage, epoch):
    ids = await enqueue_many(storage, 3)
    one, two = await member(storage), await worker(storage)

    await storage.versions.cordon([one, two, 4711], True, epoch=epoch)
    assert (await claim(storage, one), await claim(storage, two)) == ([], [])
    assert [each.cordoned for each in await storage.workers.all()] == [True, True]

    await storage.versions.cordon([one], False, epoch=epoch)
    assert (await claim(storage, two), await claim_ids(storage, one)) == ([], ids)


async def test_a_worker_of_an_open_version_may_retire(storage, epoch):
    await enqueue_many(storage, 3)
    await put(storage, epoch, OLD, CURRENT)
    one, two = await member(storage), await member(storage)

    await storage.versions.cordon([one], True, epoch=epoch)

    assert await claim(storage, one) == []
    assert len(await claim_ids(storage, two)) == 3


async def test_workers_behind_a_closed_gate_are_told_apart(storage, epoch):
    await put(storage, epoch, OLD, DRAINING)
    await put(storage, epoch, NEW, CURRENT)
    closed = await member(storage, OLD)
    cordoned, unheard_of = await worker(storage), await member(storage, THIRD)
    serving = await member(storage, NEW)
    await storage.versions.cordon([cordoned], True, epoch=epoch)

    are_open = {each.id: each.is_open for each in await storage.workers.all()}

    assert are_open == {closed: False, cordoned: False, unheard_of: True, serving: True}


async def test_a_worker_serves_while_its_gate_is_open_and_it_does_not_drain(storage, epoch):
    await put(storage, epoch, OLD, DRAINING)
    await put(storage, epoch, NEW, CURRENT)
    closed, opened, unknown, free = (
        await member(storage, OLD),
        await member(storage, NEW),
        await member(storage, THIRD),
        await worker(storage),
    )
    cordoned, draining = await member(storage, NEW), await member(storage, NEW)
    await storage.versions.cordon([cordoned], True, epoch=epoch)
    await storage.workers.drain(draining)

    serving = {each.id for each in await storage.workers.all() if each.serves}

    assert serving == {opened, unknown, free}
    assert closed not in serving
    assert [(await info(storage, each)).is_open for each in (closed, cordoned, draining)] == [
        False,
        False,
        True,
    ]


# What workers are told, and what they acknowledge


async def test_a_beat_says_whether_the_worker_may_claim(storage, epoch):
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW)
    old, new, free = await member(storage, OLD), await member(storage, NEW), await worker(storage)

    async def opened():
        return [(await storage.workers.beat(each)).is_open for each in (old, new, free)]

    assert await opened() == [True, False, True]
    await storage.versions.promote(POOL, NEW, epoch=epoch)
    assert await opened() == [False, True, True]
    await storage.versions.cordon([new, free], True, epoch=epoch)
    assert await opened() == [False, False, False]


async def test_a_worker_acknowledges_with_its_next_beat(storage, epoch):
    await put(storage, epoch)
    me = await member(storage)
    assert ((await info(storage, me)).acknowledged, (await version(storage)).acknowledged) == (False, False)

    await storage.workers.beat(me)
    assert ((await info(storage, me)).acknowledged, (await version(storage)).acknowledged) == (True, True)

    await storage.versions.promote(POOL, OLD, epoch=epoch)
    assert ((await info(storage, me)).acknowledged, (await version(storage)).acknowledged) == (False, False)

    await storage.workers.beat(me)
    assert ((await info(storage, me)).acknowledged, (await version(storage)).acknowledged) == (True, True)


async def test_a_version_is_acknowledged_when_every_worker_of_it_has(storage, epoch, clock):
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW)
    quick, slow, other = await member(storage), await member(storage), await member(storage, NEW)
    await storage.versions.promote(POOL, NEW, epoch=epoch)

    await storage.workers.beat(quick)
    await storage.workers.beat(other)
    assert not (await version(storage)).acknowledged
    assert (await version(storage, NEW)).acknowledged

    await storage.workers.beat(slow)
    assert (await version(storage)).acknowledged


async def test_a_silent_worker_keeps_a_version_unacknowledged_until_it_is_lost(storage, epoch, clock):
    await put(storage, epoch, OLD, DRAINING)
    silent = await member(storage)
    await clock.advance(minutes=1)
    assert ((await version(storage)).workers, (await version(storage)).acknowledged) == (1, False)

    await lost_claims(storage)

    assert ((await version(storage)).workers, (await version(storage)).acknowledged) == (0, True)
    with pytest.raises(WorkerLost):
        await storage.workers.beat(silent)


async def test_a_worker_acknowledges_that_it_retires(storage, epoch):
    await put(storage, epoch, OLD, CURRENT)
    pooled, free = await member(storage), await worker(storage)
    for each in (pooled, free):
        await storage.workers.beat(each)
        assert (await info(storage, each)).acknowledged

    await storage.versions.cordon([pooled, free], True, epoch=epoch)
    for each in (pooled, free):
        assert not (await info(storage, each)).acknowledged
        assert not (await storage.workers.beat(each)).is_open
        assert (await info(storage, each)).acknowledged

    await storage.versions.cordon([pooled, free], True, epoch=epoch)  # nothing new
    assert [each.acknowledged for each in await storage.workers.all()] == [True, True]


async def test_a_worker_without_a_version_has_nothing_to_acknowledge(storage):
    free, unknown = await worker(storage), await member(storage)

    assert (await info(storage, free)).acknowledged
    assert (await info(storage, unknown)).acknowledged


async def test_workers_hear_of_their_gate(storage, epoch):
    await put(storage, epoch)
    pooled, free = await member(storage), await worker(storage)
    async with Ear(storage) as ear:

        async def told(change):
            ear.told.clear()
            assert await change is not False
            await ear.hears("gate", POOL)

        await told(storage.versions.put(Version(POOL, NEW, "2", "d", RAMPING), epoch=epoch))
        await told(storage.versions.promote(POOL, OLD, epoch=epoch))
        await told(storage.versions.move(POOL, NEW, RAMPING, epoch=epoch))
        await told(storage.versions.cordon([pooled], True, epoch=epoch))
        ear.told.clear()
        await storage.versions.cordon([free], True, epoch=epoch)
        await ear.hears("gate", "")


async def test_nobody_is_told_when_nothing_changes(storage, epoch):
    await put(storage, epoch, OLD, CURRENT)
    me = await member(storage)
    async with Ear(storage) as ear:
        await put(storage, epoch, OLD)
        await storage.versions.promote(POOL, OLD, epoch=epoch)
        await storage.versions.move(POOL, OLD, CURRENT, weight_percent=50, epoch=epoch)
        await storage.versions.cordon([me], False, epoch=epoch)
        await storage.queues.set("default", {"paused": True})
        await ear.hears("config")

        assert not [told for told in ear.told if told[0] == "gate"]


# What its workers hold


async def test_a_worker_is_known_with_its_pool_version_and_pod(storage):
    me = await member(storage, pod="mail-worker-1-0-bbbbbbb1-7d9f-x2x")

    found = await info(storage, me)

    assert (found.pool, found.version_id, found.pod) == (POOL, OLD, "mail-worker-1-0-bbbbbbb1-7d9f-x2x")
    assert found.cordoned is False


async def test_a_beat_says_what_the_workers_attempts_came_to(storage):
    me = await worker(storage)
    assert (await info(storage, me)).succeeded == 0

    await storage.workers.beat(me, succeeded=7, failed=2, run_seconds=1.25)

    found = await info(storage, me)
    assert (found.succeeded, found.failed, found.run_seconds) == (7, 2, 1.25)


async def test_the_attempts_of_a_versions_workers_are_summed(storage, epoch):
    await put(storage, epoch)
    one, two, other = await member(storage), await member(storage), await member(storage, NEW)
    await storage.workers.beat(one, succeeded=7, failed=1)
    await storage.workers.beat(two, succeeded=3, failed=2)
    await storage.workers.beat(other, succeeded=100, failed=100)

    found = await version(storage)

    assert (found.workers, found.succeeded, found.failed) == (2, 10, 3)


async def test_jobs_in_progress_are_counted_for_the_version_that_claimed_them(storage, epoch):
    await put(storage, epoch, OLD, CURRENT)
    await put(storage, epoch, NEW, RAMPING)
    one, two, other = await member(storage), await member(storage), await member(storage, NEW)
    first, _ = await running(storage, one), await running(storage, two)
    await running(storage, other)
    await running(storage, await worker(storage))
    assert [each.in_progress for each in await storage.versions.all()] == [2, 1]

    await storage.claims.finish([done(first)])
    assert [each.in_progress for each in await storage.versions.all()] == [1, 1]


async def test_jobs_of_lost_workers_count_until_they_are_taken_back(storage, epoch, clock):
    await put(storage, epoch, OLD, CURRENT)
    silent, rude = await member(storage), await member(storage)
    await running(storage, silent)
    await running(storage, rude)
    await storage.workers.deregister(rude)
    await clock.advance(minutes=1)

    lost = await lost_claims(storage)

    found = await version(storage)
    assert (len(lost), found.workers, found.acknowledged, found.in_progress) == (2, 0, True, 2)
    await storage.claims.finish([done(each) for each in lost])
    assert (await version(storage)).in_progress == 0


async def test_a_worker_of_the_release_before_registers_and_claims(storage, epoch, database):
    await put(storage, epoch, OLD, DRAINING)
    ids = await enqueue_many(storage, 1)
    me = await worker(storage)
    copied = "label, host, pid, version, queues, kinds, concurrency, draining, started_at, beat_at"
    await database.rows(f"INSERT INTO worker (id, {copied}) SELECT 77, {copied} FROM worker WHERE id = {me}")

    assert await claim_ids(storage, 77) == ids
    assert (await storage.workers.beat(77)).is_open
    assert ((await info(storage, 77)).acknowledged, (await info(storage, 77)).pool) == (True, None)
