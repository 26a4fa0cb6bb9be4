"""What a program declares of a kind holds for jobs of it that others enqueue."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from forge_jobs.errors import UnknownQueue
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import FOREVER, KeyMode
from forge_jobs.model.kind import Kind
from tests.storage.factories import cron, enqueue, job, leader

SEND = Kind(
    "send",
    "mail",
    3,
    8,
    timedelta(seconds=30),
    "json",
    "Send a mail",
    "team-mail",
    "https://x.example",
    timedelta(minutes=1),
    timedelta(hours=1),
    unpublished=("group", "unique"),
)


async def declare(storage, *kinds, by="a test"):
    await storage.queues.ensure([kind.queue for kind in kinds if kind.queue])
    return await storage.kinds.declare(kinds, by=by)


def facts(found):
    return (found.queue, found.priority, found.max_attempts, found.timeout)


DECLARED = ("mail", 3, 8, timedelta(seconds=30))
UNDECLARED = ("default", 0, 5, None)


async def test_what_is_declared_is_listed_with_who_and_when(storage, clock):
    now = await clock.freeze()

    await declare(storage, SEND, Kind("other"), by="here")

    other, send = await storage.kinds.all()
    assert other == Kind("other", declared_at=now, declared_by="here")
    assert send == replace(SEND, declared_at=now, declared_by="here")


async def test_what_is_declared_already_is_not_written_again(storage, database):
    assert await declare(storage, SEND, Kind("other")) == 2
    before = await storage.kinds.all()

    assert await declare(storage, SEND, Kind("other"), by="somebody else") == 0
    assert await declare(storage, Kind("other"), SEND) == 0

    assert await storage.kinds.all() == before


async def test_the_last_to_declare_wins_and_only_what_differs_is_written(storage):
    await declare(storage, SEND, Kind("other"), by="one")

    assert await declare(storage, Kind("send"), Kind("other"), by="two") == 1

    assert [kind.declared_by for kind in await storage.kinds.all()] == ["one", "two"]
    assert facts(await storage.jobs.get(await enqueue(storage, "send"))) == UNDECLARED


async def test_many_who_declare_at_once_all_succeed(storage, another):
    storages = [storage, *[await another() for _ in range(5)]]
    await storage.queues.ensure(["mail"])
    kinds = [replace(SEND, kind=f"kind-{number}") for number in range(30)]

    written = await asyncio.gather(
        *(
            each.kinds.declare(kinds[:: -1 if number % 2 else 1], by="many")
            for number, each in enumerate(storages)
        )
    )

    assert sum(written) == 30
    assert len(await storage.kinds.all()) == 30


async def test_a_forgotten_kind_is_as_if_it_was_never_declared(storage):
    await declare(storage, SEND)

    assert await storage.kinds.forget("send")
    assert not await storage.kinds.forget("send")

    assert await storage.kinds.all() == []
    assert facts(await storage.jobs.get(await enqueue(storage, "send"))) == UNDECLARED


async def enqueue_one(storage, wanted):
    return (await storage.jobs.enqueue(wanted)).id


async def enqueue_a_few(storage, wanted):
    return (await storage.jobs.enqueue_many([wanted, job()]))[0].id


async def enqueue_a_thousand(storage, wanted):
    return (await storage.jobs.enqueue_many([wanted] * 1000))[0].id


WAYS = pytest.mark.parametrize("way", [enqueue_one, enqueue_a_few, enqueue_a_thousand])


@WAYS
async def test_a_job_that_says_nothing_has_what_its_kind_declares(storage, way):
    await declare(storage, SEND)

    assert facts(await storage.jobs.get(await way(storage, job("send")))) == DECLARED
    assert facts(await storage.jobs.get(await way(storage, job("unknown")))) == UNDECLARED


@pytest.mark.parametrize("key", [None, "k"])
@WAYS
async def test_what_a_job_says_wins_over_what_its_kind_declares(storage, way, key):
    await declare(storage, SEND)
    await storage.queues.ensure(["slow"])
    said = {"queue": "slow", "priority": -1, "max_attempts": 2, "timeout": timedelta(seconds=5)}

    found = await storage.jobs.get(await way(storage, job("send", key=key, **said)))

    assert facts(found) == tuple(said.values())


@WAYS
async def test_a_job_whose_program_declares_the_kind_has_what_that_program_says(storage, way):
    await declare(storage, SEND)

    found = await storage.jobs.get(await way(storage, job("send", declared=True)))

    assert facts(found) == UNDECLARED


@WAYS
async def test_a_kind_may_be_retried_for_ever(storage, way):
    await declare(storage, Kind("send", max_attempts=FOREVER))

    assert (await storage.jobs.get(await way(storage, job("send")))).max_attempts == FOREVER


@WAYS
async def test_the_queue_s_attempts_hold_where_the_kind_says_none(storage, way):
    await declare(storage, Kind("send", "mail"))
    await storage.queues.set("mail", {"max_attempts": 7})

    assert facts(await storage.jobs.get(await way(storage, job("send")))) == ("mail", 0, 7, None)


@WAYS
async def test_a_declared_queue_that_is_not_there_is_named(storage, way):
    await storage.kinds.declare([SEND], by="a test")

    with pytest.raises(UnknownQueue, match="There is no queue 'mail'"):
        await way(storage, job("send"))


async def test_a_cron_that_says_nothing_has_what_its_kind_declares_when_it_fires(storage):
    await storage.crons.set(cron(kind="send", queue_said=False))
    await declare(storage, SEND)

    triggered = await storage.crons.trigger("nightly")
    [found] = await storage.crons.all()
    epoch, due = await leader(storage), await storage.now()
    await storage.fires.seed("nightly", due, epoch=epoch)
    [fired] = await storage.fires.fire(
        await storage.crons.get("nightly"), [due], due + timedelta(days=1), epoch=epoch
    )

    assert (found.queue, found.queue_said, found.priority) == ("mail", False, None)
    assert facts(await storage.jobs.get(triggered.id)) == DECLARED
    assert facts(await storage.jobs.get(fired.id)) == DECLARED


async def test_a_cron_of_a_forgotten_kind_goes_to_the_default_queue(storage):
    await declare(storage, SEND)
    await storage.crons.set(cron(kind="send", queue_said=False))

    await storage.kinds.forget("send")

    assert (await storage.crons.get("nightly")).queue == "default"
    triggered = await storage.crons.trigger("nightly")
    assert facts(await storage.jobs.get(triggered.id)) == UNDECLARED


async def test_what_a_cron_says_wins_over_what_its_kind_declares(storage):
    await declare(storage, SEND)
    await storage.crons.set(cron(kind="send", priority=0, max_attempts=1, timeout=timedelta(seconds=1)))

    triggered = await storage.crons.trigger("nightly")

    assert facts(await storage.jobs.get(triggered.id)) == ("default", 0, 1, timedelta(seconds=1))


async def test_a_new_cron_goes_to_the_queue_that_its_kind_declares(storage):
    await declare(storage, SEND)

    made = await storage.crons.set(cron(kind="send", queue_said=False))
    await storage.crons.ensure(cron("other", kind="send", queue_said=False))

    assert made.queue == "mail"
    assert (await storage.crons.get("other")).queue == "mail"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"key": "k"},
        {"key": "k", "key_mode": KeyMode.REPLACE},
        {"groups": encoded([Group("a")])},
        {"tags": ("a",)},
        {"delay": timedelta(hours=1)},
    ],
)
@pytest.mark.parametrize("how", ["one", "many", "bulk", "transaction", "cron"])
async def test_the_time_limits_that_are_declared_hold_for_jobs_that_say_none(
    storage, database, clock, options, how
):
    now = await clock.freeze()
    await declare(storage, Kind("send", start_by=timedelta(minutes=1), deadline=timedelta(hours=1)))
    due = now + options.get("delay", timedelta(0))
    if how == "one":
        answer = await storage.jobs.enqueue(job("send", **options))
    elif how == "transaction":
        async with database.transaction() as connection:
            answer = await storage.jobs.enqueue(job("send", **options), connection=connection)
    elif how == "cron":
        due = now
        await storage.crons.set(cron(kind="send"))
        answer = await storage.crons.trigger("nightly")
    else:
        jobs = [job("other")] * (300 if how == "bulk" else 1) + [job("send", **options)]
        answer = (await storage.jobs.enqueue_many(jobs))[-1]

    found = await storage.jobs.get(answer.id)
    assert abs(found.start_by - due - timedelta(minutes=1)) < timedelta(seconds=1)
    assert abs(found.deadline - due - timedelta(hours=1)) < timedelta(seconds=1)


async def test_a_job_that_says_a_time_limit_has_that_one(storage, clock):
    now = await clock.freeze()
    await declare(storage, Kind("send", start_by=timedelta(minutes=1)))

    said = await storage.jobs.get(await enqueue(storage, "send", start_by=timedelta(hours=1)))
    declared = await storage.jobs.get(await enqueue(storage, "send", declared=True))

    assert (said.start_by, declared.start_by) == (now + timedelta(hours=1), None)


async def test_a_queue_that_is_not_there_is_told_also_where_the_kind_has_time_limits(storage):
    await declare(storage, Kind("send", start_by=timedelta(minutes=1)))

    with pytest.raises(UnknownQueue, match="nowhere"):
        await enqueue(storage, "send", queue="nowhere")
    assert await storage.jobs.find() == []


async def test_jobs_tell_what_of_them_is_redacted_as_their_kind_declares_it_now(storage):
    first, other = await enqueue(storage, "pay"), await enqueue(storage, "work")

    for redact in (("card", 'a "b"'), True, False):
        await declare(storage, Kind("pay", redact=redact, sealed=redact is True))

        assert (await storage.jobs.get(first)).redacted == redact
        assert [job.redacted for job in await storage.jobs.find(limit=9)] == [False, redact]
        assert [(kind.redact, kind.sealed) for kind in await storage.kinds.all()] == [
            (redact, redact is True)
        ]
    assert (await storage.jobs.get(other)).redacted is False
