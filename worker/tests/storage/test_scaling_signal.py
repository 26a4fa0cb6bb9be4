"""Other autoscalers read one number for each queue from the view `scaling_signal`, which only PostgreSQL has."""

import json
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
import yaml

from forge_jobs.model.group import Group, encoded
from forge_jobs.model.links import PINNED
from tests.storage.factories import (
    awaiting,
    claim,
    cron,
    done,
    enqueue,
    enqueue_many,
    leader,
    running,
    worker,
)

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)

EXAMPLE = Path(__file__).parents[3] / "examples" / "kubernetes" / "keda.yaml"
HOUR = timedelta(hours=1)


async def signal(postgres, column, queue="default"):
    """Return one number, as another autoscaler asks for it."""
    [[number]] = await postgres.rows(
        f"SELECT {column} FROM forge_jobs.scaling_signal WHERE queue = '{queue}'"
    )
    return number


async def test_it_says_what_counts_says(postgres, storage):
    await postgres.clock.freeze()
    me = await worker(storage, ["default", "mail"])
    await enqueue_many(storage, 5)
    await claim(storage, me, limit=2)
    await enqueue(storage, delay=HOUR)
    await postgres.clock.advance(seconds=40)
    await enqueue(storage, queue="mail", priority=-1)
    await postgres.clock.advance(seconds=20)

    told = await postgres.rows(
        "SELECT queue, pending, scheduled, in_progress, oldest_pending_age_seconds "
        "FROM forge_jobs.scaling_signal ORDER BY queue"
    )

    now = await storage.now()
    assert told == [
        (
            each.queue,
            each.pending,
            each.scheduled,
            each.in_progress,
            (now - each.oldest_pending_at).total_seconds(),
        )
        for each in await storage.jobs.counts()
    ]
    assert [(*row[1:4], round(row[4])) for row in told] == [(3, 1, 2, 60), (1, 0, 0, 20)]


async def test_a_queue_without_jobs_has_numbers_too(postgres, storage):
    told = await postgres.rows("SELECT * FROM forge_jobs.scaling_signal")

    assert told == [("default", 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0)]


async def test_the_workload_is_what_runs_and_what_could_start(postgres, storage):
    me = await worker(storage)
    await enqueue_many(storage, 5)
    await claim(storage, me, limit=2)

    assert await signal(postgres, "(held, workload)") == (0, 5)
    await storage.queues.set("default", {"concurrency": 3})
    assert await signal(postgres, "(held, workload)") == (2, 3)
    await storage.queues.set("default", {"concurrency": 1})
    assert await signal(postgres, "(held, workload)") == (3, 2)
    await storage.queues.set("default", {"paused": True, "concurrency": None})
    assert await signal(postgres, "(held, workload)") == (3, 2)


async def test_jobs_that_nobody_could_run_are_no_work(postgres, storage):
    me = await worker(storage, kinds=("work",))
    await enqueue_many(storage, 3, kind="sned")
    await enqueue_many(storage, 2, kind="work")

    assert await signal(postgres, "(pending, unhandled, held, workload)") == (5, 3, 0, 2)
    await storage.queues.set("default", {"concurrency": 1})
    assert await signal(postgres, "(unhandled, held, workload)") == (3, 1, 1)

    await storage.workers.deregister(me)
    assert await signal(postgres, "(unhandled, held, workload)") == (0, 4, 1), (
        "nothing is known of who will come"
    )


async def test_asking_reads_a_few_jobs_however_many_wait(postgres, storage):
    await worker(storage)
    await enqueue_many(storage, 5000)
    await postgres.rows("ANALYZE")

    plan = await postgres.rows("EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM forge_jobs.scaling_signal")

    assert 100 < sum(rows_read(json.loads(plan[0][0])[0]["Plan"], ("job", "ready"))) < 500


def rows_read(node, tables):
    """Yield how many rows each scan of the tables read."""
    if node.get("Relation Name") in tables:
        yield (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    for each in node.get("Plans", ()):
        yield from rows_read(each, tables)


async def test_nor_are_they_once_their_time_has_come(postgres, storage):
    await enqueue_many(storage, 3, kind="sned", delay=HOUR)
    await enqueue(storage, "work", delay=HOUR)
    await storage.crons.set(cron("nightly", kind="work"))
    await storage.crons.set(cron("hourly", kind="sned"))
    await postgres.clock.advance(hours=2)
    assert await signal(postgres, "(due, unhandled, workload)") == (6, 0, 6)

    await worker(storage, kinds=("work",))
    assert await signal(postgres, "(due, unhandled, workload)") == (2, 3, 2)


async def test_what_is_due_counts_since_without_workers_nobody_makes_it_pending(postgres, storage):
    await enqueue(storage, delay=HOUR)
    assert await signal(postgres, "(due, workload)") == (0, 0)

    await postgres.clock.advance(hours=2)
    assert await signal(postgres, "(due, workload)") == (1, 1)


async def test_a_cron_whose_time_has_come_counts_and_one_whose_time_nobody_has_found_yet(postgres, storage):
    await storage.crons.set(cron())
    await storage.crons.set(cron("off", enabled=False))
    assert await signal(postgres, "(due, workload)") == (1, 1), "a worker has to say when it fires"

    epoch = await leader(storage, kinds=("report",))
    await storage.fires.seed("nightly", await storage.now() + HOUR, epoch=epoch)
    assert await signal(postgres, "(due, workload)") == (0, 0)
    await postgres.clock.advance(hours=2)
    assert await signal(postgres, "(due, workload)") == (1, 1)


async def test_who_may_read_it_need_not_be_able_to_read_the_jobs(postgres, storage):
    async with postgres.transaction() as connection:
        await connection.execute(
            "CREATE ROLE scaler; GRANT USAGE ON SCHEMA forge_jobs, test_clock TO scaler; "
            "GRANT SELECT ON forge_jobs.scaling_signal, test_clock.hand TO scaler; SET ROLE scaler"
        )
        assert (
            await connection.fetchval("SELECT coalesce(sum(workload), 0) FROM forge_jobs.scaling_signal") == 0
        )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await connection.execute("SELECT * FROM forge_jobs.jobs")
        await connection.execute("RESET ROLE; DROP OWNED BY scaler; DROP ROLE scaler")


async def test_the_example_for_keda_gets_one_number_whether_or_not_there_is_such_a_queue(postgres, storage):
    [scaled] = [each for each in yaml.safe_load_all(EXAMPLE.read_text()) if each["kind"] == "ScaledObject"]
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert await postgres.rows(query) == [(0.0,)]

    await storage.queues.ensure(["mail"])
    await enqueue_many(storage, 3, queue="mail")
    assert await postgres.rows(query) == [(3.0,)]


async def test_jobs_of_a_paused_kind_are_held_and_no_work(postgres, storage):
    await worker(storage, kinds=("work", "send"))
    await enqueue_many(storage, 3, kind="send")
    await enqueue_many(storage, 2)
    await storage.kinds.pause("send", until=None, reason=None)

    assert await signal(postgres, "held") == 3
    assert await signal(postgres, "workload") == 2
    assert await signal(postgres, "unhandled") == 0


@pytest.mark.parametrize("what", ["queue", "kind"])
async def test_jobs_are_work_when_their_pause_is_over_though_nobody_is_there_to_end_it(
    postgres, storage, what
):
    await enqueue_many(storage, 3)
    end = await storage.now() + HOUR
    if what == "queue":
        await storage.queues.set("default", {"paused": True, "paused_until": end})
    else:
        await storage.kinds.pause("work", until=end, reason=None)
    assert await signal(postgres, "(held, workload)") == (3, 0)

    await postgres.clock.advance(hours=2)

    assert await signal(postgres, "(held, workload)") == (0, 3)


async def test_a_group_whose_pause_is_over_has_a_job_that_is_due_for_whoever_ends_it(postgres, storage):
    end = await storage.now() + HOUR
    await storage.groups.pause("team", until=end, reason=None)
    await enqueue_many(storage, 3, groups=encoded([Group("team", 2)]))
    assert await signal(postgres, "(blocked, due, workload)") == (3, 0, 0)
    assert await storage.schedule.upcoming(timedelta(0)) == {}
    [(jobs, first)] = (await storage.schedule.upcoming(2 * HOUR)).values()
    assert (jobs, first) == (1, end)

    await postgres.clock.advance(hours=2)

    assert await signal(postgres, "(blocked, due, workload)") == (3, 1, 1)
    assert [queue for queue in await storage.schedule.upcoming(timedelta(0))] == ["default"]


async def test_each_group_whose_pause_is_over_has_one_though_a_job_of_another_cannot_begin(postgres, storage):
    end = await storage.now() + HOUR
    await storage.kinds.pause("report", until=None, reason=None)
    for group, kind in (("first", "report"), ("team", "work"), ("other", "work")):
        await storage.groups.pause(group, until=end, reason=None)
        await enqueue_many(storage, 2, kind=kind, groups=encoded([Group(group)]))
        end += timedelta(seconds=1)

    await postgres.clock.advance(hours=2)

    assert await signal(postgres, "(blocked, due, workload)") == (6, 2, 2)
    [(jobs, _)] = (await storage.schedule.upcoming(timedelta(0))).values()
    assert jobs == 2


@pytest.mark.parametrize("serving", [True, False])
async def test_jobs_of_a_paused_kind_are_no_work_wherever_they_stand_and_whoever_serves_them(
    postgres, storage, serving
):
    if serving:
        await worker(storage, kinds=("work", "send"))
    await enqueue_many(storage, 101, kind="send")
    await enqueue_many(storage, 2, delay=HOUR, kind="send")
    await enqueue_many(storage, 150, kind="work", priority=-1)
    await storage.crons.set(cron("nightly", kind="send"))
    await postgres.clock.advance(hours=2)

    await storage.kinds.pause("send", until=None, reason=None)

    assert await signal(postgres, "(held, due, workload, unhandled)") == (101, 0, 150, 0)


async def test_jobs_that_wait_are_no_work_until_their_waits_are_over(postgres, storage):
    me = await worker(storage)
    other = await running(storage, me)
    await awaiting(storage, me, timeout=60.0)
    await awaiting(storage, me)
    await awaiting(storage, me, for_job=other.job_id)
    assert await signal(postgres, "(waiting, due, workload)") == (3, 0, 1)

    await postgres.clock.advance(seconds=61)
    assert await signal(postgres, "(waiting, due, workload)") == (3, 1, 2)
    await storage.claims.finish([done(other)])
    assert await signal(postgres, "(waiting, due, workload)") == (3, 2, 2)


async def signal_of(postgres, version, column, queue="default"):
    """Return one number, as the autoscaler of one version asks for it."""
    [[number]] = await postgres.rows(
        f"SELECT {column} FROM forge_jobs.scaling_signal_of('{version}') WHERE queue = '{queue}'"
    )
    return number


async def pinned_to(storage, version, *, runs):
    """Return a job that a worker of this version has begun, and runs or has handed back."""
    me = await worker(storage, version=version)
    job_id = await enqueue(storage, priority=-1)
    [taken] = await claim(storage, me)
    assert taken.job_id == job_id
    assert await storage.pins.add(taken)
    taken.links = (taken.links or 0) | PINNED
    if not runs:
        await storage.claims.hand_back([taken])
    return job_id


async def test_jobs_that_another_version_has_to_go_on_with_are_no_work_for_this_one(postgres, storage):
    await pinned_to(storage, "v1", runs=True)
    await pinned_to(storage, "v1", runs=False)
    await enqueue_many(storage, 3)

    numbers = "(pending, in_progress, held, workload)"
    assert await signal(postgres, numbers) == (4, 1, 0, 5)
    assert await signal_of(postgres, "v1", numbers) == (4, 1, 0, 5)
    assert await signal_of(postgres, "v2", numbers) == (3, 0, 0, 3)

    await storage.queues.set("default", {"concurrency": 2})
    assert await signal_of(postgres, "v1", "workload") == 2
    assert await signal_of(postgres, "v2", "workload") == 1
    await storage.queues.set("default", {"paused": True})
    assert await signal_of(postgres, "v2", "(in_progress, workload)") == (0, 0)


async def test_a_deployment_of_an_old_version_is_scaled_to_nothing_while_another_one_finishes(
    postgres, storage
):
    await pinned_to(storage, "v1", runs=False)

    assert await signal_of(postgres, "v1", "workload") == 1
    assert await signal_of(postgres, "v2", "workload") == 0
    assert await signal_of(postgres, "v2", "workload", queue="default") == 0


async def test_a_role_that_scales_one_version_needs_no_more_than_the_page_says(postgres, storage):
    page = (Path(__file__).parents[3] / "docs" / "kubernetes-scaling.md").read_text()
    grants = [line for line in page.splitlines() if line.startswith("GRANT") and line.endswith("TO keda;")]
    assert len(grants) == 3
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.execute(
            f"CREATE ROLE keda; GRANT USAGE ON SCHEMA test_clock TO keda; GRANT SELECT ON test_clock.hand TO keda; "
            f"{' '.join(grants)} SET ROLE keda"
        )
        [row] = await connection.fetch("SELECT workload FROM forge_jobs.scaling_signal_of('v1')")
        assert row["workload"] == 0
    finally:
        await connection.execute("RESET ROLE; DROP OWNED BY keda; DROP ROLE keda")
        await connection.close()
