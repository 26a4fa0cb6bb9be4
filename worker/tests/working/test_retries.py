"""A handler says how its failed attempts are followed by others."""

import asyncio
import logging
import os
import re
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Dead, Forge, Job, Retries, Retry, State
from forge_jobs.telemetry.events import JobsEnded
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


async def judged(forge: Forge, job_id: int) -> Job:
    """Return the job once it neither waits for its attempt nor runs."""

    async def job() -> Job | None:
        found = await forge.jobs.get(job_id)
        return None if found.state in (State.PENDING, State.IN_PROGRESS) else found

    found: Job = await eventually(job)
    return found


async def left(forge: Forge, job: Job) -> float:
    """Return the seconds until the job is due."""
    assert job.run_at is not None
    return (job.run_at - await forge.storage.now()).total_seconds()


async def test_a_handler_has_a_backoff_of_its_own(forge: Forge) -> None:
    @forge.handler(retry=Retries(base=3600, max=7200, jitter=0, attempts=2))
    async def work() -> None:
        raise ValueError

    job = await work.enqueue()
    async with working(forge):
        failed = await judged(forge, job.id)

    assert (failed.state, failed.attempt, failed.max_attempts) == (State.RETRYING, 1, 2)
    assert 3500 < await left(forge, failed) <= 3600


async def test_errors_decide_what_becomes_of_a_job(forge: Forge) -> None:
    @forge.handler(retry=Retries(on={PermissionError: Dead, OSError: Retry(after=timedelta(hours=2))}))
    async def work(error: str) -> None:
        raise {"permission": PermissionError("no"), "other": FileNotFoundError("gone")}[error]

    forbidden, missing = await work.enqueue_many([{"error": "permission"}, {"error": "other"}])
    async with working(forge):
        dead, failed = await judged(forge, forbidden.id), await judged(forge, missing.id)

    assert dead.state is State.DEAD
    assert (dead.error or "").startswith("PermissionError: no\n")
    assert failed.state is State.RETRYING
    assert (failed.error or "").startswith("FileNotFoundError: gone\n")
    assert 7000 < await left(forge, failed) <= 7200


async def test_a_function_is_told_of_each_failed_attempt(forge: Forge) -> None:
    await forge.queues.set("default", backoff_enabled=False)
    told: list[tuple[str, int]] = []

    def on_failure(error: BaseException, attempt: int) -> Any:
        told.append((str(error), attempt))
        return Dead("enough") if attempt == 2 else None

    @forge.handler(on_failure=on_failure)
    def work() -> None:
        raise ValueError("x")

    job = await work.enqueue()
    async with working(forge):
        await eventually(lambda: has_ended(forge, job.id))

    assert told == [("x", 1), ("x", 2)]
    assert ((await forge.jobs.get(job.id)).error or "").startswith("enough: ValueError: x\n")


async def has_ended(forge: Forge, job_id: int) -> bool:
    return (await forge.jobs.get(job_id)).state in (State.DONE, State.DEAD)


async def test_a_function_is_told_of_a_timeout(forge: Forge) -> None:
    told: list[BaseException] = []

    def on_failure(error: BaseException, attempt: int) -> Any:
        told.append(error)
        return Dead

    @forge.handler(timeout=0.05, on_failure=on_failure)
    async def work() -> None:
        await asyncio.Event().wait()

    job = await work.enqueue()
    async with working(forge):
        dead = await judged(forge, job.id)

    assert [type(error) for error in told] == [TimeoutError]
    assert (dead.state, dead.error) == (State.DEAD, "TimeoutError: timed out after 0.05 s")


async def test_errors_decide_what_becomes_of_an_item(forge: Forge) -> None:
    @forge.batch_handler(retry=Retries(base=3600, on={ValueError: Dead("a wrong address")}))
    async def notify(mails: list[str]) -> list[Any]:
        return [ValueError(), OSError(), "sent"]

    job = await notify.enqueue(mails=["ann", "bob", "cid"])
    async with working(forge):
        failed = await judged(forge, job.id)

    assert failed.state is State.RETRYING
    assert (failed.error or "").startswith(
        "2 of 3 items failed: item 0: a wrong address: ValueError; item 1: OSError\n"
    )
    assert failed.payload.endswith(b'"bob"]')


async def test_an_attempt_that_ran_well_for_long_counts_as_the_first(
    forge: Forge,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await forge.queues.set("default", backoff_enabled=False)
    runs = 0

    @forge.handler(retry=Retries(attempts=3, reset=3))
    async def work() -> None:
        nonlocal runs
        runs += 1
        raise ValueError

    monkeypatch.setattr(  # `reset` says it of real time
        Retries, "counts_as", lambda _, queue, attempt, duration: 1 if runs == 3 else attempt
    )
    job = await work.enqueue()
    async with working(forge):
        await eventually(lambda: has_ended(forge, job.id))

    assert runs == 5
    ended = [run for event in events.of(JobsEnded) for run in event.runs]
    assert [run.counts_anew for run in ended] == [False, False, True, False, False]
    [said] = [record for record in caplog.records if "counts as its first attempt" in record.getMessage()]
    assert (vars(said)["job_id"], vars(said)["attempt"]) == (job.id, 3)
    found = await forge.jobs.get(job.id)
    assert [failure.attempt for failure in found.failures] == [1, 2, 3, 2, 3]


async def test_failures_after_the_first_ones_are_logged_as_errors(
    forge: Forge, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    await forge.queues.set("default", backoff_enabled=False)

    @forge.handler(retry=Retries(attempts=4, warn=2))
    async def work() -> None:
        raise ValueError

    job = await work.enqueue()
    async with working(forge):
        await eventually(lambda: has_ended(forge, job.id))

    runs = [run for event in events.of(JobsEnded) for run in event.runs]
    assert [run.is_grave for run in runs] == [False, False, True, False]
    levels = [record.levelno for record in caplog.records if getattr(record, "job_id", None) == job.id]
    assert levels == [logging.WARNING, logging.WARNING, logging.ERROR, logging.ERROR]


elsewhere = Forge("sqlite://:memory:")


def says(error: BaseException, attempt: int) -> Any:
    """What a handler says of its errors; the process that asks is not the worker's."""
    return Dead(f"attempt {attempt} in {os.getpid()}") if isinstance(error, LookupError) else None


@elsewhere.handler(
    executor="process", retry=Retries(on={PermissionError: Dead, OSError: Retry(after=7200)}, on_failure=says)
)
def apart(error: str) -> None:
    raise {"permission": PermissionError("no"), "other": FileNotFoundError("gone"), "asked": KeyError("x")}[
        error
    ]


async def test_errors_of_a_process_of_its_own_decide_what_becomes_of_a_job(forge: Forge) -> None:
    forge.handlers.add(apart)
    forbidden, missing, asked = await forge.enqueue_many(
        "apart", [{"error": "permission"}, {"error": "other"}, {"error": "asked"}]
    )
    async with working(forge):
        dead, failed = await judged(forge, forbidden.id), await judged(forge, missing.id)
        told = await judged(forge, asked.id)

    assert dead.state is State.DEAD
    assert (dead.error or "").startswith("PermissionError: no\n")
    assert failed.state is State.RETRYING
    assert (failed.error or "").startswith("FileNotFoundError: gone\n")
    assert 7000 < await left(forge, failed) <= 7200
    assert told.state is State.DEAD
    assert re.match(r"attempt 1 in \d+: KeyError: 'x'\n", told.error or "")
    assert f"in {os.getpid()}:" not in (told.error or "")


def undecorated() -> None: ...


async def test_a_process_that_cannot_find_what_its_handler_says_runs_nothing(forge: Forge) -> None:
    forge.handler(executor="process", retry=Retries(on={OSError: Dead}))(undecorated)
    job = await forge.enqueue("undecorated")
    async with working(forge):
        failed = await judged(forge, job.id)

    assert "test_retries.undecorated is not its decorated function; allowed is" in (failed.error or "")
