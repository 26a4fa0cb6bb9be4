"""Jobs of kinds for which nobody who serves their queue has a handler, and what is known of who serves it."""

from datetime import timedelta

import pytest

from forge_jobs.model.job import Unhandled
from forge_jobs.model.version import Version, VersionState
from tests.storage.factories import enqueue, enqueue_many, worker

POOL, ELSEWHERE = "6f0c4e1a-pool", "77777777-pool"
CURRENT, PENDING, DRAINING = VersionState.CURRENT, VersionState.PENDING, VersionState.DRAINING
HOUR = timedelta(hours=1)


async def put(storage, version_id, state, pool=POOL, queues=("default",)):
    epoch = (await storage.versions.take_over("operator-1")).number
    await storage.versions.put(
        Version(pool, version_id, version="1", deployment=f"mail-{version_id}", state=state, queues=queues),
        epoch=epoch,
    )


async def was_here(storage, version_id, kinds):
    """A worker of the version came and went."""
    await storage.workers.deregister(await worker(storage, kinds=kinds, pool=POOL, version_id=version_id))


async def test_kinds_that_no_worker_of_the_queue_handles_are_told_with_their_jobs(storage):
    await worker(storage, kinds=("work", "send"))
    await worker(storage, ["mail"], kinds=("fax",))
    await enqueue_many(storage, 2, kind="sned")
    await enqueue_many(storage, 3, kind="fax")
    await enqueue(storage, "work")
    await enqueue(storage, "fax", queue="mail")

    assert await storage.jobs.unhandled() == [
        Unhandled("default", "fax", pending=3),
        Unhandled("default", "sned", pending=2),
    ]
    assert await storage.workers.handled() == {"default": {"work", "send"}, "mail": {"fax"}}


async def test_jobs_whose_time_has_come_are_told_too(storage, clock):
    await worker(storage)
    await enqueue(storage, "sned", delay=HOUR)
    await enqueue(storage, "work", delay=HOUR)
    assert await storage.jobs.unhandled() == []

    await clock.advance(hours=2)

    assert await storage.jobs.unhandled() == [Unhandled("default", "sned", due=1)]


async def test_what_is_due_soon_counts_only_where_somebody_may_handle_it(storage):
    await storage.queues.ensure(["fax"])
    await enqueue_many(storage, 3, kind="sned", delay=HOUR)
    await enqueue(storage, "work", delay=2 * HOUR)
    await enqueue(storage, "fax", queue="fax", delay=HOUR)
    before = await storage.schedule.upcoming(3 * HOUR)

    await worker(storage)
    after = await storage.schedule.upcoming(3 * HOUR)

    assert {queue: jobs for queue, (jobs, _) in before.items()} == {"default": 4, "fax": 1}
    assert {queue: jobs for queue, (jobs, _) in after.items()} == {"default": 1, "fax": 1}
    assert before["default"][1] < after["default"][1]


async def test_of_a_queue_that_nobody_is_known_to_serve_nothing_is_told(storage):
    await enqueue(storage, "sned")

    assert await storage.jobs.unhandled() == []
    assert await storage.workers.handled() == {}


@pytest.mark.parametrize("facts", [{"draining": True}, {"kinds": ()}])
async def test_a_worker_that_claims_nothing_more_says_nothing(storage, facts):
    await worker(storage, **facts)
    await enqueue(storage, "sned")

    assert await storage.jobs.unhandled() == []


async def test_it_is_known_what_a_version_that_sleeps_has_handlers_for(storage):
    await put(storage, "bbbbbbb1", CURRENT)
    await was_here(storage, "bbbbbbb1", ("work",))
    await enqueue(storage, "work")
    await enqueue(storage, "sned")

    assert await storage.jobs.unhandled() == [Unhandled("default", "sned", pending=1)]
    [version] = await storage.versions.all(POOL)
    assert (version.queues, version.kinds) == (("default",), ("work",))


async def test_a_version_without_any_handler_handles_nothing(storage):
    await put(storage, "bbbbbbb1", CURRENT)
    await was_here(storage, "bbbbbbb1", ())
    await enqueue(storage, "work")

    assert await storage.jobs.unhandled() == [Unhandled("default", "work", pending=1)]
    assert await storage.workers.handled() == {"default": frozenset()}


@pytest.mark.parametrize("state", [PENDING, DRAINING])
async def test_a_version_that_may_not_claim_does_not_count(storage, state):
    await put(storage, "bbbbbbb1", state)
    await worker(storage, kinds=("sned",), pool=POOL, version_id="bbbbbbb1")
    await worker(storage, kinds=("work",))
    await enqueue(storage, "sned")

    assert await storage.jobs.unhandled() == [Unhandled("default", "sned", pending=1)]


@pytest.mark.parametrize("state", [PENDING, CURRENT])
@pytest.mark.parametrize("queues", [("default", "mail"), None])
async def test_a_version_that_never_had_a_worker_may_have_any_handler(storage, state, queues):
    """Else nobody would wake it to find out."""
    await worker(storage)
    await put(storage, "bbbbbbb1", state, queues=queues)
    await enqueue(storage, "sned")

    assert await storage.jobs.unhandled() == []

    await was_here(storage, "bbbbbbb1", ("work",))
    assert await storage.jobs.unhandled() == [Unhandled("default", "sned", pending=1)]


async def test_a_version_that_serves_another_queue_leaves_nothing_in_doubt(storage):
    await worker(storage)
    await put(storage, "bbbbbbb1", CURRENT, pool=ELSEWHERE, queues=("mail",))
    await put(storage, "bbbbbbb2", DRAINING)
    await enqueue(storage, "sned")

    assert await storage.jobs.unhandled() == [Unhandled("default", "sned", pending=1)]


async def test_workers_of_the_release_before_leave_nothing_in_doubt_while_they_live(database, storage):
    await put(storage, "bbbbbbb1", CURRENT)
    await worker(storage, pool=POOL, version_id="bbbbbbb1")
    await database.rows("UPDATE worker_version SET kinds = NULL")  # they write none
    await enqueue(storage, "sned")

    assert await storage.jobs.unhandled() == [Unhandled("default", "sned", pending=1)]


async def test_a_version_says_what_its_workers_have_now(storage):
    await put(storage, "bbbbbbb1", CURRENT)
    for kinds in (("work",), ("work", "sned")):
        await was_here(storage, "bbbbbbb1", kinds)
    await enqueue(storage, "sned")

    assert await storage.jobs.unhandled() == []


async def test_a_version_that_is_put_again_keeps_what_its_workers_said(storage):
    await put(storage, "bbbbbbb1", CURRENT)
    await was_here(storage, "bbbbbbb1", ("work",))
    await put(storage, "bbbbbbb1", CURRENT, queues=None)

    assert await storage.workers.handled() == {"default": {"work"}}


async def test_a_few_of_a_queue_are_looked_at_and_many_where_nobody_handles_those(storage):
    await worker(storage, kinds=("work",))
    await enqueue_many(storage, 1200, kind="sned")
    await enqueue(storage, "work")
    assert await storage.jobs.unhandled() == [Unhandled("default", "sned", pending=1200)]

    await enqueue(storage, "work", priority=-1)
    assert await storage.jobs.unhandled() == [Unhandled("default", "sned", pending=99)]


@pytest.mark.parametrize("serving", [True, False])
async def test_jobs_of_paused_kinds_are_told_wherever_they_stand_and_whoever_serves_them(storage, serving):
    if serving:
        await worker(storage, kinds=("work", "send"))
    await enqueue_many(storage, 101, kind="send")
    await enqueue(storage, "work")
    await enqueue_many(storage, 150, kind="work", priority=-1)

    await storage.kinds.pause("send", until=None, reason=None)

    assert await storage.jobs.unhandled() == [Unhandled("default", "send", pending=101, paused=True)]


@pytest.mark.parametrize("serving", [True, False])
async def test_while_a_kind_is_paused_some_are_looked_at_and_most_where_none_of_the_first_can_be_run(
    storage, serving
):
    if serving:
        await worker(storage, kinds=("work", "send"))
    await enqueue_many(storage, 9_999, kind="work")
    await enqueue_many(storage, 2, kind="send")

    await storage.kinds.pause("send", until=None, reason=None)
    assert await storage.jobs.unhandled() == [Unhandled("default", "send", pending=1, paused=True)]

    await enqueue_many(storage, 100, kind="send", priority=-1)
    assert await storage.jobs.unhandled() == [Unhandled("default", "send", pending=102, paused=True)]


@pytest.mark.parametrize("serving", [True, False])
async def test_no_job_of_a_paused_kind_is_due_soon(storage, serving):
    if serving:
        await worker(storage, kinds=("work", "send"))
    await enqueue_many(storage, 3, kind="send", delay=HOUR)
    await enqueue(storage, "work", delay=HOUR)

    await storage.kinds.pause("send", until=None, reason=None)

    assert {queue: jobs for queue, (jobs, _) in (await storage.schedule.upcoming(2 * HOUR)).items()} == {
        "default": 1
    }
