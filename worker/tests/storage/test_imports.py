"""Jobs of other packages are taken over from their databases: each once, whatever is cut off."""

import asyncio
import json
import os
import random
import signal
import sys
from datetime import UTC, datetime

import pytest

from forge_jobs.client.imports import Import
from forge_jobs.errors import InvalidInput, StorageUnavailable
from forge_jobs.model.foreign_job import ForeignQueue
from forge_jobs.model.job import State
from forge_jobs.model.kind import Kind
from forge_jobs.rules import foreign_jobs
from forge_jobs.storage.postgres.foreign_jobs import PostgresForeignJobs
from tests.elsewhere.databases import foreign_database, rows, run
from tests.storage.factories import enqueue

GRAPHILE, PROCRASTINATE = ForeignQueue.GRAPHILE, ForeignQueue.PROCRASTINATE
IN_2040 = datetime(2040, 1, 1, tzinfo=UTC)
LEFT = "SELECT count(*) FROM graphile_worker._private_jobs"
ASIDE = "SELECT count(*) FROM graphile_worker.forge_jobs_aside"


@pytest.fixture
async def graphile(postgres_server):
    async with foreign_database(postgres_server, "graphile") as url:
        yield url


@pytest.fixture
async def procrastinate(postgres_server):
    async with foreign_database(postgres_server, "procrastinate") as url:
        yield url


async def by_kind(storage, kind):
    """Return the jobs of a kind, in the order in which they came."""
    return sorted(await storage.jobs.find(kind=kind), key=lambda job: job.id)


async def test_jobs_of_graphile_worker_wait_here_as_they_did_there(storage, graphile):
    report = await Import(storage, GRAPHILE, url=graphile, queue="moved").run()

    assert report.count == 7
    [email] = await by_kind(storage, "send_email")
    assert (json.loads(email.payload), email.queue, email.state) == (
        {"to": "ada@example.com", "n": 1.5},
        "moved",
        State.PENDING,
    )
    assert (email.max_attempts, email.attempt) == (25, 0)
    [remind] = await by_kind(storage, "remind")
    assert (remind.key, remind.run_at, remind.priority, remind.max_attempts, remind.tags) == (
        *("cart:7", IN_2040, 5, 3),
        ("gpu",),
    )
    [notify] = await by_kind(storage, "notify")
    assert json.loads(notify.payload) == [{"user": 1}, {"user": 2}]
    [flaky] = await by_kind(storage, "flaky")
    assert (flaky.attempt, flaky.max_attempts) == (1, 25)


async def test_a_named_queue_of_graphile_worker_is_a_group(storage, graphile):
    await Import(storage, GRAPHILE, url=graphile).run()
    await storage.schedule.make_pending()

    shipped = await by_kind(storage, "ship")
    assert [json.loads(job.payload)["order"] for job in shipped] == [1, 2, 3]
    assert {tuple(group.name for group in job.groups) for job in shipped} == {("orders",)}
    assert [job.state for job in shipped] == [State.PENDING, State.BLOCKED, State.BLOCKED]


async def test_what_cannot_be_taken_over_stays_there_and_is_said(storage, graphile):
    report = await Import(storage, GRAPHILE, url=graphile).run()

    left = {reason: jobs for reason, jobs in report.left.items() if jobs}
    assert (
        left.pop(
            "The kind is 'two words', allowed are 1 to 128 printable characters without spaces and commas"
        )
        == 1
    )
    assert left == {foreign_jobs.RUNS: 2, foreign_jobs.FAILED: 1, foreign_jobs.NO_PAYLOAD: 1}
    assert await rows(graphile, LEFT) == [(5,)]
    assert await rows(graphile, ASIDE) == [(0,)]


async def test_jobs_that_failed_for_good_are_dead_here_when_they_are_wanted(storage, graphile):
    report = await Import(storage, GRAPHILE, url=graphile, dead=True).run()

    _, lost = await by_kind(storage, "send_email")
    assert (lost.state, lost.error, lost.attempt) == (State.DEAD, "nobody knows them", 24)
    assert report.dead == 1
    assert await storage.jobs.retry(lost.id)


async def test_jobs_of_procrastinate_wait_here_as_they_did_there(storage, procrastinate):
    report = await Import(storage, PROCRASTINATE, url=procrastinate).run()
    await storage.schedule.make_pending()

    assert (report.count, report.left[foreign_jobs.RUNS], report.left[foreign_jobs.FAILED]) == (6, 2, 1)
    [email] = await by_kind(storage, "send_email")
    assert (json.loads(email.payload), email.queue, email.state) == (
        *({"to": "ada@example.com"}, "mail"),
        State.PENDING,
    )
    shipped = await by_kind(storage, "shop.ship")
    assert [job.state for job in shipped] == [State.PENDING, State.BLOCKED, State.BLOCKED]
    [remind] = await by_kind(storage, "remind")
    assert (remind.key, remind.run_at, remind.priority) == ("cart:7", IN_2040, -5)
    [flaky] = await by_kind(storage, "flaky")
    assert (flaky.attempt, flaky.state) == (1, State.SCHEDULED)
    assert await rows(procrastinate, "SELECT task_name FROM procrastinate_jobs ORDER BY id") == [
        ("broken",),
        ("shop.ship",),
        ("shop.ship",),
    ]


@pytest.mark.parametrize("package", list(ForeignQueue))
async def test_a_dry_run_changes_nothing(storage, postgres_server, package):
    async with foreign_database(postgres_server, package) as url:
        dry = await Import(storage, package, url=url).run(dry_run=True)
        assert await storage.jobs.find() == []

        done = await Import(storage, package, url=url).run()

    assert (dry.imported, +dry.left) == (done.imported, +done.left)


async def test_a_second_run_takes_nothing_over(storage, graphile):
    await Import(storage, GRAPHILE, url=graphile).run()

    assert (await Import(storage, GRAPHILE, url=graphile).run()).count == 0


async def test_a_job_whose_key_is_taken_here_stays_there_until_it_is_free(storage, graphile):
    mine = await enqueue(storage, "remind", key="cart:7")

    dry = await Import(storage, GRAPHILE, url=graphile).run(dry_run=True)
    done = await Import(storage, GRAPHILE, url=graphile).run()
    assert (dry.imported, +dry.left) == (done.imported, +done.left)
    assert (done.left[foreign_jobs.HAS_KEY], await rows(graphile, ASIDE)) == (1, [(0,)])

    await storage.jobs.delete(mine)
    assert (await Import(storage, GRAPHILE, url=graphile).run()).count == 1


async def set_aside_and_die(storage, url, monkeypatch):
    """A command dies as soon as it has set jobs aside."""
    keep = PostgresForeignJobs.set_aside

    async def cut_off(there, after, *, limit, connection):
        raise StorageUnavailable("cut off")

    async def set_aside(there, jobs, *, connection):
        await keep(there, jobs, connection=connection)
        context.setattr(PostgresForeignJobs, "aside", cut_off)

    with monkeypatch.context() as context:
        context.setattr(PostgresForeignJobs, "set_aside", set_aside)
        with pytest.raises(StorageUnavailable):
            await Import(storage, GRAPHILE, url=url).run()


async def test_what_a_command_that_was_cut_off_left_aside_is_counted_by_a_dry_run(
    storage, graphile, monkeypatch
):
    await set_aside_and_die(storage, graphile, monkeypatch)

    dry = await Import(storage, GRAPHILE, url=graphile).run(dry_run=True)
    done = await Import(storage, GRAPHILE, url=graphile).run()

    assert (dry.count, dry.imported, +dry.left) == (7, done.imported, +done.left)


async def test_a_job_whose_key_is_taken_while_it_is_kept_aside_stays_there_until_it_is_free(
    storage, graphile, monkeypatch
):
    await set_aside_and_die(storage, graphile, monkeypatch)
    mine = await enqueue(storage, "remind", key="cart:7")

    dry = await Import(storage, GRAPHILE, url=graphile).run(dry_run=True)
    done = await Import(storage, GRAPHILE, url=graphile).run()
    assert (dry.imported, +dry.left) == (done.imported, +done.left)
    assert (done.left[foreign_jobs.IS_KEPT], await rows(graphile, ASIDE)) == (1, [(1,)])

    await storage.jobs.delete(mine)
    assert (await Import(storage, GRAPHILE, url=graphile).run()).count == 1
    assert await rows(graphile, ASIDE) == [(0,)]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_is_cut_off_between_both_databases_is_taken_over_once(
    storage, graphile, monkeypatch, when
):
    """Whoever did it dies when the jobs are here, and may not have dropped them there."""
    drop = PostgresForeignJobs.dropped

    async def cut_off(there, tokens, *, connection):
        if when == "after":
            await drop(there, tokens, connection=connection)
        raise StorageUnavailable("cut off")

    monkeypatch.setattr(PostgresForeignJobs, "dropped", cut_off)
    with pytest.raises(StorageUnavailable):
        await Import(storage, GRAPHILE, url=graphile).run()
    monkeypatch.setattr(PostgresForeignJobs, "dropped", drop)
    assert len(await storage.jobs.find()) == 7
    done = (await by_kind(storage, "notify"))[0]
    await storage.jobs.delete(done.id)  # it has been done, and was forgotten at once

    await Import(storage, GRAPHILE, url=graphile).run()

    assert len(await storage.jobs.find()) == 6
    assert await rows(graphile, ASIDE) == [(0,)]


async def test_a_program_that_is_killed_again_and_again_takes_each_job_over_once(database, storage, graphile):
    await run(
        graphile,
        "SELECT graphile_worker.add_job('many', json_build_object('n', n)) FROM generate_series(1, 2000) AS n",
    )
    dice = random.Random(1)
    for patience in (*(dice.uniform(0.6, 1.6) for _ in range(6)), 60.0):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "forge_jobs", "import", "graphile", "--from", graphile),
            *("--database-url", database.url),
            env={**os.environ, "FORGE_AUTO_MIGRATE": "0"},
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(patience):
                assert await child.wait() == 0
            break
        except TimeoutError:
            child.send_signal(signal.SIGKILL)
            await child.wait()

    numbers = [json.loads(job.payload)["n"] for job in await storage.jobs.find(kind="many", limit=10_000)]
    assert sorted(numbers) == list(range(1, 2001))
    assert await rows(graphile, ASIDE) == [(0,)]


async def test_jobs_of_a_kind_that_is_sealed_here_stay_there(storage, graphile):
    await storage.kinds.declare([Kind("notify", codec="sealed+json", sealed=True)], by="me")

    report = await Import(storage, GRAPHILE, url=graphile).run()

    assert (report.count, report.left[foreign_jobs.IS_SEALED]) == (6, 1)
    assert await rows(graphile, ASIDE) == [(0,)]


async def test_a_job_that_is_never_to_run_there_is_not_lost(storage, graphile):
    await run(graphile, "UPDATE graphile_worker._private_jobs SET run_at = 'infinity' WHERE id = 1")

    await Import(storage, GRAPHILE, url=graphile).run()

    [email] = await by_kind(storage, "send_email")
    assert email.run_at.year == 9999


@pytest.mark.parametrize(
    "payload", [r'{"a": "\u0000"}', r'{"a": "\ud800"}', '{"a": 1e999999}', '{"a": ' + "9" * 5000 + "}"]
)
async def test_a_payload_that_is_json_and_nothing_else_keeps_no_other_job_back(storage, graphile, payload):
    await run(graphile, f"SELECT graphile_worker.add_job('odd', '{payload}'::json)")

    assert (await Import(storage, GRAPHILE, url=graphile).run()).count == 8

    [odd] = await by_kind(storage, "odd")
    assert odd.payload.decode() == payload


async def test_jobs_of_procrastinate_may_be_in_a_schema_of_another_name(storage, procrastinate):
    tables = ("jobs", "events", "periodic_defers", "workers")
    moves = [f"ALTER TABLE procrastinate_{table} SET SCHEMA other" for table in tables]
    await run(procrastinate, "; ".join(["CREATE SCHEMA other", *moves]))

    assert (await Import(storage, PROCRASTINATE, url=procrastinate, schema="other").run()).count == 6


async def test_tables_of_another_release_are_said(storage, procrastinate):
    await run(procrastinate, "ALTER TABLE procrastinate_jobs DROP COLUMN priority CASCADE")

    expected = (
        r"^The tables in public of postgresql:.* are of another release \(column job\.priority does not exist\), "
        r"allowed are the tables of procrastinate 3 or newer\.$"
    )
    with pytest.raises(InvalidInput, match=expected):
        await Import(storage, PROCRASTINATE, url=procrastinate).run(dry_run=True)


async def test_a_database_without_such_tables_is_said(storage, procrastinate):
    with pytest.raises(
        InvalidInput, match=r"has no table graphile_worker\._private_jobs, allowed is a database"
    ):
        await Import(storage, GRAPHILE, url=procrastinate).run()


async def test_what_is_no_postgresql_is_said(storage):
    with pytest.raises(InvalidInput, match=r"allowed is postgresql://user@host/database\."):
        await Import(storage, GRAPHILE, url="sqlite:///here.sqlite").run()
