"""All that a SQLite file holds moves to PostgreSQL: each job is in one of both, whatever is cut off."""

import asyncio
import dataclasses
import os
import random
import signal
import sys
from datetime import timedelta

import pytest

from forge_jobs import Context, Flow, Forge, Worker
from forge_jobs.client.moving import Moving
from forge_jobs.errors import InvalidInput, StorageRefused, StorageUnavailable, StorageUnusable
from forge_jobs.model.finding import Fault
from forge_jobs.model.job import State
from forge_jobs.storage.moving import NOT_MOVED, SETTINGS, TABLES
from forge_jobs.storage.postgres.arrival import PostgresArrival
from forge_jobs.storage.sqlite.departure import SqliteDeparture
from tests.releases.keep import fill
from tests.storage.databases import migrated_storage
from tests.storage.factories import claim, enqueue, enqueue_many, job, lost_claims, worker
from tests.storage.invariants import check_invariants

STALE = timedelta(seconds=30)
SHOWN = (
    "SELECT id, queue, kind, state, priority, attempt, max_attempts, timeout, key, codec, payload, reason, worker_id, "
    "error, result, groups, rerun_of, progress, progress_note, tenant FROM jobs ORDER BY id"
)
MOMENTS = (
    "SELECT id, {0} AS created, {1} AS due, {2} AS claimed, {3} AS finished, {4} AS begin, {5} AS deadline "
    "FROM jobs ORDER BY id"
)


@pytest.fixture
async def target(postgres):
    """A storage on an empty PostgreSQL, which contradicts itself nowhere in the end."""
    async with migrated_storage(postgres) as storage:
        yield storage
        found = [finding async for look in storage.audit.jobs() for finding in look.findings]
        assert [finding for finding in found if finding.fault is not Fault.LOST] == []
        assert [
            *await storage.audit.groups(),
            *await storage.audit.counts(),
            *await storage.audit.slots(),
        ] == []


def moving(target, sqlite, **options):
    return Moving(target, sqlite.url, schema="forge_jobs", **{"stale": STALE, **options})


async def shown(database):
    columns = ["created_at", "run_at", "claimed_at", "finished_at", "start_by", "deadline"]
    if database.kind == "postgres":
        columns = [f"(extract(epoch FROM {column}) * 1000000)::bigint" for column in columns]
    return await database.rows(SHOWN), await database.rows(MOMENTS.format(*columns))


async def test_all_jobs_and_what_belongs_to_them_are_there_as_they_were(sqlite, postgres, target):
    await fill(sqlite)
    before = await shown(sqlite)

    report = await moving(target, sqlite).run()

    assert await shown(postgres) == before
    assert report.jobs.total() == len(before[0])
    for table in (*TABLES, "job_tag"):
        if table != "tally":
            count = f"SELECT count(*) FROM {table}"
            assert (table, await postgres.rows(count)) == (table, await sqlite.rows(count))


async def test_what_was_configured_is_there(sqlite, target):
    await fill(sqlite)
    async with migrated_storage(sqlite) as source:
        there = await source.queues.all(), await source.crons.all(), await source.limits.all()
        kinds = await source.kinds.all()

    await moving(target, sqlite).run()

    def named(queues):
        return {queue.name: dataclasses.replace(queue, id=0) for queue in queues}

    assert named(await target.queues.all()) == named(there[0])
    assert await target.crons.all() == there[1]
    assert [(limit.scope, limit.capacity, limit.refill) for limit in await target.limits.all()] == [
        (limit.scope, limit.capacity, limit.refill) for limit in there[2]
    ]
    assert [kind.kind for kind in await target.kinds.all()] == [kind.kind for kind in kinds]


async def test_work_goes_on_there_and_new_jobs_get_ids_that_no_job_has_had(sqlite, postgres, target):
    await fill(sqlite)
    async with migrated_storage(sqlite) as source:
        deleted = await enqueue(source)
        await source.jobs.delete(deleted)
    await moving(target, sqlite).run()

    assert await enqueue(target) > deleted
    lost = await lost_claims(target)
    assert lost
    assert await target.claims.hand_back(lost) == []
    me = await worker(target, ["default"])
    claims = await claim(target, me, limit=1000)
    assert {one.job_id for one in lost if one.queue_id == claims[0].queue_id} <= {
        one.job_id for one in claims
    }
    await check_invariants(target, postgres)


async def test_who_did_what_to_a_job_by_hand_is_known_there_and_more_is_noted(sqlite, target):
    async with migrated_storage(sqlite) as source:
        kept, gone = await enqueue(source), await enqueue(source)
        await source.jobs.cancel(kept, by="ada")
        await source.jobs.delete(gone, by="ada")
    await moving(target, sqlite).run()

    await target.jobs.retry(kept, by="bob")

    noted = [
        [(one.what.value, one.by, one.role is None) for one in await target.interventions.of_job(job_id)]
        for job_id in (kept, gone)
    ]
    assert noted == [[("cancelled", "ada", True), ("retried", "bob", False)], [("deleted", "ada", True)]]


def shop(url, shipped):
    forge = Forge(url)

    @forge.handler
    async def ship(n: int) -> int:
        shipped.append(n)
        return n + 1

    @forge.handler
    async def approve(ctx: Context) -> str:
        return await ctx.wait_for("approved", timeout=3600)

    return forge, ship, approve


async def test_groups_flows_and_waits_go_on_there(sqlite, postgres, target):
    shipped: list[int] = []
    forge, ship, approve = shop(sqlite.url, shipped)
    async with forge:
        approval = await approve.enqueue()
        await Worker(forge, queues=["default"]).run(until_empty=True)
        for n in range(3):
            await ship.options(group="customer:42").enqueue(n=n)
        await Flow("order").and_then(ship, n=10).and_then(ship, name="again").start()

    await moving(target, sqlite).run()

    forge, ship, approve = shop(postgres.url, shipped)
    async with forge:
        await forge.signal("approved", "by Ada", job=approval.id)
        await Worker(forge, queues=["default"]).run(until_empty=True)
        assert await forge.wait(approval) == "by Ada"
    assert sorted(shipped) == [0, 1, 2, 10, 11]


async def test_a_file_that_was_left_is_shut_and_says_where_its_jobs_are(sqlite, target):
    async with migrated_storage(sqlite) as open_before:
        first = await enqueue(open_before)
        await moving(target, sqlite).run()

        with pytest.raises(StorageUnusable, match="The jobs of this file were moved to postgresql://"):
            await enqueue(open_before)
        with pytest.raises(StorageUnusable, match="were moved to"):
            await open_before.jobs.delete(first)

    with pytest.raises(
        StorageUnusable, match=r"The jobs of this file were moved to postgresql://.*; use that"
    ):
        async with Forge(sqlite.url):
            pass
    with pytest.raises(InvalidInput, match=r"were moved to .* already"):
        await moving(target, sqlite).run()


async def test_nothing_is_moved_while_workers_live_unless_told(sqlite, target):
    async with migrated_storage(sqlite) as source:
        sqlite.clock.frozen = None
        me = await worker(source)
        await enqueue(source)
        await claim(source, me)

        with pytest.raises(
            InvalidInput, match=r"^1 worker of sqlite:.*was heard from within 30 s \(test-worker"
        ):
            await moving(target, sqlite).run()
        assert await target.jobs.find() == []
        await enqueue(source)

        await moving(target, sqlite, force=True).run()

    assert sorted(job.state for job in await target.jobs.find()) == [State.IN_PROGRESS, State.PENDING]


async def test_a_dry_run_says_what_would_be_moved_and_changes_nothing(sqlite, target):
    async with migrated_storage(sqlite) as source:
        await enqueue_many(source, 3)

        report = await moving(target, sqlite).run(dry_run=True)

        assert report.jobs == {("default", "pending"): 3}
        assert await target.jobs.find() == []
        await enqueue(source)


async def test_a_database_with_jobs_is_not_moved_to(sqlite, target):
    await enqueue(target)

    with pytest.raises(
        InvalidInput, match=r"has been used \(there are rows in job\), allowed is a database in which nothing"
    ):
        await moving(target, sqlite).run()

    async with migrated_storage(sqlite) as source:
        await enqueue(source)


async def test_what_is_managed_there_stays_as_it_is(sqlite, target):
    async with migrated_storage(sqlite) as source:
        await source.queues.set("mail", {"concurrency": 3})
        await enqueue(source, queue="mail")
    await target.queues.set("mail", {"concurrency": 7}, managed_by="ForgeQueue shop/mail")

    await moving(target, sqlite).run()

    [mail] = [queue for queue in await target.queues.all() if queue.name == "mail"]
    assert (mail.concurrency, mail.managed_by) == (7, "ForgeQueue shop/mail")
    [moved] = await target.jobs.find()
    assert moved.queue == "mail"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_move_that_is_cut_off_is_ended_by_the_next_one(sqlite, target, monkeypatch, when):
    async with migrated_storage(sqlite) as source:
        await enqueue_many(source, 3)
    settle, left = PostgresArrival.settle, SqliteDeparture.left

    async def cut_off(*arguments, **options):
        raise StorageUnavailable("cut off")

    if when == "before":
        monkeypatch.setattr(PostgresArrival, "settle", cut_off)
    else:
        monkeypatch.setattr(SqliteDeparture, "left", cut_off)
    with pytest.raises(StorageUnavailable, match="cut off"):
        await moving(target, sqlite).run()
    monkeypatch.setattr(PostgresArrival, "settle", settle)
    monkeypatch.setattr(SqliteDeparture, "left", left)

    assert len(await target.jobs.find()) == (0 if when == "before" else 3)
    if when == "before":  # the file is in use again
        async with migrated_storage(sqlite) as source:
            await enqueue(source)
    else:
        with pytest.raises(StorageUnusable, match="run forge-jobs move again"):
            async with Forge(sqlite.url):
                pass
        await target.jobs.delete((await target.jobs.find())[0].id)  # it was done, and forgotten at once

    await moving(target, sqlite).run()

    assert len(await target.jobs.find()) == (4 if when == "before" else 2)


async def test_a_file_that_was_shut_before_anything_arrived_goes_to_where_it_was_to_go(sqlite, target):
    async with migrated_storage(sqlite) as source:
        await enqueue_many(source, 3)
    departure = SqliteDeparture(str(sqlite.path))
    await departure.open()
    await departure.shut("postgresql://elsewhere/shop")  # and its program was killed
    await departure.close()

    with pytest.raises(
        InvalidInput, match="are being moved to postgresql://elsewhere/shop, allowed is to go on"
    ):
        await moving(target, sqlite).run()
    assert await target.jobs.find() == []

    await departure.open()
    shut = await departure.shut_since()
    assert shut is not None
    await departure.reopen(shut)
    await departure.shut(target.url)
    await departure.close()
    await moving(target, sqlite).run()

    assert len(await target.jobs.find()) == 3


async def test_a_file_is_in_use_again_when_the_server_refuses_what_is_in_it(sqlite, postgres, target):
    async with migrated_storage(sqlite) as source:
        await enqueue_many(source, 3)
    await postgres.refuse("job", "new.kind = 'work'")

    with pytest.raises(StorageRefused, match="the trigger says no"):
        await moving(target, sqlite).run()

    async with migrated_storage(sqlite) as source:
        await enqueue(source)
    await postgres.accept()
    await moving(target, sqlite).run()
    assert len(await target.jobs.find()) == 4


async def test_a_file_stays_shut_when_another_move_has_ended_while_this_one_looked(
    sqlite, target, monkeypatch
):
    async with migrated_storage(sqlite) as source:
        await enqueue_many(source, 3)
    left, states = SqliteDeparture.left, SqliteDeparture.states
    arrived, looked, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def late_left(self, target):
        arrived.set()
        await looked.wait()
        await left(self, target)

    async def late_states(self):
        counted = await states(self)
        if arrived.is_set():  # this is the second one
            looked.set()
            await ended.wait()
        return counted

    monkeypatch.setattr(SqliteDeparture, "left", late_left)
    monkeypatch.setattr(SqliteDeparture, "states", late_states)
    first = asyncio.create_task(moving(target, sqlite).run())
    await arrived.wait()
    second = asyncio.create_task(moving(target, sqlite).run())
    await first
    ended.set()

    with pytest.raises(InvalidInput, match="already"):
        await second
    with pytest.raises(StorageUnusable, match="were moved to"):
        async with Forge(sqlite.url):
            pass
    assert len(await target.jobs.find()) == 3


async def test_rows_of_a_file_that_another_move_has_taken_back_do_not_arrive(sqlite, target, monkeypatch):
    async with migrated_storage(sqlite) as source:
        await enqueue_many(source, 3)
    number = PostgresArrival.number

    async def taken_back(self, *arguments, **options):
        monkeypatch.undo()
        departure = SqliteDeparture(str(sqlite.path))
        await departure.open()
        shut = await departure.shut_since()
        assert shut is not None
        await departure.reopen(shut)
        await departure.close()
        await number(self, *arguments, **options)

    monkeypatch.setattr(PostgresArrival, "number", taken_back)
    with pytest.raises(InvalidInput, match=r"Another move of .* has failed meanwhile; run this again"):
        await moving(target, sqlite).run()

    assert await target.jobs.find() == []
    async with migrated_storage(sqlite) as source:
        await enqueue(source)


async def test_a_second_move_that_begins_at_the_same_moment_is_told_to_wait(sqlite, target, monkeypatch):
    async with migrated_storage(sqlite) as source:
        await enqueue_many(source, 3)
    first, second = SqliteDeparture(str(sqlite.path)), SqliteDeparture(str(sqlite.path))
    await first.open()
    await second.open()
    await first.shut(target.url)

    with pytest.raises(InvalidInput, match=r"Another move of .* has begun meanwhile; wait for its end"):
        await second.shut(target.url)

    await first.close()
    await second.close()
    await moving(target, sqlite).run()
    assert len(await target.jobs.find()) == 3


async def test_a_program_that_is_killed_again_and_again_moves_each_job_once(sqlite, postgres, target):
    async with migrated_storage(sqlite) as source:
        await source.jobs.enqueue_many([job("many", key=str(n)) for n in range(10_000)])
    dice = random.Random(1)
    for patience in (*(dice.uniform(0.5, 1.6) for _ in range(4)), 60.0):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "forge_jobs", "move", "--from", sqlite.url, "--to", postgres.url),
            env={**os.environ, "FORGE_AUTO_MIGRATE": "0"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(patience):
                _, said = await child.communicate()
            assert child.returncode == 0 or b"already" in said, said
            break
        except TimeoutError:
            child.send_signal(signal.SIGKILL)
            await child.wait()

    [(jobs, keys)] = await postgres.rows("SELECT count(*), count(DISTINCT key) FROM job")
    assert (jobs, keys) == (10_000, 10_000)


async def test_every_table_of_a_file_is_moved_or_it_is_said_why_not(sqlite):
    assert {*await sqlite.tables()} <= {*TABLES, *SETTINGS, *NOT_MOVED}
    assert not {*TABLES, *SETTINGS} & {*NOT_MOVED}
