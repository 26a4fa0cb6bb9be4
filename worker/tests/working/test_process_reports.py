"""What a handler in a process of its own says of its job: its worker writes that."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import pytest

from forge_jobs import Forge, Reason, State
from tests.storage.clock import Clock
from tests.storage.databases import Database
from tests.working.eventually import eventually
from tests.working.in_a_process import (
    agree,
    copy,
    die,
    in_another_order,
    late,
    leave_out,
    misuse,
    note,
    noted,
    ship,
    side_by_side,
    swallow,
    taken_back,
)
from tests.working.test_context import run
from tests.working.test_steps import at_once


@pytest.fixture
def ledger(tmp_path: Any) -> str:
    path = str(tmp_path / "ledger")
    note(path, "")
    return path


async def test_steps_and_sleeps_of_a_process_are_those_of_its_job(
    forge: Forge, clock: Clock, ledger: str
) -> None:
    await at_once(forge)
    job = await forge.handler(executor="process", max_attempts=2)(ship).enqueue(ledger=ledger)
    await run(forge)

    sleeping = await forge.jobs.get(job.id)
    assert (sleeping.state, sleeping.reason) == (State.SCHEDULED, Reason.SLEEPING)
    await clock.advance(days=1, seconds=1)
    await run(forge)

    assert await forge.wait(job, timeout=30) == ["charged", "packed", True, True]
    assert noted(ledger) == ["charged", "tried", "tried"]
    steps = [step.name for step in (await forge.jobs.get(job.id)).steps]
    assert steps == ["charge", "pack", "sleep 1", "taxes"]


async def test_a_process_saves_and_reports_as_any_handler(forge: Forge) -> None:
    await at_once(forge)
    handler = forge.handler(executor="process", max_attempts=2)(copy)
    job = await handler.options(key="k").enqueue()
    await run(forge)

    assert await forge.wait(job, timeout=30) == [[1, 2], [None, 1]]
    found = await forge.jobs.get(job.id)
    assert found.progress is not None
    assert (found.progress.share, found.progress.note) == (0.5, "attempt 2")


async def test_wrong_uses_in_a_process_are_said_in_one_sentence(forge: Forge) -> None:
    job = await forge.handler(executor="process", max_attempts=1)(misuse).enqueue()
    await run(forge)

    said = await forge.wait(job, timeout=30)
    assert len(said) == 10
    assert all(sentence.endswith(".") for sentence in said)
    assert [sentence for sentence in said if "executor='process'" in sentence] == [
        said[2],
        said[3],
        *said[-2:],
    ]


async def test_threads_of_a_process_may_report_beside_its_steps(forge: Forge) -> None:
    job = await forge.handler(executor="process", max_attempts=1)(side_by_side).enqueue()
    await run(forge)

    assert await forge.wait(job, timeout=30) == sum(range(20))


async def test_a_step_of_a_process_that_was_killed_is_run_again_and_no_other(
    forge: Forge, ledger: str
) -> None:
    await at_once(forge)
    job = await forge.handler(executor="process", max_attempts=2)(die).enqueue(ledger=ledger)
    await run(forge)

    assert await forge.wait(job, timeout=30) == "survived"
    assert noted(ledger) == ["first", "begun", "begun"]


async def test_what_a_thread_asks_when_its_job_has_ended_disturbs_no_other_job(forge: Forge) -> None:
    handler = forge.handler(executor="process", max_attempts=1)(late)
    jobs = await handler.enqueue_many([{}] * 20)
    await run(forge)

    assert await forge.wait_all(jobs, timeout=30) == ["done"] * 20


async def test_a_process_that_swallows_its_sleep_sleeps_all_the_same(
    forge: Forge, clock: Clock, ledger: str
) -> None:
    job = await forge.handler(executor="process", max_attempts=1)(swallow).enqueue(ledger=ledger)
    await run(forge)
    assert (await forge.jobs.get(job.id)).reason is Reason.SLEEPING
    await clock.advance(days=1, seconds=1)
    await run(forge)

    assert await forge.wait(job, timeout=30) == "slept"


@pytest.mark.parametrize("function", [in_another_order, leave_out])
async def test_changed_code_is_noticed_in_a_process(
    forge: Forge, ledger: str, function: Callable[..., Any]
) -> None:
    await at_once(forge)
    job = await forge.handler(executor="process", max_attempts=2)(function).enqueue(ledger=ledger)
    await run(forge)

    found = await forge.jobs.get(job.id)
    assert found.state is State.DEAD
    assert "The code of job" in str(found.error)
    assert noted(ledger).count("first") == 1


async def test_a_process_whose_job_was_taken_back_keeps_no_step(
    forge: Forge, database: Database, ledger: str
) -> None:
    await forge.handler(executor="process", max_attempts=1)(taken_back).enqueue(ledger=ledger)
    running = asyncio.create_task(run(forge))
    await eventually(lambda: "ran" in noted(ledger))
    await database.rows("DELETE FROM claimed")
    note(ledger, "lost")
    await running

    assert noted(ledger) == ["ran", "lost", "ClaimLost"]
    assert await database.rows("SELECT * FROM step") == []


async def test_a_process_waits_for_a_signal(forge: Forge) -> None:
    job = await forge.handler(executor="process")(agree).enqueue()
    await run(forge)
    assert (await forge.jobs.get(job.id)).state is State.WAITING
    await forge.signal("approved", {"by": "ada"}, job=job)
    await run(forge)
    assert await forge.wait(job, timeout=30) == [{"by": "ada"}, "the signal 'paid' did not come in time"]


@pytest.mark.parametrize("pin", ["version", None])
async def test_a_job_that_has_begun_in_a_process_is_pinned_if_its_handler_says_so(
    forge: Forge, ledger: str, pin: Literal["version"] | None
) -> None:
    handler = forge.handler(executor="process", max_attempts=1, pin=pin)(swallow)
    job = await handler.enqueue(ledger=ledger)
    await run(forge)

    assert (await forge.jobs.get(job.id)).reason is Reason.SLEEPING
    assert (await forge.storage.pins.of_job(job.id) is not None) is (pin is not None)
