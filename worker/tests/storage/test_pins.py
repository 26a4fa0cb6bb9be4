"""A job that has begun on a version of the program goes on with that version, for as long as it is pinned to it."""

import asyncio
import contextlib
import itertools
from datetime import timedelta

import pytest

from forge_jobs.errors import JobNotFound
from forge_jobs.model.job import KeyMode, State
from forge_jobs.model.links import PINNED, is_pinned
from forge_jobs.model.match import Move
from forge_jobs.model.pin import PinnedJobs
from forge_jobs.model.step import NewStep
from forge_jobs.model.version import Version, VersionState
from tests.storage.factories import (
    claim,
    claim_ids,
    dead,
    done,
    enqueue,
    enqueue_many,
    failed,
    job,
    move_all,
    queue,
    running,
    state,
    worker,
)
from tests.storage.test_transactions import RolledBack

NOW = timedelta(0)
OLD, NEW = {"version": "1.0"}, {"version": "2.0"}
POOL = "6f0c4e1a-pool"
_numbers = itertools.count(1)


async def pinned(storage, worker_id, *, delay=None, **facts):
    """A job that its attempt has pinned is pending again, or in so long; return its id."""
    began = await running(storage, worker_id, priority=-next(_numbers), **facts)  # before those that wait
    assert await storage.pins.add(began)
    began.links = PINNED
    if delay is None:
        await storage.claims.hand_back([began])
    else:
        await storage.claims.postpone([failed(began, delay=delay)])
    return began.job_id


async def versions(storage, **states):
    """There are these versions of a pool, in these states; return their workers by version."""
    epoch = (await storage.versions.take_over("operator")).number
    for version, its_state in states.items():
        await storage.versions.put(Version(POOL, f"{version}id", version, "d", its_state), epoch=epoch)
    return {
        version: await worker(storage, version=version, pool=POOL, version_id=f"{version}id")
        for version in states
    }


async def test_a_claim_says_that_its_job_is_pinned_to_another_version(storage):
    old, new = await worker(storage, **OLD), await worker(storage, **NEW)
    mine = await pinned(storage, old)

    [taken] = await claim(storage, new)
    await storage.claims.hand_back([taken])
    [own] = await claim(storage, old)

    assert (taken.job_id, taken.pinned_to) == (mine, "1.0")
    assert (own.job_id, own.pinned_to, is_pinned(own.links)) == (mine, None, True)


async def test_a_claim_that_says_so_passes_over_what_is_pinned_to_another_version(storage):
    old, new = await worker(storage, **OLD), await worker(storage, **NEW)
    mine, plain = await pinned(storage, old), await enqueue(storage)

    assert await claim_ids(storage, new, without_pinned=True) == [plain]
    assert await claim_ids(storage, old, without_pinned=True) == [mine]


async def test_jobs_that_are_pinned_elsewhere_do_not_count_for_the_front(storage):
    old, new = await worker(storage, **OLD), await worker(storage, **NEW)
    await pinned(storage, old)
    queue_id = (await queue(storage)).id

    def begins(front):
        return [pos for pos in front.begins.values() if pos is not None]

    assert begins(await storage.claims.front(queue_id))
    assert begins(await storage.claims.front(queue_id, without_pinned_of=old))
    assert not begins(await storage.claims.front(queue_id, without_pinned_of=new))


async def test_a_closed_version_claims_what_is_pinned_to_it_while_it_drains_and_nothing_else(storage):
    workers = await versions(storage, v1=VersionState.CURRENT)
    mine = await pinned(storage, workers["v1"])
    workers |= await versions(storage, v2=VersionState.PENDING)
    epoch = (await storage.versions.take_over("operator")).number
    assert await storage.versions.promote(POOL, "v2id", epoch=epoch)
    plain = await enqueue(storage)

    assert await claim_ids(storage, workers["v1"]) == []
    assert await claim_ids(storage, workers["v2"], only_pinned=True) == []
    assert await claim_ids(storage, workers["v1"], only_pinned=True) == [mine]
    assert await claim_ids(storage, workers["v2"], without_pinned=True) == [plain]


@pytest.mark.parametrize("waiting", [0, 300, 700])
async def test_what_is_pinned_to_a_version_is_found_however_many_other_jobs_wait(storage, waiting):
    old = await worker(storage, ("default", "mail"), **OLD)
    new = await worker(storage, **NEW)
    await enqueue_many(storage, waiting)
    mine = [await pinned(storage, old) for _ in range(3)]
    await pinned(storage, new)
    await pinned(storage, old, delay=timedelta(hours=1))
    await pinned(storage, old, queue="mail")

    assert await claim_ids(storage, old, limit=2, only_pinned=True) == mine[:0:-1]
    assert await claim_ids(storage, old, only_pinned=True) == mine[:1]
    assert await claim_ids(storage, old, only_pinned=True) == []


async def test_a_failed_version_and_a_cordoned_worker_claim_not_even_what_is_pinned_to_them(storage):
    workers = await versions(storage, v1=VersionState.CURRENT, v2=VersionState.RAMPING)
    await pinned(storage, workers["v1"])
    epoch = (await storage.versions.take_over("operator")).number
    await storage.versions.cordon([workers["v1"]], True, epoch=epoch)
    assert await claim_ids(storage, workers["v1"], only_pinned=True) == []

    await storage.versions.cordon([workers["v1"]], False, epoch=epoch)
    assert await storage.versions.move(POOL, "v1id", VersionState.FAILED, epoch=epoch)

    assert await claim_ids(storage, workers["v1"], only_pinned=True) == []


async def test_what_is_pinned_counts_against_the_limits_of_its_queue(storage):
    old = await worker(storage, **OLD)
    first, second = [await pinned(storage, old) for _ in range(2)]
    await storage.queues.set("default", {"concurrency": 1})
    await storage.slots.take((await queue(storage)).id, old, 1)

    assert await claim_ids(storage, old, only_pinned=True) == [second]
    assert await claim_ids(storage, old, only_pinned=True, in_hand=1) == []
    assert await state(storage, first) is State.PENDING


async def test_the_version_of_the_attempt_that_pins_is_kept_whoever_pins_after_it(storage):
    old, new = await worker(storage, **OLD), await worker(storage, **NEW)
    mine = await pinned(storage, old)
    [taken] = await claim(storage, new)

    assert await storage.pins.add(taken)

    pin = await storage.pins.of_job(mine)
    assert (pin.version, pin.pool, pin.version_id, pin.state) == ("1.0", None, None, None)


async def test_a_pin_says_what_has_become_of_its_version(storage):
    workers = await versions(storage, v1=VersionState.CURRENT, v2=VersionState.RAMPING)
    mine = await pinned(storage, workers["v1"])

    pin = await storage.pins.of_job(mine)

    assert (pin.name, pin.state) == ("v1 (v1id)", VersionState.CURRENT)
    found = {one.id: pin.fits(one) for one in await storage.workers.all()}
    assert found == {workers["v1"]: True, workers["v2"]: False}


async def test_only_who_has_the_claim_pins(storage):
    old = await worker(storage, **OLD)
    first = await running(storage, old)
    await storage.claims.hand_back([first])

    assert not await storage.pins.add(first)
    assert await storage.pins.of_job(first.job_id) is None


async def test_a_worker_that_was_declared_lost_pins_no_more_and_its_job_is_for_any_version(storage):
    """It was frozen, say: its claims are still there for a moment, its version is not."""
    old, new = await worker(storage, **OLD), await worker(storage, **NEW)
    first = await running(storage, old)
    await storage.workers.deregister(old)

    assert not await storage.pins.add(first)

    await storage.claims.hand_back([first])
    [taken] = await claim(storage, new)
    assert (taken.job_id, taken.pinned_to, taken.links) == (first.job_id, None, None)


async def test_a_pin_in_a_transaction_that_is_rolled_back_never_was(storage, database):
    first = await running(storage, await worker(storage, **OLD))

    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            assert await storage.pins.add(first, connection=connection)
            raise RolledBack

    assert await storage.pins.of_job(first.job_id) is None
    async with database.transaction() as connection:
        assert await storage.pins.add(first, connection=connection)
    assert await storage.pins.of_job(first.job_id) is not None


async def one_way(storage, mine, old, how):
    """End the pinned job."""
    if how == "done":
        await storage.claims.finish([done(one) for one in await claim(storage, old)])
    elif how == "dead":
        await storage.claims.finish([dead(one) for one in await claim(storage, old)])
    elif how == "cancelled":
        await storage.jobs.cancel(mine)
    elif how == "cancelled while it ran":
        taken = await claim(storage, old)
        await storage.jobs.cancel(mine)
        await storage.claims.postpone([failed(one) for one in taken])
    elif how == "all cancelled":
        async for _ in move_all(storage, Move.CANCEL, State.PENDING):
            pass
    elif how == "completed by hand":
        await storage.corrections.end(mine, State.DONE)
    elif how == "deleted":
        await storage.jobs.delete(mine)
    elif how == "removed":
        await storage.keys.remove("work", "k")
    else:
        await storage.jobs.enqueue(job(key="k", key_mode=KeyMode.REPLACE))


WAYS = [
    *("done", "dead", "cancelled", "cancelled while it ran", "all cancelled", "completed by hand"),
    *("deleted", "removed", "replaced"),
]


@pytest.mark.parametrize("how", WAYS)
async def test_a_job_that_has_ended_or_is_another_one_is_pinned_no_more(storage, how):
    old = await worker(storage, **OLD)
    mine = await pinned(storage, old, key="k")

    await one_way(storage, mine, old, how)

    assert await storage.pins.of_job(mine) is None
    assert await storage.pins.counts() == []


async def test_a_job_that_is_completed_in_a_transaction_of_its_handlers_is_pinned_no_more(storage, database):
    old = await worker(storage, **OLD)
    mine = await pinned(storage, old)
    [taken] = await claim(storage, old)

    async with database.transaction() as connection:
        await storage.completions.complete(done(taken), connection=connection)

    assert await storage.pins.of_job(mine) is None


async def test_a_dead_job_that_is_retried_is_for_any_version_until_one_pins_it(storage):
    old, new = await worker(storage, **OLD), await worker(storage, **NEW)
    mine = await pinned(storage, old)
    await storage.claims.finish([dead(one) for one in await claim(storage, old)])
    await storage.jobs.retry(mine)

    [taken] = await claim(storage, new, without_pinned=True)
    assert (taken.pinned_to, taken.links) == (None, None)
    assert await storage.pins.add(taken)

    assert (await storage.pins.of_job(mine)).version == "2.0"


async def test_a_job_that_is_unpinned_goes_on_with_any_version(storage):
    old, new = await worker(storage, **OLD), await worker(storage, **NEW)
    mine = await pinned(storage, old)

    assert await storage.pins.remove(mine)
    assert not await storage.pins.remove(mine)

    [taken] = await claim(storage, new, without_pinned=True)
    assert (taken.job_id, taken.pinned_to) == (mine, None)
    with pytest.raises(JobNotFound):
        await storage.pins.remove(mine + 1)


async def test_pinned_jobs_are_counted_by_queue_and_version_with_those_that_need_a_worker_now(storage, clock):
    old = await worker(storage, ["default", "mail"], **OLD)
    workers = await versions(storage, v1=VersionState.CURRENT)
    await pinned(storage, old)
    await pinned(storage, old, delay=timedelta(seconds=60))
    assert await storage.pins.counts() == [PinnedJobs("default", "1.0", None, None, 2, 1, 0)]
    await pinned(storage, workers["v1"], delay=timedelta(hours=1))
    await claim(storage, old)

    await clock.advance(seconds=61)

    assert await storage.pins.counts() == [
        PinnedJobs("default", "1.0", None, None, 2, 1, 1),
        PinnedJobs("default", "v1", POOL, "v1id", 1, 0, 0),
    ]


async def test_steps_are_kept_beside_a_pin(storage):
    first = await running(storage, await worker(storage, **OLD))
    assert await storage.pins.add(first)
    assert await storage.steps.add(first, NewStep(1, "charge")) is not None

    await storage.claims.postpone([failed(first, delay=NOW)])
    [second] = await claim(storage, first.worker_id)

    assert second.links == PINNED | 4
    assert [step.name for step in await storage.steps.of_job(first.job_id)] == ["charge"]


async def test_versions_that_claim_at_once_never_keep_what_is_pinned_to_the_other(storage, another):
    """Each hands back what is not its own, as workers do, and the other one finds it."""
    mine = {}
    for version in ("1.0", "2.0"):
        own = await worker(storage, version=version)
        mine[version] = {await pinned(storage, own) for _ in range(40)}
    plain = {await enqueue(storage) for _ in range(40)}
    ran = {"1.0": set[int](), "2.0": set[int]()}

    async def work(version):
        own = await another()
        me = await worker(own, version=version)
        bounced = False
        while sum(map(len, ran.values())) < 120:
            taken = await claim(own, me, limit=3, without_pinned=bounced)
            foreign = [one for one in taken if one.pinned_to is not None]
            bounced = bounced or bool(foreign)
            await own.claims.hand_back(foreign)
            ends = [done(one) for one in taken if one.pinned_to is None]
            assert await own.claims.finish(ends) == []
            ran[version] |= {end.claim.job_id for end in ends}
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(version) for version in ran for _ in range(2)))

    assert ran["1.0"] | ran["2.0"] == mine["1.0"] | mine["2.0"] | plain
    assert mine["1.0"] <= ran["1.0"] and mine["2.0"] <= ran["2.0"]


async def test_all_jobs_of_a_version_are_pinned_to_another_one_or_to_none(storage):
    taken = []
    for kind in ("a", "b"):
        me = await worker(storage, version="old", kinds=(kind,))
        job_id = await enqueue(storage, kind=kind)
        [one] = await claim(storage, me)
        assert await storage.pins.add(one)
        taken.append(job_id)
    first, second = taken

    assert list(await storage.pins.of_version("old")) == taken
    assert list(await storage.pins.of_version("old", kind="b")) == [second]
    assert list(await storage.pins.of_version("old", queue="mail")) == []
    assert list(await storage.pins.of_version("old", after=first)) == [second]
    assert await storage.pins.put(first, "new", by="ada")
    assert not await storage.pins.put(first, "new", by="ada")
    assert (await storage.pins.of_job(first)).version == "new"
    assert (await storage.pins.of_job(second)).version == "old"
    [note] = await storage.interventions.of_job(first)
    assert (note.what.value, note.by, note.note) == ("pinned", "ada", "to version new")
