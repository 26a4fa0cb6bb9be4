"""What people do by hand is noted with who they were: to queues, kinds, groups, workers, flows and jobs."""

import asyncio
from typing import Any

import pytest

from forge_jobs import Context, Flow, Forge, InvalidInput, QueueInUse, Removed, acting_as
from forge_jobs.client.acting import who_acts
from forge_jobs.model.worker import WorkerInfo
from tests.storage.conftest import *  # noqa: F403  the databases, and the clock
from tests.storage.databases import Database
from tests.storage.factories import leader


@pytest.fixture
async def forge(database: Database) -> Any:
    async with Forge(storage=database.storage()) as forge:
        yield forge


async def done(forge: Forge, subject: str) -> list[tuple[str, str, str | None]]:
    return [
        (one.what.value, one.by, one.note)
        for one in reversed(await forge.interventions.list(subject=subject))
    ]


async def test_pauses_are_noted_with_who_paused_and_who_resumed(forge: Forge) -> None:
    @forge.handler
    async def send() -> None: ...

    await forge.publish()
    await forge.ensure_queues("mail")
    await forge.storage.workers.register(WorkerInfo(7, "w-7", "host", 1, "1", ("mail",), (), 1))
    for what, name in (("queue", "mail"), ("kind", "send"), ("group", "customer:42")):
        noun: Any = getattr(forge, f"{what}s")
        with acting_as("ada"):
            await noun.pause(name, why="it moves")
        await noun.resume(name)
        assert await done(forge, f"{what} {name}") == [
            ("paused", "ada", "it moves"),
            ("resumed", who_acts(), None),
        ]
    with acting_as("ada"):
        await forge.workers.pause(["w-7"])
        await forge.workers.pause(["w-7"])  # it is paused already
        await forge.workers.resume(["w-7"])
    assert await done(forge, "worker w-7") == [("paused", "ada", None), ("resumed", "ada", None)]


async def test_what_is_configured_and_deleted_is_noted_with_who_did_it(forge: Forge) -> None:
    @forge.handler
    async def send() -> None: ...

    await forge.publish()
    with acting_as("ada"):
        await forge.queues.set("mail", concurrency=3)
        await forge.limits.set("api", 5, per=1)
        await forge.limits.empty("api")
        await forge.limits.reset("api", "customer:42")
        await forge.crons.set("daily", "@daily", "send")
        await forge.groups.set("customer:42", 5)
        await forge.tenants.set_weight("acme", 3, queue="mail")
    await forge.queues.set("mail", concurrency=4)  # as a program does at its start
    await forge.crons.disable("daily")
    await forge.crons.delete("daily")
    await forge.limits.set("api", 6, per=1)
    await forge.limits.delete("api")
    await forge.queues.delete("mail")
    assert await forge.kinds.forget("send")
    await forge.limits.set("api", 6, per=1, managed_by="an operator")
    await forge.owners.dismiss("an operator")

    me = who_acts()
    assert await done(forge, "queue mail") == [("changed", "ada", "concurrency"), ("deleted", me, None)]
    assert await done(forge, "limit api") == [
        ("changed", "ada", "capacity 5, 5 tokens a second"),
        ("emptied", "ada", None),
        ("reset", "ada", "key 'customer:42'"),
        ("deleted", me, None),
    ]
    assert await done(forge, "cron daily") == [
        ("changed", "ada", "@daily"),
        ("changed", me, "disabled"),
        ("deleted", me, None),
    ]
    assert await done(forge, "group customer:42") == [("changed", "ada", "limit 5")]
    assert await done(forge, "tenant acme") == [("changed", "ada", "weight 3 in queue mail")]
    assert await done(forge, "kind send") == [("deleted", me, None)]
    assert await done(forge, "owner an operator") == [("dismissed", me, None)]


async def test_a_queue_that_cannot_be_deleted_is_not_noted(forge: Forge) -> None:
    await forge.ensure_queues("mail")
    await forge.enqueue("send", queue="mail")

    with pytest.raises(QueueInUse):
        await forge.queues.delete("mail")

    assert await forge.interventions.list() == []


async def test_what_changes_nothing_is_not_noted(forge: Forge) -> None:
    assert not await forge.kinds.resume("nothing")
    assert not await forge.groups.resume("nothing")
    assert await forge.jobs.remove("send", "nothing") is Removed.NOT_FOUND
    assert await forge.interventions.list() == []


async def test_a_flow_that_is_cancelled_says_in_the_history_of_its_jobs_who_did_it(forge: Forge) -> None:
    @forge.handler
    async def work() -> None: ...

    started = await Flow("sums").and_then(work).and_then(work, name="again").start()
    with acting_as("ada"):
        await forge.flows.cancel(started.id)
    with acting_as("bob"):
        await forge.flows.retry(started.id)

    subject = f"flow {started.id}"
    assert await done(forge, subject) == [("cancelled", "ada", None), ("retried", "bob", None)]
    lines = [
        (entry.note, (entry.by or "").partition(" ")[0])
        for entry in await forge.jobs.history(next(iter(started.jobs.values())))
        if entry.by is not None
    ]
    assert lines == [(f"cancelled: {subject}", "ada"), (f"retried: {subject}", "bob")]


async def test_signals_and_removals_are_noted_where_somebody_says_who_does_it(forge: Forge) -> None:
    @forge.handler
    async def work(ctx: Context) -> None: ...

    job = await work.options(key="k", tags=["t"]).enqueue()
    await forge.signal("paid", job=job)
    assert await forge.interventions.list() == []
    with acting_as("ada"):
        await forge.signal("approved", 1, tag="t")
        await forge.signal("approved", 1, job=job)  # a second one does not count
        await forge.jobs.remove("work", "k")

    lines = [(entry.note, (entry.by or "").partition(" ")[0]) for entry in await forge.jobs.history(job)]
    assert lines == [("signalled: approved", "ada"), ("removed: key k", "ada")]


async def test_who_acts_is_noted_from_threads_without_an_event_loop_too(database: Database) -> None:
    async with Forge(database.url) as forge:
        job = await forge.enqueue("work")

        def act() -> None:
            with acting_as("ada"):
                forge.sync.jobs.cancel(job)
                forge.sync.queues.pause("default")
            assert [one.by for one in forge.sync.interventions.list()] == ["ada", "ada"]

        await asyncio.to_thread(act)
        assert [one.by for one in await forge.storage.interventions.of_job(job.id)] == ["ada"]
        assert await done(forge, "queue default") == [("paused", "ada", None)]
        await asyncio.to_thread(forge.sync.close)


async def test_of_one_job_the_newest_hundred_are_kept_and_all_go_with_time(forge: Forge, clock: Any) -> None:
    @forge.handler
    async def work() -> None: ...

    job = await work.enqueue()
    for number in range(105):
        await forge.jobs.change(job, priority=number)
    assert len(await forge.storage.interventions.of_job(job.id)) == 100
    await forge.queues.pause("default")
    await forge.queues.resume("default")

    epoch = await leader(forge.storage)
    for days, kept in ((31, 100), (400, 0)):
        await clock.advance(days=days)
        await forge.storage.history.sweep(epoch=epoch, limit=7)
        assert len(await forge.interventions.list(limit=1000)) == kept
    assert (await forge.jobs.get(job)).priority == 104


async def test_a_subject_that_cannot_be_is_refused(forge: Forge) -> None:
    with pytest.raises(
        InvalidInput, match="subject is 'mail', allowed is one of queue, kind, group, worker, flow"
    ):
        await forge.interventions.list(subject="mail")


async def test_who_cancelled_an_operation_is_said_by_it(forge: Forge) -> None:
    operation = await forge.operations.start("cancelled", kind="work")
    with acting_as("ada"):
        assert await forge.operations.cancel(operation.id)
        assert not await forge.operations.cancel(operation.id)

    assert (await forge.operations.get(operation.id)).error == "Cancelled by ada."
    assert await done(forge, f"operation {operation.id}") == [("cancelled", "ada", None)]


async def test_of_signals_by_hand_the_newest_hundred_are_kept(forge: Forge) -> None:
    job = await forge.enqueue("work", tags=["t"])
    with acting_as("ada"):
        for number in range(102):
            await forge.signal(f"s{number}", tag="t")

    noted = [one.note for one in await forge.storage.interventions.of_job(job.id)]
    assert noted == [f"s{number}" for number in range(2, 102)]


async def test_who_gave_up_a_worker_is_noted(forge: Forge) -> None:
    await forge.storage.workers.register(WorkerInfo(7, "w-7", "host", 1, "1", ("mail",), (), 1))
    with acting_as("ada"):
        assert len(await forge.workers.give_up(["w-7"], dry_run=True)) == 1
        assert [one.worker.id for one in await forge.workers.give_up([7])] == [7]

    assert await done(forge, "worker w-7") == [("given up", "ada", None)]
