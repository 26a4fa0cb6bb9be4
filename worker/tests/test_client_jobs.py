"""`forge.jobs`: what is refused, what is done to many jobs, and why."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.client.operations import Bulk
from forge_jobs.errors import InvalidInput, JobNotFound, UnknownQueue, WrongState
from forge_jobs.model.job import Cancelled, Postponement, Reason, State
from forge_jobs.model.worker import WorkerInfo


@pytest.fixture
async def forge(tmp_path: Path) -> AsyncIterator[Forge]:
    async with Forge(f"sqlite:///{tmp_path}/queue.sqlite") as forge:
        await forge.queues.ensure("mail")
        yield forge


async def registered(forge: Forge, *queues: str, kinds: tuple[str, ...] = ("send",)) -> WorkerInfo:
    id = secrets.randbits(62)
    worker = WorkerInfo(id, f"shop-worker-1-{id}", "host", 1, "1", queues, kinds, 10)
    await forge.storage.workers.register(worker)
    return worker


async def claimed(forge: Forge, worker: WorkerInfo, queue: str) -> list[int]:
    config = await forge.queues.get(queue)
    return [claim.job_id for claim in await forge.storage.claims.claim(config.id, worker.id, limit=10)]


def calls_of_one_job(forge: Forge) -> list[Callable[..., Awaitable[Any]]]:
    jobs = forge.jobs
    return [
        jobs.get,
        jobs.why,
        jobs.cancel,
        jobs.retry,
        jobs.run_now,
        jobs.delete,
        jobs.complete,
        jobs.fail,
        jobs.history,
    ]


@pytest.mark.parametrize("id", [0, -1, 2**63, "1", True, None, 1.0])
async def test_what_is_no_id_is_refused(forge: Forge, id: Any):
    wait: Callable[..., Awaitable[Any]] = forge.wait
    for call in (*calls_of_one_job(forge), wait):
        with pytest.raises(InvalidInput, match=r"^The job's id is .*, allowed is a whole number from 1 to"):
            await call(id)


async def test_a_job_that_is_not_there_is_not_found(forge: Forge):
    wait: Callable[..., Awaitable[Any]] = forge.wait
    for call in (*calls_of_one_job(forge), wait):
        with pytest.raises(JobNotFound, match=r"There is no job 7\."):
            await call(7)


async def test_what_an_enqueue_returned_names_a_job_in_every_call(forge: Forge):
    job = await forge.enqueue("send", queue="mail", delay=60)

    assert (await forge.jobs.get(job)).id == (await forge.jobs.why(job)).job_id == job.id
    assert await forge.jobs.run_now(job)
    assert await forge.jobs.cancel(job) is Cancelled.DEAD
    assert await forge.jobs.retry(job)
    assert await forge.jobs.list(before=job) == []
    await forge.jobs.delete(job)
    with pytest.raises(JobNotFound):
        await forge.wait(job)


@pytest.mark.parametrize("filters", [{"queue": ["mail"]}, {"kind": ["send"]}, {"queue": 5}, {"kind": ""}])
async def test_a_filter_that_is_no_name_is_refused(forge: Forge, filters: dict[str, Any]):
    for call in (
        forge.jobs.list,
        forge.jobs.cancel_all,
        forge.jobs.retry_all,
        partial(forge.jobs.delete_all, state="dead"),
        partial(forge.jobs.count, state="dead"),
    ):
        with pytest.raises(InvalidInput, match="allowed are 1 to 128 printable characters"):
            await call(**filters)


async def test_jobs_of_one_state_or_of_several_are_counted(forge: Forge):
    await forge.enqueue_many("send", [{}] * 3, queue="mail")
    await forge.enqueue("send", delay=60)

    assert await forge.jobs.count(state="pending") == 3
    assert await forge.jobs.count(state=["pending", State.SCHEDULED, "pending"], kind="send") == 4
    assert await forge.jobs.count(state=State.PENDING, queue="default") == 0
    with pytest.raises(InvalidInput):
        await forge.jobs.count(state="lost")
    with pytest.raises(UnknownQueue):
        await forge.jobs.count(state="dead", queue="nix")


@pytest.mark.parametrize(
    "options", [{"state": "lost"}, {"limit": 0}, {"limit": 10_001}, {"limit": "5"}, {"before": 0}]
)
async def test_a_list_with_wrong_options_is_refused(forge: Forge, options: dict[str, Any]):
    with pytest.raises(InvalidInput, match="allowed is"):
        await forge.jobs.list(**options)


async def test_a_list_of_an_unknown_queue_is_refused_and_of_an_empty_one_is_empty(forge: Forge):
    assert await forge.jobs.list(queue="mail") == []
    with pytest.raises(UnknownQueue, match="There is no queue 'mial'; queues: default, mail"):
        await forge.jobs.list(queue="mial")


async def test_a_state_may_be_named_by_its_text(forge: Forge):
    job = await forge.enqueue("send")

    assert [found.id for found in await forge.jobs.list(state="pending")] == [job.id]
    assert await forge.jobs.list(state=State.DEAD) == []


async def test_a_job_is_cancelled_retried_and_deleted(forge: Forge):
    job = await forge.enqueue("send")

    assert await forge.jobs.cancel(job.id) is Cancelled.DEAD
    assert await forge.jobs.cancel(job.id) is Cancelled.ENDED
    assert await forge.jobs.retry(job.id)
    with pytest.raises(WrongState):
        await forge.jobs.retry(job.id)
    await forge.jobs.delete(job.id)
    with pytest.raises(JobNotFound):
        await forge.jobs.get(job.id)


async def test_a_scheduled_job_can_be_run_now(forge: Forge):
    job = await forge.enqueue("send", delay=60)

    assert await forge.jobs.run_now(job.id)
    assert not await forge.jobs.run_now(job.id)


async def test_all_jobs_of_a_filter_are_cancelled_the_running_ones_flagged(forge: Forge):
    worker = await registered(forge, "mail")
    running = await forge.enqueue("send", queue="mail")
    assert await claimed(forge, worker, "mail") == [running.id]
    await forge.enqueue_many("send", [{}] * 1100, queue="mail")
    await forge.enqueue("send", queue="mail", delay=60)
    kept = [await forge.enqueue("other", queue="mail"), await forge.enqueue("send")]

    assert await forge.jobs.cancel_all(queue="mail", kind="send") == Bulk(changed=1102, running=1)

    assert (await forge.jobs.get(running.id)).cancel_requested_at is not None
    assert [(await forge.jobs.get(job.id)).state for job in kept] == [State.PENDING, State.PENDING]


async def test_a_call_on_all_jobs_tells_what_was_done_after_each_batch(forge: Forge):
    await forge.enqueue_many("send", [{}] * 2500)
    told: list[Bulk] = []

    bulk = await forge.jobs.cancel_all(progress=told.append)

    assert told == [Bulk(1000), Bulk(2000), Bulk(2500)]
    assert bulk == told[-1]


async def test_a_call_on_all_jobs_that_is_interrupted_goes_on_when_it_is_made_again(forge: Forge):
    await forge.enqueue_many("send", [{}] * 2500)

    def interrupt(so_far: Bulk) -> None:
        raise KeyError(so_far.changed)

    with pytest.raises(KeyError, match="1000"):
        await forge.jobs.delete_all(state="pending", progress=interrupt)

    assert (await forge.jobs.counts())[0].pending == 1500
    assert await forge.jobs.delete_all(state="pending") == Bulk(1500)


async def test_a_job_that_waits_again_meanwhile_is_cancelled_too(forge: Forge):
    worker = await registered(forge, "mail")
    job = await forge.enqueue("send", queue="mail")
    [claim] = await forge.storage.claims.claim((await forge.queues.get("mail")).id, worker.id, limit=1)
    await forge.enqueue("send", queue="mail", delay=60)

    async def fail() -> None:
        async with Forge(forge.storage.url) as elsewhere:
            again = Postponement(claim, Reason.RETRY, timedelta(minutes=1), error="it broke")
            assert await elsewhere.storage.claims.postpone([again]) == []

    def fail_once(so_far: Bulk) -> None:
        if so_far == Bulk(1):  # the walk over waiting jobs has passed it
            thread = Thread(target=asyncio.run, args=(fail(),))
            thread.start()
            thread.join()

    assert await forge.jobs.cancel_all(queue="mail", progress=fail_once) == Bulk(2)
    assert (await forge.jobs.get(job.id)).state is State.DEAD


async def test_all_dead_jobs_are_retried_but_those_whose_key_is_held(forge: Forge):
    dead = [await forge.enqueue("send", key="k"), await forge.enqueue("send")]
    for job in dead:
        await forge.jobs.cancel(job.id)
    await forge.enqueue("send", key="k")

    assert await forge.jobs.retry_all(kind="send") == Bulk(changed=1, skipped=1)


async def test_all_jobs_of_a_state_are_deleted(forge: Forge):
    await forge.enqueue_many("send", [{}] * 1100)
    kept = await forge.enqueue("send", delay=60)

    assert await forge.jobs.delete_all(state="pending") == Bulk(changed=1100, skipped=0)
    assert [job.id for job in await forge.jobs.list()] == [kept.id]


async def test_nothing_is_done_to_jobs_in_states_that_do_not_allow_it(forge: Forge):
    with pytest.raises(
        InvalidInput, match="Jobs that are in_progress cannot be deleted, allowed is one of done, dead"
    ):
        await forge.jobs.delete_all(state=State.IN_PROGRESS)
    with pytest.raises(InvalidInput, match="Jobs that are done cannot be retried"):
        await forge.jobs.retry_all(state="done")
    with pytest.raises(UnknownQueue):
        await forge.jobs.delete_all(state="dead", queue="nix")


async def test_why_follows_a_job_through_its_life(forge: Forge):
    async def why(job_id: int) -> str:
        return " ".join((await forge.jobs.why(job_id)).reasons)

    job = await forge.enqueue("send", queue="mail", delay=3600)
    assert "waits until" in await why(job.id)

    await forge.jobs.run_now(job.id)
    assert await why(job.id) == "No live worker serves queue 'mail'."

    await registered(forge, "mail", kinds=("other",))
    assert "No worker handles kind 'send': of 1 live worker serving queue 'mail'" in await why(job.id)

    worker = await registered(forge, "mail")
    assert "Nothing holds it back" in await why(job.id)

    await forge.queues.pause("mail")
    assert await why(job.id) == "Queue 'mail' is paused."
    await forge.queues.resume("mail")

    first = await forge.enqueue("send", queue="mail", priority=-1)
    assert await why(job.id) == "1 job of its queue is ahead of it."
    await forge.jobs.cancel(first.id)

    assert await claimed(forge, worker, "mail") == [job.id]
    assert f"It was claimed by {worker.label}" in await why(job.id)

    await forge.jobs.cancel(job.id)
    assert "that it be cancelled" in await why(job.id)


async def test_why_says_that_all_slots_are_in_use(forge: Forge):
    await forge.queues.set("mail", concurrency=1)
    worker = await registered(forge, "mail")
    await forge.enqueue("send", queue="mail")
    waiting = await forge.enqueue("send", queue="mail")
    mail = await forge.queues.get("mail")
    assert await forge.storage.slots.take(mail.id, worker.id, 1) == 1
    assert len(await claimed(forge, worker, "mail")) == 1

    assert (await forge.jobs.why(waiting.id)).reasons == ("The one slot of queue 'mail' is in use.",)


async def test_no_connection_at_all_is_refused_where_one_is_said(forge: Forge) -> None:
    @forge.handler
    async def work() -> None: ...

    for call in (
        lambda: forge.enqueue("work", connection=None),
        lambda: forge.enqueue_many("work", [{}], connection=None),
        lambda: work.options(connection=None).enqueue(),
    ):
        with pytest.raises(
            InvalidInput, match="connection is None, allowed is the connection of a transaction"
        ):
            await call()
