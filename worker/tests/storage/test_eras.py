"""A worker may claim nothing once the history of the database is another than it knows."""

from tests.storage.factories import claim, claim_ids, declare_lost, enqueue, leader, worker


async def test_who_knows_the_era_and_its_own_beat_may_claim(storage):
    me = await worker(storage)
    job_id = await enqueue(storage)
    beat = await storage.workers.beat(me)

    assert await claim_ids(storage, me, standing=beat.standing) == [job_id]


async def test_workers_of_one_database_are_in_one_era(storage, another):
    one, two = await worker(storage), await worker(storage)
    other = await another()

    first, second = await storage.workers.beat(one), await other.workers.beat(two)
    again = await storage.workers.beat(one)

    assert first.standing.era == second.standing.era == again.standing.era
    assert again.beaten_at == first.standing.beat_at


async def test_after_the_end_of_an_era_nobody_claims_before_they_beat_again(storage):
    me = await worker(storage)
    job_id = await enqueue(storage)
    before = await storage.workers.beat(me)

    await storage.workers.end_era()
    assert await claim_ids(storage, me, standing=before.standing) == []
    after = await storage.workers.beat(me)
    assert after.standing.era != before.standing.era
    assert await claim_ids(storage, me, standing=before.standing) == []
    assert await claim_ids(storage, me, standing=after.standing) == [job_id]


async def test_who_looks_behind_hints_or_passes_kinds_over_names_the_era_too(storage):
    me = await worker(storage)
    await enqueue(storage)
    before = (await storage.workers.beat(me)).standing
    await storage.workers.end_era()
    now = (await storage.workers.beat(me)).standing

    for options in ({"hints": [(0, 0)]}, {"without_kinds": ["other"]}):
        assert await claim(storage, me, standing=before, **options) == []
    [claimed] = await claim(storage, me, standing=now, hints=[(0, 0)])
    await storage.claims.hand_back([claimed])
    assert await claim(storage, me, standing=now, without_kinds=["other"])


async def test_who_remembers_a_beat_that_the_database_does_not_claims_nothing(storage, database, clock):
    me = await worker(storage)
    await enqueue(storage)
    earlier = (await storage.workers.beat(me)).standing
    await clock.advance(seconds=5)
    standing = (await storage.workers.beat(me)).standing

    await database.rows("UPDATE worker SET beat_at = started_at")  # as a restore from a backup would
    assert await claim(storage, me, standing=standing) == []
    beat = await storage.workers.beat(me)
    assert beat.beaten_at < earlier.beat_at
    assert len(await claim(storage, me, standing=beat.standing)) == 1


async def test_an_era_is_settled_when_all_who_are_not_lost_have_taken_stock_in_it(storage, clock):
    """However long ago they beat: in an outage nobody can, and what they run goes on."""
    await leader(storage)
    me, other, dead = await worker(storage), await worker(storage), await worker(storage)
    for worker_id in (dead, other, me):
        before = (await storage.workers.beat(worker_id)).standing
    await clock.advance(seconds=29)
    await storage.workers.beat(other)
    assert (await storage.workers.beat(me)).is_settled

    await storage.workers.end_era()
    assert not (await storage.workers.beat(me)).is_settled
    now = (await storage.workers.beat(other, era=before.era)).standing
    await clock.advance(seconds=2)
    assert not (await storage.workers.beat(me)).is_settled
    await storage.workers.beat(other, era=now.era)
    assert not (await storage.workers.beat(me)).is_settled
    assert dead in await declare_lost(storage)
    assert (await storage.workers.beat(me)).is_settled


async def test_a_worker_that_never_beat_unsettles_nobody(storage):
    me = await worker(storage)
    await worker(storage)

    assert (await storage.workers.beat(me)).is_settled
