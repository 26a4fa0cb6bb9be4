"""The options of a handler hold for every job of its kind that does not say otherwise, whoever enqueues it."""

from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from forge_jobs import Forge, InvalidInput, Job, Kind, State, Worker
from forge_jobs.telemetry.events import Event, KindsUnpublished
from forge_jobs.testing import run_due_jobs
from tests.storage.clock import Clock
from tests.storage.databases import Database
from tests.storage.factories import claim, done, worker


def program(database: Database, **options: Any) -> Forge:
    """A program with one handler that has these options."""
    forge = Forge(storage=database.storage())

    @forge.handler(kind="send", **options)
    async def send() -> None: ...

    return forge


def facts(job: Job) -> tuple[Any, ...]:
    return (job.queue, job.priority, job.max_attempts, job.timeout)


SAID = {"queue": "mail", "priority": 3, "max_attempts": 8, "timeout": 30}
DECLARED = ("mail", 3, 8, timedelta(seconds=30))


async def test_a_job_enqueued_by_name_has_the_options_of_a_handler_elsewhere(
    forge: Forge, database: Database
) -> None:
    async with program(database, **SAID):
        pass

    one = await forge.enqueue("send")
    [other] = await forge.enqueue_many("send", [{}])
    said = await forge.enqueue("send", priority=0, max_attempts=None, queue="default", timeout=1)

    assert facts(await forge.jobs.get(one.id)) == facts(await forge.jobs.get(other.id)) == DECLARED
    assert facts(await forge.jobs.get(said.id)) == ("default", 0, 0, timedelta(seconds=1))


async def test_the_handler_of_one_s_own_program_wins(forge: Forge, database: Database) -> None:
    @forge.handler(kind="send", max_attempts=2)
    async def send() -> None: ...

    async with program(database, **SAID):
        pass

    assert facts(await forge.jobs.get((await forge.enqueue("send")).id)) == ("default", 0, 2, None)
    assert facts(await forge.jobs.get((await send.options(priority=9).enqueue()).id)) == (
        "default",
        9,
        2,
        None,
    )


async def test_an_option_that_a_handler_no_longer_has_holds_no_longer(
    forge: Forge, database: Database
) -> None:
    async with program(database, **SAID):
        pass
    async with program(database):
        pass

    assert facts(await forge.jobs.get((await forge.enqueue("send")).id)) == ("default", 0, 5, None)


async def test_a_program_that_opens_again_writes_nothing_new(
    forge: Forge, database: Database, clock: Clock
) -> None:
    async with program(database, **SAID):
        pass
    [before] = await forge.kinds.list()
    await clock.advance(hours=1)

    async with program(database, **SAID) as again:
        await Worker(again, queues=["mail"]).run(until_empty=True)

    assert await forge.kinds.list() == [before]


async def test_a_program_without_handlers_declares_nothing(forge: Forge) -> None:
    await forge.enqueue("send")

    assert await forge.kinds.list() == []


async def test_a_handler_declared_after_the_program_opened_is_published_by_its_worker(forge: Forge) -> None:
    @forge.handler(title="Send a mail", owner="team-mail", docs="https://x.example/send", codec="msgpack")
    async def send() -> None: ...

    await Worker(forge, queues=["default"]).run(until_empty=True)

    [kind] = await forge.kinds.list()
    assert (kind.kind, kind.title, kind.owner, kind.docs) == (
        "send",
        "Send a mail",
        "team-mail",
        "https://x.example/send",
    )
    assert kind.codec == "msgpack"
    assert kind.declared_by is not None and kind.declared_at is not None


async def test_a_cron_fires_with_the_options_of_its_kind(forge: Forge, database: Database) -> None:
    async with program(database, **SAID):
        pass
    await forge.crons.set("nightly", "0 3 * * *", "send")

    job = await forge.crons.trigger("nightly")

    assert facts(await forge.jobs.get(job.id)) == DECLARED


async def test_a_job_by_name_is_run_by_the_handler_that_declares_another_codec(
    forge: Forge, database: Database
) -> None:
    async with program(database, codec="msgpack") as there:
        job = await forge.enqueue("send")
        await run_due_jobs(there)

    assert (await forge.jobs.get(job.id)).state is State.DONE


async def test_a_kind_that_no_program_has_any_more_can_be_forgotten(forge: Forge, database: Database) -> None:
    async with program(database, **SAID):
        pass

    assert await forge.kinds.forget("send")
    assert await forge.kinds.list() == []
    with pytest.raises(InvalidInput):
        await forge.kinds.forget("no kind")


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_program_that_may_not_write_opens_and_says_so(forge: Forge, database: Database) -> None:
    async with program(database):
        pass
    [before] = await forge.kinds.list()
    owner = await asyncpg.connect(database.url)
    said: list[Event] = []
    try:
        await owner.execute("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on")
        for options, events in (({}, 0), ({"max_attempts": 8}, 1)):
            reader = program(database, **options)
            reader.telemetry.subscribe(said.append)
            async with reader:
                assert [kind.kind for kind in await reader.kinds.list()] == ["send"]
            assert len(said) == events
    finally:
        await owner.execute("SET default_transaction_read_only = off")
        await owner.execute("ALTER ROLE CURRENT_USER RESET default_transaction_read_only")
        await owner.close()

    [event] = said
    assert isinstance(event, KindsUnpublished)
    assert event.kinds == ["send"] and "read-only" in event.error
    assert await forge.kinds.list() == [before]


@pytest.mark.parametrize("text", ["", "two\nlines", 7, "x" * 501])
@pytest.mark.parametrize("what", ["title", "owner", "docs"])
def test_what_is_said_for_people_is_one_line(what: str, text: Any) -> None:
    with pytest.raises(InvalidInput, match=f"{what} is"):
        Forge("sqlite://:memory:").handler(**{what: text})(dict.copy)


def test_what_a_handler_declares_is_what_it_was_given() -> None:
    @Forge("sqlite://:memory:").handler(
        kind="send", max_attempts=None, timeout=5, start_by=60, deadline=3600, slots=2
    )
    def send() -> None: ...

    assert send.declared == Kind(
        "send",
        max_attempts=0,
        timeout=timedelta(seconds=5),
        start_by=timedelta(minutes=1),
        deadline=timedelta(hours=1),
        slots=2,
    )


async def test_jobs_of_a_kind_that_had_no_worker_are_not_before_those_of_all_others_when_one_comes(
    forge: Forge,
) -> None:
    order: list[str] = []

    @forge.handler(fair_by="customer")
    async def old(customer: str) -> None:
        order.append(customer)

    @forge.handler(fair_by="customer")
    async def new(customer: str) -> None:
        order.append(customer)

    me = await worker(forge.storage, kinds=("old",))
    await new.enqueue_many([{"customer": "ada"}] * 120)
    await old.enqueue_many([{"customer": "bob"}] * 200)
    passed = await claim(forge.storage, me, limit=150, without_kinds=["new"])
    await forge.storage.claims.finish([done(one) for one in passed])

    await Worker(forge, queues=["default"], concurrency=1).run(until_empty=True)

    assert len(order) == 170
    assert order[:60].count("ada") == order[:60].count("bob") == 30
