"""How far a job is can be seen by everybody, and is written by nobody but the holder of its claim."""

from datetime import timedelta

from msgspec.structs import replace

from forge_jobs.model.job import JobProgress, State
from forge_jobs.model.progress import ProgressReport
from tests.storage.factories import dead, done, ended, failed, running, worker

HOUR = timedelta(hours=1)


async def progress(storage, job_id):
    return (await storage.jobs.get(job_id)).progress


async def test_the_last_report_is_shown_with_its_moment(storage, clock):
    me = await worker(storage)
    claimed = await running(storage, me)
    assert await progress(storage, claimed.job_id) is None
    await storage.progress.write([ProgressReport(claimed, 0.2, "two of ten")])
    await clock.advance(seconds=5)
    before = await storage.now()
    await storage.progress.write([ProgressReport(claimed, 0.4)])

    shown = await progress(storage, claimed.job_id)

    assert shown == JobProgress(0.4, None, 1, shown.at)
    assert before <= shown.at <= await storage.now()
    assert [job.progress for job in await storage.jobs.find()] == [shown]
    assert [job.progress for job in await storage.jobs.find(state=State.IN_PROGRESS)] == [shown]


async def test_many_jobs_report_at_once(storage):
    me = await worker(storage)
    claims = [await running(storage, me) for _ in range(5)]
    await storage.progress.write(
        [ProgressReport(claimed, number / 10) for number, claimed in enumerate(claims)]
    )

    shares = [(await progress(storage, claimed.job_id)).share for claimed in claims]

    assert shares == [0.0, 0.1, 0.2, 0.3, 0.4]


async def test_a_report_without_a_claim_is_not_written(storage):
    me = await worker(storage)
    over, taken, held = [await running(storage, me) for _ in range(3)]
    await storage.claims.finish([done(over)])
    await storage.claims.postpone([failed(taken)])
    reports = [
        ProgressReport(claimed, 0.5)
        for claimed in (over, taken, replace(held, attempt=2), replace(held, worker_id=me + 1))
    ]

    await storage.progress.write(reports)

    assert [await progress(storage, claimed.job_id) for claimed in (over, taken, held)] == [None, None, None]
    await storage.progress.write([*reports, ProgressReport(held, 0.6)])
    assert (await progress(storage, held.job_id)).share == 0.6


async def test_what_a_failed_attempt_reported_stays_until_the_next_one_reports(storage):
    me = await worker(storage)
    first = await running(storage, me)
    await storage.progress.write([ProgressReport(first, 0.9, "nearly")])
    await storage.claims.postpone([failed(first, delay=HOUR)])
    waiting = await progress(storage, first.job_id)
    await storage.jobs.run_now(first.job_id)
    [second] = await storage.claims.claim(first.queue_id, me, limit=1)
    await storage.progress.write([ProgressReport(second, 0.1)])

    now = await progress(storage, first.job_id)

    assert (waiting.share, waiting.note, waiting.attempt) == (0.9, "nearly", 1)
    assert (now.share, now.note, now.attempt) == (0.1, None, 2)


async def test_a_dead_job_shows_how_far_it_came(storage):
    claimed = await running(storage, await worker(storage))
    await storage.progress.write([ProgressReport(claimed, 0.6, "row 600")])
    await storage.claims.finish([dead(claimed)])
    assert (await progress(storage, claimed.job_id)).note == "row 600"


async def test_reports_go_with_their_job(storage, database):
    me = await worker(storage)
    claimed = await running(storage, me)
    await storage.progress.write([ProgressReport(claimed, 1.0)])
    await storage.claims.finish([done(claimed)])
    await storage.jobs.delete(claimed.job_id)
    assert await database.rows("SELECT job_id FROM progress") == []


async def test_a_job_whose_handler_holds_it_in_a_transaction_keeps_no_report_waiting(storage, database):
    me = await worker(storage)
    held, saving, free = [await running(storage, me) for _ in range(3)]
    async with database.transaction() as connection:
        await storage.completions.complete(done(held), connection=connection)
        await storage.saved_states.save(saving, b"1", connection=connection)
        if database.kind == "postgres":  # SQLite has one writer at a time
            passed_over = await storage.progress.write(
                [ProgressReport(one, 0.5) for one in (held, saving, free)]
            )
            assert sorted(passed_over) == [held.job_id, saving.job_id]
            assert (await progress(storage, free.job_id)).share == 0.5
    assert list(await storage.progress.write([ProgressReport(one, 0.7) for one in (held, saving)])) == []
    assert (await progress(storage, saving.job_id)).share == 0.7


async def test_people_with_an_sql_prompt_see_it(storage, database):
    claimed = await running(storage, await worker(storage))
    await storage.progress.write([ProgressReport(claimed, 0.25, "a quarter")])
    other = await ended(storage, claimed.worker_id)

    shown = await database.rows("SELECT id, progress, progress_note, progress_attempt FROM jobs ORDER BY id")

    assert shown == [(claimed.job_id, 0.25, "a quarter", 1), (other, None, None, None)]
