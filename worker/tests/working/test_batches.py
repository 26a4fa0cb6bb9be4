"""Jobs of one kind are done together, and each has an outcome of its own."""

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from forge_jobs import (
    Batch,
    BatchJob,
    Dead,
    Forge,
    InvalidInput,
    InvalidPayload,
    Job,
    Reschedule,
    Retries,
    State,
)
from forge_jobs.model.job import Reason
from forge_jobs.telemetry.events import BatchGoesOn, HandlerStuck
from forge_jobs.worker import runners
from forge_jobs.worker.attempt import Attempt
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


@dataclass
class Page:
    url: str
    depth: int = 0


class Mail(msgspec.Struct):
    to: str


async def jobs_of(forge: Forge, kind: str) -> list[Job]:
    """Return the jobs of the kind, the oldest first."""
    return [*await forge.jobs.list(kind=kind)][::-1]


async def all_ended(forge: Forge, kind: str) -> bool:
    return all(job.state in (State.DONE, State.DEAD) for job in await jobs_of(forge, kind))


async def eventually_ended(forge: Forge, kind: str) -> None:
    while not await all_ended(forge, kind):
        await asyncio.sleep(0.01)


async def test_jobs_that_a_worker_begins_at_one_moment_are_done_in_one_call(forge: Forge) -> None:
    calls: list[list[str]] = []

    @forge.handler(batch=Batch(size=10))
    async def index(jobs: list[BatchJob[Page]]) -> list[str]:
        calls.append([job.arguments.url for job in jobs])
        return [f"{job.ctx.job_id}: {job.arguments.url}" for job in jobs]

    enqueued = await index.enqueue_many([{"url": f"/{number}"} for number in range(7)])
    async with working(forge, concurrency=10):
        ended = [await forge.wait(each.id, timeout=30) for each in enqueued]

    assert sorted(url for call in calls for url in call) == [f"/{number}" for number in range(7)]
    assert len(calls) < 7
    assert ended == [f"{each.id}: /{number}" for number, each in enumerate(enqueued)]


async def test_a_batch_has_no_more_jobs_than_its_size(forge: Forge) -> None:
    sizes: list[int] = []

    @forge.handler(batch=Batch(size=3, within=30))
    async def index(jobs: list[BatchJob[Page]]) -> None:
        sizes.append(len(jobs))

    await index.enqueue_many([{"url": f"/{number}"} for number in range(6)])
    async with working(forge, concurrency=10):
        await eventually(lambda: all_ended(forge, "index"))
    assert sizes == [3, 3]


async def test_a_batch_that_is_not_full_begins_when_its_time_is_over(forge: Forge) -> None:
    sizes: list[int] = []

    @forge.handler(batch=Batch(size=3, within=timedelta(seconds=0.2)))
    async def index(jobs: list[BatchJob[Page]]) -> None:
        sizes.append(len(jobs))

    async with working(forge, concurrency=10):
        job = await index.enqueue(url="/")
        await forge.wait(job.id, timeout=30)
    assert sizes == [1]


async def test_jobs_are_gathered_by_what_their_arguments_say(forge: Forge) -> None:
    calls: list[set[str]] = []

    @forge.handler(batch=Batch(size=2, within=30, by=lambda mail: mail.to))
    async def send(jobs: list[BatchJob[Mail]]) -> None:
        calls.append({job.arguments.to for job in jobs})

    await send.enqueue_many([{"to": "ann"}, {"to": "bob"}, {"to": "bob"}, {"to": "ann"}])
    async with working(forge, concurrency=10):
        await eventually(lambda: all_ended(forge, "send"))
    assert sorted(map(sorted, calls)) == [["ann"], ["bob"]]


async def test_each_job_has_its_own_outcome(forge: Forge) -> None:
    later = (await forge.storage.now()) + timedelta(days=1)

    @forge.handler(batch=Batch(size=5, within=30), max_attempts=3)
    async def index(jobs: list[BatchJob[Page]]) -> list[Any]:
        outcomes: dict[str, Any] = {
            "/good": "fine",
            "/bad": ValueError("no such page"),
            "/gone": Dead("it is gone"),
            "/class": Dead,
            "/later": Reschedule(later),
        }
        return [outcomes[job.arguments.url] for job in jobs]

    await index.enqueue_many([{"url": url} for url in ("/good", "/bad", "/gone", "/later", "/class")])
    async with working(forge, concurrency=10):

        async def are_judged() -> bool:
            return all(
                job.state not in (State.PENDING, State.IN_PROGRESS) for job in await jobs_of(forge, "index")
            )

        await eventually(are_judged)
        good, bad, gone, postponed, of_class = await jobs_of(forge, "index")

    assert (good.state, good.result) == (State.DONE, b'"fine"')
    assert (bad.state, bad.attempt) == (State.RETRYING, 1)
    assert "ValueError: no such page" in (bad.error or "")
    assert (gone.state, gone.error) == (State.DEAD, "it is gone")
    assert of_class.state is State.DEAD
    assert (postponed.state, postponed.reason, postponed.run_at) == (
        State.SCHEDULED,
        Reason.RESCHEDULED,
        later,
    )


class Unseen:
    """Raises when it is looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("unseen")


class UnseenError(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("unseen")


async def test_outcomes_of_a_programs_own_types_leave_the_other_jobs_alone(forge: Forge) -> None:
    @forge.handler(batch=Batch(size=5, within=30), max_attempts=1)
    async def index(jobs: list[BatchJob[Page]]) -> list[Any]:
        of_each = {"/0": "fine", "/1": Unseen(), "/2": UnseenError(), "/3": json.JSONDecodeError, "/4": "too"}
        return [of_each[job.arguments.url] for job in jobs]

    enqueued = await index.enqueue_many([{"url": f"/{number}"} for number in range(5)])
    async with working(forge, concurrency=10), asyncio.timeout(30):
        await eventually_ended(forge, "index")

    found = [await forge.jobs.get(each.id) for each in enqueued]
    assert [job.state for job in found] == [State.DONE, State.DONE, State.DEAD, State.DEAD, State.DONE]
    assert "UnseenError" in str(found[2].error) and "JSONDecodeError" in str(found[3].error)


async def test_when_the_call_fails_each_job_fails_and_is_tried_again_alone(forge: Forge) -> None:
    await forge.queues.set("default", backoff_enabled=False)
    sizes: list[int] = []

    @forge.handler(batch=Batch(size=3, within=30), max_attempts=2)
    async def index(jobs: list[BatchJob[Page]]) -> None:
        sizes.append(len(jobs))
        if any(job.arguments.url == "/poison" for job in jobs):
            raise ValueError("poisoned")

    await index.enqueue_many([{"url": "/1"}, {"url": "/poison"}, {"url": "/3"}])
    async with working(forge, concurrency=10):
        await eventually(lambda: all_ended(forge, "index"))
        one, poison, three = await jobs_of(forge, "index")

    assert sizes == [3, 1, 1, 1]
    assert (one.state, three.state, poison.state) == (State.DONE, State.DONE, State.DEAD)
    assert poison.attempt == 2


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (["one"], "returned 1 outcomes for 2 jobs"),
        ("ab", "a batch of 2 jobs returned a str"),
        ({1: 2}, "a batch of 2 jobs returned a dict"),
    ],
)
async def test_a_call_that_returns_something_else_than_an_outcome_for_each_job_fails_them_all(
    forge: Forge, returned: Any, said: str
) -> None:
    @forge.handler(batch=Batch(size=2, within=30), max_attempts=1)
    async def index(jobs: list[BatchJob[Page]]) -> Any:
        return returned

    await index.enqueue_many([{"url": "/1"}, {"url": "/2"}])
    async with working(forge, concurrency=10):
        await eventually(lambda: all_ended(forge, "index"))
    assert all(said in (job.error or "") for job in await jobs_of(forge, "index"))


async def test_a_call_that_ends_the_process_fails_its_jobs_only(forge: Forge) -> None:
    @forge.handler(batch=Batch(size=2, within=30), max_attempts=1)
    async def index(jobs: list[BatchJob[Page]]) -> None:
        raise SystemExit(3)

    @forge.handler
    async def other() -> None: ...

    await index.enqueue_many([{"url": "/1"}, {"url": "/2"}])
    async with working(forge, concurrency=10):
        await eventually(lambda: all_ended(forge, "index"))
        await forge.wait((await other.enqueue()).id, timeout=30)
    assert {job.state for job in await jobs_of(forge, "index")} == {State.DEAD}
    assert all("SystemExit" in (job.error or "") for job in await jobs_of(forge, "index"))


async def test_a_job_that_is_cancelled_leaves_the_others_of_its_batch(forge: Forge) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    heard: list[bool] = []

    @forge.handler(batch=Batch(size=2, within=30))
    async def index(jobs: list[BatchJob[Page]]) -> None:
        begun.set()
        await go.wait()
        heard.extend(job.ctx.is_cancelled for job in jobs)

    cancelled, other = await index.enqueue_many([{"url": "/1"}, {"url": "/2"}])
    async with working(forge, concurrency=10):
        await begun.wait()
        await forge.jobs.cancel(cancelled.id)
        await eventually(lambda: all_but_one_ended(forge))
        go.set()
        await forge.wait(other.id, timeout=30)
    assert (await forge.jobs.get(cancelled.id)).error == "cancelled by user"
    assert sorted(heard) == [False, True]


async def all_but_one_ended(forge: Forge) -> bool:
    return sum(job.state is State.DEAD for job in await jobs_of(forge, "index")) == 1


async def test_a_call_whose_jobs_have_all_timed_out_is_told_to_stop(forge: Forge) -> None:
    told = asyncio.Event()

    @forge.handler(batch=Batch(size=2, within=0.2), max_attempts=1, timeout=0.3)
    async def index(jobs: list[BatchJob[Page]]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.set()

    await index.enqueue_many([{"url": "/1"}, {"url": "/2"}])
    async with working(forge, concurrency=10):
        await eventually(lambda: all_ended(forge, "index"))
        await told.wait()
    assert all("timed out after 0.3 s" in (job.error or "") for job in await jobs_of(forge, "index"))


async def test_a_job_that_timed_out_is_tried_again_when_the_call_that_goes_on_for_others_has_ended(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "TELL_EVERY", 0.01)
    await forge.queues.set("default", backoff_enabled=False)
    go, calls, at_once = asyncio.Event(), list[list[BatchJob[Page]]](), list[int]()
    works = 0

    @forge.handler(batch=Batch(size=2, within=0.2))
    async def index(jobs: list[BatchJob[Page]]) -> None:
        nonlocal works
        works += 1
        at_once.append(works)
        calls.append(jobs)
        await go.wait()
        works -= 1

    @forge.handler
    async def other() -> None: ...

    hasty = await index.options(timeout=1).enqueue(url="/hasty")
    await index.enqueue(url="/patient")
    async with working(forge, concurrency=10):
        await eventually(lambda: bool(calls) and any(job.ctx.is_cancelled for job in calls[0]))
        for _ in range(10):  # long enough for a handler that ignores to be told to be given up
            await forge.wait((await other.enqueue()).id, timeout=20)
        assert len(calls[0]) == 2
        assert (await forge.jobs.get(hasty.id)).state is State.IN_PROGRESS

        go.set()
        await eventually(lambda: all_ended(forge, "index"))
    assert [[job.ctx.job_id for job in jobs] for jobs in calls[1:]] == [[hasty.id]]
    assert at_once == [1, 1]
    assert (await forge.jobs.get(hasty.id)).attempt == 2


async def test_a_job_that_timed_out_is_dead_at_once_when_it_is_cancelled(forge: Forge) -> None:
    go, calls = asyncio.Event(), list[list[BatchJob[Page]]]()

    @forge.handler(batch=Batch(size=2, within=0.2))
    async def index(jobs: list[BatchJob[Page]]) -> None:
        calls.append(jobs)
        await go.wait()

    hasty = await index.options(timeout=1).enqueue(url="/hasty")
    patient = await index.enqueue(url="/patient")
    async with working(forge, concurrency=10):
        await eventually(lambda: bool(calls) and any(job.ctx.is_cancelled for job in calls[0]))
        await forge.jobs.cancel(hasty.id)
        await eventually(lambda: all_but_one_ended(forge))
        assert (await forge.jobs.get(hasty.id)).error == "cancelled by user"
        go.set()
        await forge.wait(patient.id, timeout=20)


async def test_a_job_that_waits_for_a_call_that_goes_on_for_others_is_told_once(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "TELL_EVERY", 0.05)
    go = asyncio.Event()
    calls: list[list[BatchJob[Page]]] = []

    looks: list[object] = []
    insist = runners.Runners._insist

    def counted(self: runners.Runners, attempt: Attempt) -> None:
        looks.append(attempt)
        insist(self, attempt)

    monkeypatch.setattr(runners.Runners, "_insist", counted)

    @forge.handler(batch=Batch(size=2, within=30), max_attempts=3)
    async def index(jobs: list[BatchJob[Page]]) -> None:
        calls.append(jobs)
        await go.wait()

    hasty = await index.options(timeout=1).enqueue(url="/hasty")
    await index.enqueue(url="/patient")
    async with working(forge, concurrency=10):
        await eventually(lambda: len(looks) >= 5)
        [said] = events.of(BatchGoesOn)
        assert (said.claim.job_id, said.why) == (hasty.id, "timed out")
        go.set()


async def test_a_job_that_times_out_in_its_last_attempt_does_not_wait_for_the_others_of_its_batch(
    forge: Forge,
) -> None:
    go = asyncio.Event()

    @forge.handler(batch=Batch(size=2, within=30), max_attempts=1)
    async def index(jobs: list[BatchJob[Page]]) -> None:
        await go.wait()

    hasty = await index.options(timeout=1).enqueue(url="/hasty")
    patient = await index.enqueue(url="/patient")
    async with working(forge, concurrency=10):
        await eventually(lambda: all_but_one_ended(forge))
        assert "timed out" in ((await forge.jobs.get(hasty.id)).error or "")
        go.set()
        await forge.wait(patient.id, timeout=20)


@pytest.mark.parametrize(
    "options",
    [
        {"retry": Retries(on={TimeoutError: Reschedule(after=0)})},
        {"on_failure": lambda error, attempt: Reschedule(after=0)},
    ],
    ids=["on", "on_failure"],
)
async def test_a_job_that_its_handler_tries_again_after_its_last_attempt_timed_out_waits_for_its_call(
    forge: Forge, options: Any
) -> None:
    go = asyncio.Event()

    @forge.handler(batch=Batch(size=2, within=30), max_attempts=1, **options)
    async def index(jobs: list[BatchJob[Page]]) -> None:
        await go.wait()

    @forge.handler
    async def other() -> None: ...

    hasty = await index.options(timeout=1).enqueue(url="/hasty")
    patient = await index.enqueue(url="/patient")
    async with working(forge, concurrency=10) as worker:
        assert worker.session is not None
        running = worker.session.hand.running
        await eventually(lambda: hasty.id in running)
        attempt = running[hasty.id]
        await eventually(lambda: attempt.stopped is not None)
        await forge.wait((await other.enqueue()).id, timeout=20)
        assert running.get(hasty.id) is attempt
        go.set()
        await forge.wait(patient.id, timeout=20)


async def test_a_call_that_does_not_obey_is_said_to_go_on(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "TELL_EVERY", 0.1)
    go = asyncio.Event()

    @forge.handler(batch=Batch(size=2, within=0.1), max_attempts=1, timeout=0.2)
    async def index(jobs: list[BatchJob[Page]]) -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    await index.enqueue_many([{"url": "/1"}, {"url": "/2"}])
    async with working(forge, concurrency=10):
        await eventually(lambda: all_ended(forge, "index"))
        await eventually(lambda: len(events.of(HandlerStuck)) == 1)
        go.set()


async def test_jobs_that_wait_for_more_go_back_when_the_worker_stops(forge: Forge) -> None:
    @forge.handler(batch=Batch(size=10, within=3600))
    async def index(jobs: list[BatchJob[Page]]) -> None: ...

    await index.enqueue_many([{"url": "/1"}, {"url": "/2"}])
    async with working(forge, grace=0) as worker:
        assert worker.session is not None
        hand = worker.session.hand
        await eventually(lambda: len(hand.running) == 2)
    assert [(job.state, job.attempt) for job in await jobs_of(forge, "index")] == [(State.PENDING, 0)] * 2


async def test_a_job_whose_batch_cannot_be_found_fails_alone(forge: Forge) -> None:
    @forge.handler(batch=Batch(size=2, by=lambda mail: {"ann": 1}[mail.to]), max_attempts=1)
    async def send(jobs: list[BatchJob[Mail]]) -> None: ...

    await send.enqueue_many([{"to": "ann"}, {"to": "bob"}])
    async with working(forge):
        await eventually(lambda: all_ended(forge, "send"))
    ann, bob = await jobs_of(forge, "send")
    assert (ann.state, bob.state) == (State.DONE, State.DEAD)
    assert "KeyError: 'bob'" in (bob.error or "")


async def test_arguments_are_checked_when_a_job_is_enqueued(forge: Forge) -> None:
    @forge.handler(batch=Batch())
    async def index(jobs: list[BatchJob[Page]]) -> None: ...

    for wrong in ({"url": 3}, {}, {"url": "/", "more": 1}):
        with pytest.raises(InvalidPayload, match="it takes url, depth"):
            await index.enqueue(**wrong)


async def test_jobs_without_a_type_take_any_arguments(forge: Forge) -> None:
    seen: list[dict[str, Any]] = []

    @forge.handler(batch=Batch())
    async def index(jobs: list[BatchJob[dict[str, Any]]]) -> None:
        seen.extend(job.arguments for job in jobs)

    async with working(forge):
        await forge.wait((await index.enqueue(a=1, b=[2])).id, timeout=30)
    assert seen == [{"a": 1, "b": [2]}]


async def test_the_handler_of_a_batch_is_called_as_its_function(forge: Forge) -> None:
    @forge.handler(batch=Batch())
    async def index(jobs: list[BatchJob[Page]]) -> int:  # type: ignore[type-arg]
        return len(jobs)

    assert await index([]) == 0


def test_a_batch_that_cannot_be_is_refused() -> None:
    for wrong in (
        {"size": 0},
        {"size": 1001},
        {"size": True},
        {"size": "3"},
        {"within": -1},
        {"within": "1s"},
        {"by": "to"},
    ):
        with pytest.raises(InvalidInput, match="of a batch is"):
            Batch(**wrong)  # type: ignore[arg-type]


def test_a_function_that_can_take_no_batch_is_refused(forge_unopened: Forge) -> None:
    async def of_two(jobs: list[BatchJob[Page]], more: int) -> None: ...
    async def of_none() -> None: ...
    async def of_another(jobs: list[int]) -> None: ...
    async def of_text(jobs: list[BatchJob[str]]) -> None: ...
    async def of_pages(jobs: list[BatchJob[Page]]) -> None: ...
    def plain(jobs: list[BatchJob[Page]]) -> None: ...

    for function in (of_two, of_none, of_another, of_text, plain):
        with pytest.raises(InvalidInput, match=f"{function.__name__}.*allowed is"):
            forge_unopened.handler(batch=Batch())(function)
    with pytest.raises(InvalidInput, match="allowed is less than the timeout of its jobs"):
        forge_unopened.handler(kind="index", batch=Batch(within=2), timeout=1)(of_pages)
    with pytest.raises(InvalidInput, match="batch of handler 'index' is 25, allowed is a Batch"):
        forge_unopened.handler(kind="index", batch=25)(of_none)  # type: ignore[call-overload]


@pytest.fixture
def forge_unopened() -> Forge:
    return Forge("sqlite://:memory:")
