"""The history of a job is what is kept of it, in order."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from forge_jobs import Context, Enqueued, Forge, InvalidInput, Worker, acting_as
from forge_jobs.client.acting import who_acts
from forge_jobs.errors import JobNotFound
from forge_jobs.model.history import Happened


@pytest.fixture
async def forge() -> AsyncIterator[Forge]:
    async with Forge("sqlite://:memory:") as forge:
        yield forge


async def whats(forge: Forge, job: Enqueued) -> list[Happened]:
    return [entry.what for entry in await forge.jobs.history(job)]


async def test_it_begins_with_the_enqueue_and_ends_with_the_end(forge: Forge):
    @forge.handler
    async def charge(ctx: Context) -> None:
        await ctx.step("pay", pay)
        await ctx.progress(0.5, "half")

    async def pay() -> int:
        return 1

    job = await charge.enqueue()
    assert await whats(forge, job) == [Happened.ENQUEUED]

    await Worker(forge, queues=["default"]).run(until_empty=True)

    entries = await forge.jobs.history(job)
    assert [entry.what for entry in entries] == [
        *(Happened.ENQUEUED, Happened.STARTED, Happened.STEP, Happened.PROGRESS, Happened.DONE),
    ]
    assert [entry.at for entry in entries] == sorted(entry.at for entry in entries)
    assert (entries[2].note, entries[3].note) == ("pay", "50% half")
    assert entries[-1].worker is not None


async def test_failed_attempts_say_why_and_when_the_next_one_is(forge: Forge):
    @forge.handler(max_attempts=3)
    async def charge() -> None:
        raise ValueError("no money")

    job = await charge.enqueue()
    await Worker(forge, queues=["default"]).run(until_empty=True)

    _, failed, due = await forge.jobs.history(job)
    assert (failed.what, failed.attempt) == (Happened.FAILED, 1)
    assert failed.note is not None and failed.note.startswith("ValueError: no money")
    assert (due.what, due.note) == (Happened.DUE, "retry")


async def test_a_job_that_was_ended_by_hand_says_the_reason(forge: Forge):
    @forge.handler
    async def charge() -> None: ...

    job = await charge.options(delay=timedelta(hours=1)).enqueue()
    await forge.jobs.fail(job, "withdrawn")

    last = (await forge.jobs.history(job))[-1]
    assert (last.what, last.note) == (Happened.DEAD, "withdrawn")


async def test_a_job_that_is_not_there_has_no_history(forge: Forge):
    with pytest.raises(JobNotFound):
        await forge.jobs.history(7)


async def test_what_people_did_is_told_with_who_they_are_also_of_a_job_that_is_gone(forge: Forge):
    @forge.handler
    async def charge() -> None: ...

    job = await charge.enqueue()
    with acting_as("ada"):
        await forge.jobs.change(job, priority=3)
        await forge.jobs.cancel(job)
    await forge.jobs.retry(job)
    await forge.jobs.delete(job)

    told = [(entry.note, entry.by) for entry in await forge.jobs.history(job)]
    me = who_acts()
    assert told == [
        ("changed: pending", "ada"),
        ("cancelled: pending to dead", "ada"),
        ("retried: dead to pending", me),
        ("deleted: pending to gone", me),
    ]


async def test_an_operation_says_who_asked_for_it(forge: Forge):
    job = await forge.enqueue("charge")
    with acting_as("ada"):
        await forge.jobs.cancel_all()

    entries = [entry for entry in await forge.jobs.history(job) if entry.what is Happened.BY_HAND]

    assert [(entry.note, entry.by) for entry in entries] == [
        ("cancelled: pending to dead, in operation 1", "ada")
    ]


async def test_a_user_whose_name_is_no_text_does_what_others_do(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
):
    # As a byte of another encoding is read from the environment.
    monkeypatch.setenv("LOGNAME", "jos\udce9\t")
    job = await forge.enqueue("charge")

    await forge.jobs.cancel(job)

    [by] = [entry.by for entry in await forge.jobs.history(job) if entry.what is Happened.BY_HAND]
    assert by is not None and by.startswith("jos??@")


@pytest.mark.parametrize(
    ("name", "sentence"), [("", "The name of who acts is ''"), ("a" * 201, "has 201 characters")]
)
def test_nobody_acts_under_an_empty_name_or_a_part_of_a_long_one(name: str, sentence: str):
    with pytest.raises(InvalidInput, match=sentence), acting_as(name):
        pass
