"""What a handler says of its job while it runs: its state, its result, how far it is."""

import asyncio
import math
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from forge_jobs import ClaimLost, Context, Forge, InvalidInput, InvalidPayload, Job, JobDead, State
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.running import working
from tests.working.test_context import one, run


async def reported(forge: Forge, job_id: int, share: float) -> Job:
    """Return the job once somebody who looks sees this share."""
    job = await forge.jobs.get(job_id)
    async with asyncio.timeout(30):
        while job.progress is None or job.progress.share != share:
            await asyncio.sleep(0.01)
            job = await forge.jobs.get(job_id)
    return job


async def test_a_retry_goes_on_where_the_attempt_before_has_saved(forge: Forge) -> None:
    done: list[int] = []

    @forge.handler
    async def copy(ctx: Context, rows: int) -> int:
        for row in range(ctx.state or 0, rows):
            done.append(row)
            await ctx.save(row + 1)
            if row == 1 and ctx.attempt == 1:
                raise ConnectionError("the other side is gone")
        return ctx.state

    await forge.queues.set("default", backoff_enabled=False)
    job = await copy.enqueue(rows=4)
    await run(forge)

    assert (done, await forge.wait(job, timeout=30)) == ([0, 1, 2, 3], 4)


async def test_a_state_is_any_value_that_the_codec_takes_and_a_copy(forge: Forge) -> None:
    async def work(ctx: Context) -> list[Any]:
        states = [ctx.state]
        kept = {"pages": [1, 2]}
        await ctx.save(kept)
        kept["pages"].append(3)
        ctx.state["pages"].clear()
        states.append(ctx.state)
        await ctx.save(None)
        return [*states, ctx.state]

    job = await one(forge, work, codec="msgpack")

    assert await forge.wait(job.id, timeout=30) == [None, {"pages": [1, 2]}, None]


async def test_a_plain_handler_saves_and_reports_without_awaiting(forge: Forge) -> None:
    def work(ctx: Context) -> int:
        ctx.save({"row": 7})
        ctx.set_result("never seen")
        ctx.progress(1, "all of it")
        return int(ctx.state["row"])

    job = await one(forge, work)

    assert await forge.wait(job.id, timeout=30) == 7
    assert job.progress is not None and (job.progress.share, job.progress.note) == (1.0, "all of it")


async def test_what_cannot_be_a_state_fails_the_attempt_with_a_sentence(forge: Forge) -> None:
    async def work(ctx: Context) -> list[str]:
        said = []
        for state in (object(), "x" * 300_000):
            try:
                await ctx.save(state)
            except InvalidPayload as error:
                said.append(str(error))
        return said

    job = await one(forge, work)

    unencodable, huge = await forge.wait(job.id, timeout=30)
    assert unencodable.startswith("The state")
    assert huge == "The state has 300,002 bytes as json, allowed are 262,144."


async def test_an_attempt_that_lost_its_job_is_told_when_it_saves(forge: Forge, database: Database) -> None:
    raised: list[Exception] = []

    async def work(ctx: Context) -> None:
        await database.rows("DELETE FROM claimed")
        for say in (ctx.save, ctx.set_result):
            try:
                await say(1)
            except ClaimLost as error:
                raised.append(error)
        await database.rows(
            "INSERT INTO claimed (job_id, worker_id, attempt, queue_id, claimed_at) "
            f"SELECT {ctx.job_id}, {ctx.claim.worker_id}, 1, {ctx.claim.queue_id}, created_at FROM job"
        )

    job = await one(forge, work)

    assert (job.state, len(raised)) == (State.DONE, 2)
    assert (
        str(raised[0]) == f"Job {job.id} is no longer this attempt's: attempt 1 was taken back or has ended."
    )


async def test_a_result_that_was_set_stays_when_the_job_dies(forge: Forge) -> None:
    async def work(ctx: Context) -> None:
        await ctx.set_result({"rows": 1})
        await ctx.set_result({"rows": 2})
        raise ValueError("row 3")

    job = await one(forge, work)

    assert (job.state, job.result) == (State.DEAD, b'{"rows":2}')
    with pytest.raises(JobDead):
        await forge.wait(job.id, timeout=30)


async def test_a_result_that_was_set_is_that_of_a_handler_that_returns_nothing(forge: Forge) -> None:
    async def work(ctx: Context) -> None:
        await ctx.set_result([1])

    job = await one(forge, work)

    assert await forge.wait(job.id, timeout=30) == [1]


async def test_progress_is_seen_while_the_handler_runs(forge: Forge) -> None:
    goes_on = asyncio.Event()

    @forge.handler
    async def work(ctx: Context) -> None:
        await ctx.progress(0.4, "4 of 10 rows")
        await goes_on.wait()

    job = await work.enqueue()
    async with working(forge):
        shown = await reported(forge, job.id, 0.4)
        goes_on.set()
        await forge.wait(job, timeout=30)

    assert shown.state is State.IN_PROGRESS
    assert shown.progress is not None and (shown.progress.note, shown.progress.attempt) == ("4 of 10 rows", 1)


async def test_the_last_report_of_a_handler_is_there_when_its_job_has_ended(forge: Forge) -> None:
    @forge.handler(max_attempts=1)
    async def work(ctx: Context, number: int) -> None:
        for step in range(number + 1):
            await ctx.progress(step / 10)
        if number == 3:
            raise ValueError

    jobs = await work.enqueue_many([{"number": number} for number in range(5)])
    await run(forge)

    found = [await forge.jobs.get(job.id) for job in jobs]
    assert [job.progress and job.progress.share for job in found] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert found[3].state is State.DEAD


async def test_reports_without_end_are_few_statements(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = forge.storage.progress.write

    async def counted(reports: Any) -> Any:
        written.append(len(reports))
        return await write(reports)

    monkeypatch.setattr(forge.storage.progress, "write", counted)

    async def work(ctx: Context) -> None:
        for step in range(10_001):
            await ctx.progress(step / 10_000)
            if step % 1_000 == 0:
                await asyncio.sleep(0)

    began = time.monotonic()
    job = await one(forge, work)

    assert job.progress is not None and job.progress.share == 1.0
    assert len(written) <= 2 + (time.monotonic() - began)  # the first, the last, and one a second


async def test_progress_that_is_no_share_is_refused_and_a_long_note_is_shortened(forge: Forge) -> None:
    def work(ctx: Context) -> list[str]:
        said = []
        for share in (-0.1, 1.1, math.nan, "half", True, None):
            try:
                ctx.progress(share)  # type: ignore[arg-type]
            except InvalidInput as error:
                said.append(str(error))
        try:
            ctx.progress(0.5, 3)  # type: ignore[arg-type]
        except InvalidInput as error:
            said.append(str(error))
        ctx.progress(0.5, "\0\ud800" + "x" * 1_000)
        return said

    job = await one(forge, work)

    said = await forge.wait(job.id, timeout=30)
    assert said[0] == "The progress is -0.1, allowed is a number from 0 to 1." and len(said) == 7
    assert said[6] == "The note of the progress is 3, allowed is a text."
    assert job.progress is not None and job.progress.note is not None
    assert job.progress.note.startswith("\\x00?xxx") and len(job.progress.note) < 510


async def test_progress_comes_from_the_jobs_of_a_thread(forge: Forge) -> None:
    goes_on = threading.Event()

    @forge.handler
    def work(ctx: Context) -> None:
        ctx.progress(0.3)
        goes_on.wait(30)

    job = await work.enqueue()
    async with working(forge):
        await reported(forge, job.id, 0.3)
        goes_on.set()
        await forge.wait(job, timeout=30)


async def test_nothing_is_saved_after_the_job_was_completed(forge: Forge, database: Database) -> None:
    async def work(ctx: Context) -> None:
        async with database.transaction() as connection:
            await ctx.save("with the work", connection=connection)
            await ctx.progress(0.9)
            await ctx.complete(connection)
            with pytest.raises(InvalidInput, match=r"ctx\.save is called after job"):
                await ctx.save("too late")
            await ctx.progress(1.0)

    job = await one(forge, work)

    assert job.state is State.DONE


async def test_a_state_is_undone_with_the_work_of_its_transaction(forge: Forge, database: Database) -> None:
    found: list[Any] = []

    @forge.handler(max_attempts=2)
    async def work(ctx: Context) -> None:
        found.append(ctx.state)
        if ctx.attempt == 1:
            await ctx.save("before")
            async with database.transaction() as connection:
                await ctx.save("never", connection=connection)
                raise ValueError

    await forge.queues.set("default", backoff_enabled=False)
    await work.enqueue()
    await run(forge)

    assert found == [None, "before"]


async def test_an_attempt_does_not_take_an_undone_state_for_saved(forge: Forge, database: Database) -> None:
    found: list[Any] = []

    @forge.handler
    async def work(ctx: Context) -> None:
        await ctx.save("before")
        with suppress(ValueError):
            async with database.transaction() as connection:
                await ctx.save("never", connection=connection)
                raise ValueError
        found.append(ctx.state)

    await work.enqueue()
    await run(forge)

    assert found == ["before"]


async def test_reports_that_the_database_does_not_take_are_written_later(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forge_jobs.errors import StorageUnavailable
    from forge_jobs.telemetry.events import DatabaseLost

    write, goes_on = forge.storage.progress.write, asyncio.Event()
    tries = 0

    async def away_once(reports: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise StorageUnavailable("The database is away.")
        return await write(reports)

    monkeypatch.setattr(forge.storage.progress, "write", away_once)

    @forge.handler
    async def work(ctx: Context) -> None:
        await ctx.progress(0.5)
        await goes_on.wait()

    job = await work.enqueue()
    async with working(forge):
        await reported(forge, job.id, 0.5)
        goes_on.set()
        await forge.wait(job, timeout=30)

    assert [event.doing for event in events.of(DatabaseLost)] == ["writing progress"]


async def test_the_next_job_of_a_key_goes_on_from_what_was_saved_for_it(forge: Forge) -> None:
    @forge.handler(singleton=True)
    async def sync(ctx: Context) -> list[int]:
        seen = await ctx.state_of_key() or []
        await ctx.save_for_key([*seen, ctx.job_id])
        return seen

    ids = []
    for _ in range(3):
        ids.append((await sync.ensure()).id)
        await run(forge)

    assert await forge.wait_all(ids) == [[], ids[:1], ids[:2]]


async def test_a_job_without_a_key_has_no_state_of_one(forge: Forge) -> None:
    def work(ctx: Context) -> list[str]:
        said = []
        for call in (ctx.state_of_key, lambda: ctx.save_for_key(1)):
            try:
                call()
            except InvalidInput as error:
                said.append(str(error))
        return said

    job = await one(forge, work)

    assert await forge.wait(job.id) == [
        f"ctx.{name} is called in job {job.id}, which has no key, allowed is one with a key."
        for name in ("state_of_key", "save_for_key")
    ]
