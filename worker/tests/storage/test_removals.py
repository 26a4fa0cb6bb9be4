"""How a queue goes: closed, emptied, erased; and no job of it is ever where nobody finds it."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.client.queues import Queues
from forge_jobs.errors import Managed, PastEpoch, QueueInUse, UnknownQueue
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import State
from forge_jobs.model.kind import Kind
from forge_jobs.probes.metrics import Metrics
from forge_jobs.rules import names
from forge_jobs.rules.why import Why
from forge_jobs.telemetry.telemetry import Telemetry
from tests.storage.ear import Ear
from tests.storage.factories import (
    awaiting,
    claim_ids,
    cron,
    dead,
    ended,
    enqueue,
    enqueue_many,
    expired,
    failed,
    job,
    queue,
    running,
    state,
    worker,
)

HOUR = timedelta(hours=1)


async def queue_names(storage):
    return [each.name for each in await storage.queues.all(closed=True)]


async def one_in_each_waiting_state(storage, name):
    """Return {state: id} of one job of the queue in each state but in progress."""
    me = await worker(storage, [name])
    failing = await running(storage, me, queue=name)
    await storage.claims.postpone([failed(failing, delay=HOUR)])
    buried = await running(storage, me, queue=name)
    await storage.claims.finish([dead(buried)])
    return {
        State.EXPIRED: await expired(storage, me, queue=name),
        State.WAITING: (await awaiting(storage, me, queue=name)).job_id,
        State.RETRYING: failing.job_id,
        State.DEAD: buried.job_id,
        State.DONE: await ended(storage, me, queue=name),
        State.SCHEDULED: await enqueue(storage, queue=name, delay=HOUR),
        State.PENDING: await enqueue(storage, queue=name, key="k"),
    }


async def test_a_queue_without_jobs_is_gone_and_workers_are_told(storage):
    await storage.queues.ensure(["mail"])

    async with Ear(storage) as ear:
        await Queues(storage).delete("mail")
        await ear.hears("config", "")

    assert await queue_names(storage) == ["default"]
    with pytest.raises(UnknownQueue):
        await enqueue(storage, queue="mail")


async def test_done_jobs_go_with_their_queue(storage):
    job_id = await ended(storage, await worker(storage, ["mail"]), queue="mail")

    assert (await Queues(storage).delete("mail")).changed == 1

    assert await storage.jobs.find() == []
    assert [counts.queue for counts in await storage.jobs.counts()] == ["default"]
    assert job_id not in [found.id for found in await storage.jobs.find(state=State.DONE)]


@pytest.mark.parametrize("where", [State.PENDING, State.SCHEDULED, State.RETRYING, State.DEAD])
async def test_a_queue_is_not_deleted_while_it_has_a_job(storage, where):
    jobs = await one_in_each_waiting_state(storage, "mail")
    for other in set(jobs) - {where}:
        await storage.jobs.delete(jobs[other])
    before = await storage.queues.all()

    with pytest.raises(QueueInUse, match=f"Queue 'mail' was not deleted: it has jobs .1 {where}.; say where"):
        await Queues(storage).delete("mail")

    assert await storage.queues.all() == before
    assert await state(storage, jobs[where]) is where


@pytest.mark.parametrize("options", [{}, {"move_to": "default"}, {"drop": True}])
async def test_a_queue_is_not_deleted_while_a_job_of_it_runs(storage, options):
    await running(storage, await worker(storage, ["mail"]), queue="mail")
    waiting = await enqueue(storage, queue="mail")

    with pytest.raises(QueueInUse, match="one of its jobs is in progress"):
        await Queues(storage).delete("mail", **options)

    assert (await storage.jobs.get(waiting)).queue == "mail"


async def test_jobs_in_every_state_are_moved_to_the_other_queue_and_counted_there(storage):
    jobs = await one_in_each_waiting_state(storage, "mail")
    before = {job_id: await storage.jobs.get(job_id) for job_id in jobs.values()}
    told: list[Any] = []

    moved = await Queues(storage).delete("mail", move_to="default", progress=told.append)

    assert (moved.changed, told[-1].changed) == (7, 7)
    for where, job_id in jobs.items():
        found = await storage.jobs.get(job_id)
        assert (found.queue, found.state, found.failures) == ("default", where, before[job_id].failures)
    [counts] = await storage.jobs.counts()
    assert (counts.pending, counts.scheduled, counts.done, counts.dead) == (1, 2, 1, 1)
    assert (counts.expired, counts.waiting) == (1, 1)
    assert (await storage.jobs.enqueue(job(key="k"))).duplicate


async def test_moved_jobs_are_claimed_in_their_old_order_before_younger_ones(storage):
    await storage.queues.ensure(["mail"])
    first = await enqueue_many(storage, 3, queue="mail")
    async with Ear(storage) as ear:
        me = await worker(storage)
        await storage.wakeups.mark_idle(me, [(await queue(storage)).id])
        await Queues(storage).delete("mail", move_to="default")
        await ear.hears("queue", (await queue(storage)).id)
    younger = await enqueue(storage)

    assert await claim_ids(storage, me) == [*first, younger]


async def test_dropped_jobs_are_gone_in_every_state(storage):
    await one_in_each_waiting_state(storage, "mail")
    await enqueue(storage)

    assert (await Queues(storage).delete("mail", drop=True)).changed == 7

    assert [found.queue for found in await storage.jobs.find()] == ["default"]


async def test_a_queue_is_emptied_in_batches(storage):
    await storage.queues.ensure(["mail"])
    await enqueue_many(storage, 2500, queue="mail")
    told: list[Any] = []

    await Queues(storage).delete("mail", move_to="default", progress=told.append)

    assert [bulk.changed for bulk in told] == [1000, 2000, 2500]


async def test_a_cron_keeps_its_queue_unless_it_is_moved_or_dropped(storage):
    await storage.queues.ensure(["mail", "news"])
    await storage.crons.set(cron("daily", queue="mail"))

    with pytest.raises(QueueInUse, match="cron 'daily' enqueues to it"):
        await Queues(storage).delete("mail")
    assert await queue_names(storage) == ["default", "mail", "news"]

    await Queues(storage).delete("mail", move_to="news")
    assert (await storage.crons.get("daily")).queue == "news"
    await Queues(storage).delete("news", drop=True)
    assert await storage.crons.all() == []


async def test_kinds_and_their_crons_follow_to_the_other_queue(storage):
    await storage.queues.ensure(["mail", "news"])
    await storage.kinds.declare([Kind("send", queue="mail")], by="shop")
    await storage.crons.set(cron("daily", kind="send", queue="mail", queue_said=False))

    await Queues(storage).delete("mail", move_to="news")

    assert [kind.queue for kind in await storage.kinds.all()] == ["news"]
    assert (await storage.jobs.get((await storage.crons.trigger("daily")).id)).queue == "news"


async def test_what_somebody_manages_is_deleted_by_nobody_else(storage):
    await storage.queues.set("mail", {}, managed_by="ForgeQueue shop/mail")
    with pytest.raises(Managed, match="Queue 'mail' is managed by ForgeQueue shop/mail"):
        await Queues(storage).delete("mail", drop=True)
    await Queues(storage).delete("mail", managed_by="ForgeQueue shop/mail")

    await storage.queues.ensure(["news"])
    await storage.crons.set(cron("daily", queue="news"), managed_by="ForgeCron shop/daily")
    with pytest.raises(Managed, match="Cron 'daily' is managed by"):
        await Queues(storage).delete("news", drop=True)
    assert await queue_names(storage) == ["default", "news"]


async def test_an_operator_of_the_past_deletes_nothing(storage):
    await storage.queues.ensure(["mail"])
    epoch = (await storage.versions.take_over("one")).number
    await storage.versions.take_over("two")

    with pytest.raises(PastEpoch):
        await Queues(storage).delete("mail", epoch=epoch)
    assert await queue_names(storage) == ["default", "mail"]


async def test_a_closed_queue_is_found_by_nobody_and_nothing_of_it_is_claimed(storage):
    me = await worker(storage, ["mail"])
    await enqueue(storage, queue="mail")
    mail = await queue(storage, "mail")

    closed = await storage.removals.close("mail")

    assert closed == mail
    assert await queue_names(storage) == ["default", names.closed_queue(mail)]
    assert await storage.claims.claim(mail.id, me, limit=10) == []
    with pytest.raises(UnknownQueue):
        await enqueue(storage, queue="mail")
    assert not await storage.removals.erase(mail.id)

    assert await storage.removals.open(closed)
    assert await queue(storage, "mail") == mail


async def test_the_name_of_a_closed_queue_is_shown_to_nobody(storage, database):
    jobs = await one_in_each_waiting_state(storage, "mail")
    await storage.queues.set("mail", {"concurrency": 1, "rate_limit": "smtp"}, managed_by="shop")
    await storage.removals.close("mail", managed_by="shop")
    forge = Forge(storage=storage)
    shown = [
        *(await forge.queues.list()),
        *(await forge.jobs.counts()),
        *(await forge.jobs.upcoming(HOUR)),
        *(await forge.jobs.list()),
        *(await forge.owners.list()),
        *[await forge.jobs.get(job_id) for job_id in jobs.values()],
        *[await forge.jobs.why(job_id) for job_id in jobs.values()],
        *await database.rows("SELECT queue FROM jobs"),
        await Metrics(Telemetry(), storage).scrape(),
    ]
    for ask in (
        lambda: forge.enqueue("work", queue="nix"),
        lambda: forge.enqueue_many("work", [{}, {}], queue="nix"),
        lambda: forge.enqueue_many("work", [{}] * 300, queue="nix"),
        lambda: forge.queues.get("nix"),
        lambda: forge.queues.pause("nix"),
        lambda: forge.queues.manage("nix", "me"),
        lambda: forge.queues.delete("nix"),
        lambda: forge.jobs.list(queue="nix"),
        lambda: forge.jobs.cancel_all(queue="nix"),
        lambda: forge.crons.set("daily", "@daily", "work", queue="nix"),
        lambda: storage.removals.close("nix"),
        lambda: anext(forge.watch(["nix"])),
    ):
        with pytest.raises(UnknownQueue) as caught:
            await ask()
        assert caught.value.known == ("default",)
        shown.append(str(caught.value))

    assert not [each for each in shown if "deleting" in repr(each) and not isinstance(each, Why)]
    assert {job.queue for job in await forge.jobs.list()} == {"mail"}
    waiting = jobs[State.PENDING]
    assert (await forge.jobs.why(waiting)).reasons == (
        "Queue 'mail' is being deleted: its jobs are moved to another queue, or deleted with it.",
    )


async def test_what_was_left_of_an_interrupted_deletion_goes_with_the_next_queue_of_that_name(storage):
    await storage.queues.ensure(["mail"])
    left = await enqueue(storage, queue="mail")
    await storage.removals.close("mail")  # and then its process died
    await storage.queues.ensure(["mail"])
    made = await enqueue(storage, queue="mail")

    assert (await Queues(storage).preview_delete("mail", move_to="default"))[State.PENDING] == 2
    assert (await Queues(storage).delete("mail", move_to="default")).changed == 2

    assert await queue_names(storage) == ["default"]
    assert {(await storage.jobs.get(job_id)).queue for job_id in (left, made)} == {"default"}


async def test_a_queue_that_a_cron_names_is_not_erased(storage):
    await storage.queues.ensure(["mail"])
    mail = await storage.removals.close("mail")
    await storage.crons.set(cron("daily", queue=names.closed_queue(mail)))

    assert not await storage.removals.erase(mail.id)

    await storage.crons.delete("daily")
    assert await storage.removals.erase(mail.id)


async def test_a_deletion_that_was_interrupted_goes_on_when_it_is_asked_for_again(storage):
    await storage.queues.ensure(["mail"])
    await enqueue_many(storage, 3, queue="mail")
    await storage.removals.close("mail")  # and then its process died

    assert (await Queues(storage).delete("mail", move_to="default")).changed == 3
    assert await queue_names(storage) == ["default"]


async def test_two_deletions_at_once_are_as_one(storage, another):
    await storage.queues.ensure(["mail"])
    await enqueue_many(storage, 500, queue="mail")

    results = await asyncio.gather(
        Queues(storage).delete("mail", move_to="default"),
        Queues(await another()).delete("mail", move_to="default"),
        return_exceptions=True,
    )

    assert not [
        each for each in results if isinstance(each, Exception) and not isinstance(each, UnknownQueue)
    ]
    assert await queue_names(storage) == ["default"]
    assert await storage.jobs.count(State.PENDING, queue="default") == 500


async def test_an_enqueue_at_the_same_moment_is_moved_or_refused_but_never_lost(storage, another):
    """Producers go on until they hear that the queue is gone; whatever they were told is there, is there."""
    await storage.queues.ensure(["mail"])
    other = await another()
    made: list[int] = []

    async def produce() -> None:
        while True:
            try:
                made.append(await enqueue(other, queue="mail"))
                made.extend(await enqueue_many(other, 3, queue="mail"))
                made.extend(await enqueue_many(other, 300, queue="mail"))
            except UnknownQueue:
                return

    producers = [asyncio.create_task(produce()) for _ in range(4)]
    while len(made) < 700:
        await asyncio.sleep(0)
    await Queues(storage).delete("mail", move_to="default")
    await asyncio.gather(*producers)

    assert await storage.jobs.count(State.PENDING, queue="default") == len(made)
    [counts] = await storage.jobs.counts()
    assert counts.pending == len(made)


@pytest.mark.parametrize("where", list(State))
async def test_the_jobs_that_a_walk_would_meet_are_counted(storage, where):
    group = encoded([Group("a")])
    await running(storage, await worker(storage, ["mail"]), queue="mail", groups=group)
    await enqueue(storage, queue="mail", groups=group)
    await one_in_each_waiting_state(storage, "mail")
    await enqueue(storage, "other")

    assert await storage.jobs.count(where, queue="mail") == 1
    assert await storage.jobs.count(where, queue="mail", kind="work") == 1
    assert await storage.jobs.count(where, kind="nothing") == 0
    assert await storage.jobs.count(where, queue="default") == (1 if where is State.PENDING else 0)
    assert await storage.jobs.count(where) == (2 if where is State.PENDING else 1)


async def test_blocked_jobs_move_to_another_queue_and_hold_no_queue_that_is_empty(storage):
    await storage.queues.ensure(["mail"])
    group = encoded([Group("a")])
    first = await enqueue(storage, groups=group)
    blocked = await enqueue(storage, queue="mail", groups=group)

    await Queues(storage).delete("mail", move_to="default")

    assert await queue_names(storage) == ["default"]
    await storage.jobs.cancel(first)
    assert await claim_ids(storage, await worker(storage)) == [blocked]
