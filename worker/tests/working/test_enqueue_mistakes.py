"""What people get wrong when they enqueue, said while they can still see it."""

import logging

import pytest

from forge_jobs import Forge, InvalidInput, State, UnfitPayload, Unique, Worker
from forge_jobs.handlers.options import OptionValues
from forge_jobs.telemetry.events import KindResembles, KindUnheardOf, OptionsLeftOut
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.running import working


async def test_arguments_may_be_given_by_their_place(forge: Forge) -> None:
    @forge.handler
    async def send_email(to: str, subject: str = "Hello", *, urgent: bool = False) -> str:
        return f"{subject} {to} {urgent}"

    jobs = [
        await send_email.enqueue("ada"),
        await send_email.enqueue("ada", "Bye"),
        await send_email.options(priority=1).enqueue("ada", urgent=True),
        *await forge.enqueue_batch([send_email.job("ada", subject="Bye")]),
    ]
    await Worker(forge, queues=["default"]).run(until_empty=True)

    assert [await forge.wait(job) for job in jobs] == [
        "Hello ada False",
        "Bye ada False",
        "Hello ada True",
        "Bye ada False",
    ]


async def test_the_context_is_no_argument_that_can_be_given(forge: Forge) -> None:
    @forge.handler
    def send_email(ctx, to: str) -> str:  # type: ignore[no-untyped-def]
        return to

    job = await send_email.enqueue("ada")
    await Worker(forge, queues=["default"]).run(until_empty=True)

    assert await forge.wait(job) == "ada"


async def test_arguments_that_have_no_place_are_a_sentence(forge: Forge) -> None:
    @forge.handler
    async def send_email(to: str, *, urgent: bool = False) -> None: ...

    with pytest.raises(InvalidInput, match="is given 2 arguments without a name, allowed: to"):
        await send_email.enqueue("ada", True)  # type: ignore[call-arg]
    with pytest.raises(InvalidInput, match="is given 'to' twice, by its place and by its name"):
        await send_email.enqueue("ada", to="bob")  # type: ignore[misc]


async def test_an_option_among_the_arguments_is_told_from_them(forge: Forge) -> None:
    @forge.handler
    async def send_email(to: str) -> None: ...

    with pytest.raises(UnfitPayload, match=r"The option 'delay' is said by send_email.options\(delay=...\)."):
        await send_email.enqueue(to="ada", delay=5)  # type: ignore[call-arg]


async def test_a_handler_may_have_an_argument_that_is_called_like_an_option(forge: Forge) -> None:
    @forge.handler
    async def send_email(key: str, delay: float) -> None: ...

    job = await send_email.enqueue(key="a", delay=5)

    assert (await forge.jobs.get(job.id)).key is None


async def test_a_kind_that_nobody_handles_is_said_while_others_are_known(
    forge: Forge, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    other = Forge(storage=database.storage())

    @other.handler
    async def send_email(to: str) -> None: ...

    async with other:
        events = Events()
        forge.telemetry.subscribe(events.append)
        with caplog.at_level(logging.WARNING, "forge_jobs"):
            for _ in range(2):
                await forge.enqueue("sned_email", {"to": "ada"})
                await forge.enqueue_many("frobnicate", [{}])
                await forge.enqueue("send_email", {"to": "ada"})

    assert events == [KindResembles("sned_email", "send_email"), KindUnheardOf("frobnicate")]
    assert [record.getMessage() for record in caplog.records] == [
        "A job of kind sned_email was enqueued, and neither a live worker nor a program has a handler for it; "
        "did you mean send_email?",
        "A job of kind frobnicate was enqueued, and neither a live worker nor a program has a handler for it: "
        "it waits for one",
    ]


async def test_what_the_handler_of_another_program_says_of_jobs_is_missed_once(
    forge: Forge, database: Database, events: Events
) -> None:
    other = Forge(storage=database.storage())

    @other.handler(group="serial", unique=Unique())
    async def serial() -> None: ...

    @other.handler(fair_by="customer")
    async def fair(customer: str) -> None: ...

    @other.handler(singleton=True)
    async def single() -> None: ...

    async with other:
        await forge.enqueue("serial", group="a", key="k")
        assert not events.of(OptionsLeftOut)
        for _ in range(2):
            await forge.enqueue("fair", {"customer": "ada"})
    async with Forge(storage=database.storage()) as third:
        third.telemetry.subscribe(events.append)
        await third.enqueue("serial", group=())
        await third.enqueue("fair", {"customer": "ada"}, tenant="ada")

        await third.enqueue("single")
    async with Forge(storage=database.storage()) as fourth:
        fourth.telemetry.subscribe(events.append)
        await fourth.enqueue("serial", group=(), unique=None)
        await fourth.enqueue("fair", {"customer": "ada"}, tenant=None)
        await fourth.enqueue("single", key=None)

    assert events.of(OptionsLeftOut) == [
        OptionsLeftOut("fair", ["tenant"]),
        OptionsLeftOut("serial", ["unique"]),
        OptionsLeftOut("single", ["key"]),
    ]


async def test_a_job_of_which_the_call_says_that_it_has_none_has_none_whatever_its_handler_says(
    forge: Forge,
) -> None:
    @forge.handler(group="serial", unique=Unique())
    async def serial() -> None: ...

    @forge.handler(fair_by="customer")
    async def fair(customer: str) -> None: ...

    @forge.handler(singleton=True)
    async def single() -> None: ...

    free: OptionValues = {"group": (), "unique": None}
    assert [serial.options(**free).job().groups, serial.options(key=None).job().key] == [None, None]
    assert fair.options(tenant=None).job(customer="ada").tenant is None
    assert single.options(unique=None).job().key is None
    assert (serial.options(tags=["a"]).job().key is None, fair.job(customer="ada").tenant) == (False, "ada")


async def test_a_kind_that_only_a_live_worker_handles_is_known(
    forge: Forge, database: Database, events: Events
) -> None:
    other = Forge(storage=database.storage())

    @other.handler
    async def send_email(to: str) -> None: ...

    async with other, working(other):
        await forge.kinds.forget("send_email")
        await forge.enqueue("send_email", {"to": "ada"})

    assert events == []


async def test_nothing_is_said_of_kinds_while_none_is_known(forge: Forge, events: Events) -> None:
    job = await forge.enqueue("send_email")

    assert events == []
    assert (await forge.jobs.get(job.id)).state is State.PENDING


async def test_the_error_of_a_plain_handler_shows_its_own_frames_alone(forge: Forge) -> None:
    @forge.handler(max_attempts=1)
    def divide() -> float:
        return _divided_by(0)

    job = await divide.enqueue()
    await Worker(forge, queues=["default"]).run(until_empty=True)

    error = (await forge.jobs.get(job.id)).error
    assert error is not None and error.startswith("ZeroDivisionError: ")
    files = [line.strip() for line in error.splitlines() if line.strip().startswith("File ")]
    assert [line.rpartition(" in ")[2] for line in files] == ["divide", "_divided_by"]


async def test_the_error_of_a_function_of_the_standard_library_shows_its_frames(forge: Forge) -> None:
    import json

    forge.handler(kind="read", max_attempts=1)(json.loads)
    job = await forge.enqueue("read", {"s": "{"})
    await Worker(forge, queues=["default"]).run(until_empty=True)

    error = (await forge.jobs.get(job.id)).error
    assert error is not None and "json" in error and " in loads" in error


def _divided_by(number: float) -> float:
    return 1 / number
