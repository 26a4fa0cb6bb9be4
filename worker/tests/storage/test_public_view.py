"""People with an SQL prompt see every job with its state, in the view `jobs`."""

from datetime import timedelta

from forge_jobs.model.job import State
from tests.storage.factories import ended, enqueue, failed, running, worker

HOUR = timedelta(hours=1)


async def test_every_job_is_shown_with_its_state(storage, database):
    me = await worker(storage)
    finished, buried = await ended(storage, me), await ended(storage, me, State.DEAD)
    failing = await running(storage, me)
    await storage.claims.postpone([failed(failing, delay=HOUR)])
    runs = (await running(storage, me)).job_id
    scheduled, pending = await enqueue(storage, delay=HOUR), await enqueue(storage)

    shown = dict(await database.rows("SELECT id, state FROM jobs"))

    assert shown == {
        finished: "done",
        buried: "dead",
        failing.job_id: "retrying",
        runs: "in_progress",
        scheduled: "scheduled",
        pending: "pending",
    }


async def test_a_job_is_shown_with_its_facts(storage, database):
    await storage.queues.ensure(["mail"])
    job_id = await enqueue(storage, "send", queue="mail", priority=3, key="k", max_attempts=4, payload=b"[1]")

    shown = await database.rows(
        "SELECT id, queue, kind, priority, key, max_attempts, payload, codec FROM jobs"
    )

    assert shown == [(job_id, "mail", "send", 3, "k", 4, b"[1]", "json")]


async def test_attempts_and_errors_are_shown(storage, database):
    me = await worker(storage)
    buried = await ended(storage, me, State.DEAD)
    runs = (await running(storage, me)).job_id

    shown = await database.rows("SELECT id, attempt, error, worker_id FROM jobs ORDER BY id")

    assert shown == [(buried, 1, "it broke", me), (runs, 1, None, me)]
