"""A database that an earlier release left is migrated: everything is there, and work goes on. See `releases/keep.py`."""

import contextlib
from pathlib import Path

import pytest

from forge_jobs.model.job import State
from tests.storage.databases import migrated_storage
from tests.storage.factories import claim, done, lost_claims, queue, state, worker
from tests.storage.invariants import check_invariants

RELEASES = Path(__file__).parents[1] / "releases"

STATES = {State.SCHEDULED, State.RETRYING, State.PENDING, State.IN_PROGRESS, State.DONE, State.DEAD}
"""Of which each release has left jobs."""

SHOWN = (
    "SELECT id, queue, kind, state, priority, max_attempts, timeout, key, codec, payload, worker_id, error, result "
    "FROM jobs ORDER BY id"
)


@pytest.fixture(params=sorted(path.name for path in RELEASES.iterdir() if path.name[0].isdigit()))
async def left(request, database):
    """The database as that release left it: what its own view shows of the jobs."""
    schema = database.storage().schema
    await schema.drop()
    await database.run((RELEASES / request.param / f"{database.kind}.sql").read_text(encoding="utf-8"))
    yield await database.rows(SHOWN)
    await schema.drop()
    await schema.migrate()


@contextlib.asynccontextmanager
async def upgraded(database):
    async with migrated_storage(database) as storage:
        yield storage
        await check_invariants(storage, database)


async def test_every_job_of_a_release_is_there_after_an_upgrade(left, database):
    async with upgraded(database) as storage:
        found = [await storage.jobs.get(row[0]) for row in left]
        shown = await database.rows(SHOWN)

    assert {job.state for job in found} >= STATES
    assert shown == left
    assert [
        (
            *(job.id, job.queue, job.kind, job.state, job.priority, job.max_attempts),
            *(job.timeout and job.timeout.total_seconds(), job.key, job.codec, job.payload, job.worker_id),
            *(job.error if job.state is State.DEAD else None, job.result),
        )
        for job in found
    ] == left


async def test_what_a_release_left_undone_is_done_after_an_upgrade(left, database):
    pending = [row[0] for row in left if row[3] == State.PENDING]
    begun = [row[0] for row in left if row[3] == State.IN_PROGRESS]
    async with upgraded(database) as storage:
        lost = await lost_claims(storage)
        assert sorted(one.job_id for one in lost) == begun
        assert await storage.claims.hand_back(lost) == []
        [cancelled] = [one.job_id for one in lost if one.cancel_requested]
        assert await state(storage, cancelled) is State.DEAD

        me = await worker(storage, ["default", "mail"])
        await storage.slots.take((await queue(storage, "mail")).id, me, 10)
        claims = [*await claim(storage, me), *await claim(storage, me, "mail")]
        assert sorted(one.job_id for one in claims) == sorted({*pending, *begun} - {cancelled})
        assert await storage.claims.finish([done(one) for one in claims]) == []


async def test_what_a_release_had_configured_is_there_after_an_upgrade(left, database):
    async with upgraded(database) as storage:
        mail = await queue(storage, "mail")
        [cron, declared] = await storage.crons.all()
        [limit] = await storage.limits.all()
        [kind] = await storage.kinds.all()
        [version] = await storage.versions.all()

    assert (mail.concurrency, mail.rate_limit, mail.max_attempts) == (3, "mail", 8)
    assert (cron.name, cron.queue, limit.scope, limit.capacity) == ("nightly", "default", "mail", 10)
    assert (declared.name, declared.declared, declared.declared_before) == ("often", "said", ("before",))
    assert (kind.kind, kind.owner) == ("report", "accounting")
    assert (version.id, version.queues) == ("aaaaaaa1", ("default", "mail"))
