"""What handlers and callers say of the jobs that are the same."""

import asyncio
from datetime import date, timedelta
from typing import Any

import pytest

from forge_jobs import Context, Forge, InvalidInput, NotUnique, Reschedule, State, Unique, Worker
from forge_jobs.model.job import Enqueued
from tests.storage.clock import Clock
from tests.working.eventually import eventually

HOUR = timedelta(hours=1)
DAY = date(2026, 1, 1)


async def run(forge: Forge) -> None:
    async with asyncio.timeout(30):
        await Worker(forge, queues=["default"]).run(until_empty=True)


async def test_jobs_are_the_same_by_the_arguments_that_are_named(forge: Forge) -> None:
    @forge.handler(unique=Unique(by=("user", "day")))
    async def report(user: int, day: date, pages: int = 1) -> None: ...

    first = await report.enqueue(user=7, day=DAY)
    second = await report.enqueue(user=7, day=DAY, pages=3)
    third = await report.enqueue(user=8, day=DAY)

    assert second == Enqueued(first.id, duplicate=True, payload_differs=True)
    assert third.is_new


async def test_all_arguments_count_when_none_is_named_and_so_do_their_defaults(forge: Forge) -> None:
    @forge.handler(unique=Unique())
    async def report(user: int, pages: int = 1, day: date = DAY) -> None: ...

    first = await report.enqueue(user=7)
    answers = await report.enqueue_many(
        [{"user": 7, "pages": 1}, {"pages": 1, "user": 7, "day": DAY}, {"user": 7, "pages": 2}]
    )

    assert [answer.id == first.id for answer in answers] == [True, True, False]


async def test_a_call_says_more_than_its_handler(forge: Forge) -> None:
    @forge.handler(unique=Unique(by="user"))
    async def report(user: int, pages: int = 1) -> None: ...

    first = await report.enqueue(user=7)
    by_all = report.options(unique=Unique())

    assert (await by_all.enqueue(user=7, pages=2)).is_new
    assert (await report.options(key="mine").enqueue(user=7)).is_new
    assert (await forge.enqueue("report", {"user": 7})).id == first.id


async def test_unique_holds_until_the_job_has_ended(forge: Forge) -> None:
    @forge.handler(unique=Unique())
    async def report(user: int) -> None: ...

    first = await report.enqueue(user=7)
    await run(forge)

    assert (await report.enqueue(user=7)).id != first.id


async def test_within_a_time_one_is_enqueued(forge: Forge, clock: Clock) -> None:
    @forge.handler(unique=Unique(by="user", within=3600))
    async def report(user: int) -> None: ...

    first = await report.enqueue(user=7)
    await run(forge)
    second = await report.enqueue(user=7)
    await clock.advance(hours=1)

    assert second.id == first.id
    assert (await report.enqueue(user=7)).is_new


@pytest.mark.parametrize("within", [None, HOUR])
async def test_a_conflict_may_be_raised(forge: Forge, within: timedelta | None) -> None:
    unique = Unique(within=within, on_conflict="raise")
    first = await forge.enqueue("report", {"user": 7}, unique=unique)

    with pytest.raises(NotUnique) as refused:
        await forge.enqueue("report", {"user": 7}, unique=unique)
    with pytest.raises(NotUnique):
        await forge.enqueue_many("report", [{"user": 8}, {"user": 7}], unique=unique)

    assert (refused.value.kind, refused.value.job_id) == ("report", first.id)
    assert len(await forge.jobs.list()) == 1


@pytest.mark.parametrize("within", [None, HOUR])
async def test_a_conflict_may_replace_what_waits(forge: Forge, within: timedelta | None) -> None:
    ran = []

    @forge.handler(unique=Unique(by="user", within=within, on_conflict="replace"))
    async def report(user: int, pages: int) -> None:
        ran.append(pages)

    answers = [await report.enqueue(user=7, pages=pages) for pages in (1, 2, 3)]
    await run(forge)

    assert [answer.replaced for answer in answers] == [False, True, True]
    assert ran == [3]


async def test_a_debounced_job_starts_once_with_the_last_word(forge: Forge, clock: Clock) -> None:
    began = await clock.freeze()

    @forge.handler(unique=Unique(by="page", debounce=60, max_wait=150))
    async def index(page: int, version: int) -> None: ...

    for version in range(3):
        answer = await index.enqueue(page=1, version=version)
        await clock.advance(seconds=50)

    job = await forge.jobs.get(answer)
    assert (job.state, job.payload) == (State.SCHEDULED, b'{"page":1,"version":2}')
    assert job.run_at == began + timedelta(seconds=150)


async def test_a_leading_debounce_starts_at_once_and_leaves_the_others_out(
    forge: Forge, clock: Clock
) -> None:
    ran = []

    @forge.handler(unique=Unique(by="page", debounce=60, edge="leading"))
    async def index(page: int, version: int) -> None:
        ran.append(version)

    for version in range(3):
        await index.enqueue(page=1, version=version)
        await run(forge)
        await clock.advance(seconds=50)
    await clock.advance(seconds=10)
    await index.enqueue(page=1, version=9)
    await run(forge)

    assert ran == [0, 9]


async def test_while_one_runs_the_latest_waits_until_it_has_ended(forge: Forge) -> None:
    ran: list[int] = []
    began, go_on = asyncio.Event(), asyncio.Event()

    @forge.handler(unique=Unique(by="page", latest=True))
    async def index(page: int, version: int) -> None:
        ran.append(version)
        began.set()
        if version == 1:
            await go_on.wait()
            raise ValueError("the newer one will do")

    first = await index.enqueue(page=1, version=1)
    worker = asyncio.create_task(run(forge))
    await began.wait()
    answers = [await index.enqueue(page=1, version=version) for version in (2, 3, 4)]
    await eventually(
        lambda: _is_blocked(forge, answers[0].id)
    )  # keyed jobs join their group when they are due
    other = await index.enqueue(page=2, version=9)
    await forge.wait(other, timeout=30)
    why = (await forge.jobs.why(answers[0])).reasons[0]
    go_on.set()
    await worker

    assert why.startswith(
        f"Of jobs that are the same one runs at a time, and the latest waits: job {first.id} is in progress for "
    )
    assert answers[0].supersedes == first.id and len({answer.id for answer in answers}) == 1
    assert ran == [1, 9, 4]
    assert (await forge.jobs.get(first)).state is State.DEAD


async def _is_blocked(forge: Forge, job_id: int) -> bool:
    return (await forge.jobs.get(job_id)).state is State.BLOCKED


async def test_a_debounced_job_may_wait_for_the_one_that_runs_too(forge: Forge) -> None:
    ran: list[int] = []
    both = asyncio.Event()

    @forge.handler(unique=Unique(by="page", debounce=0.01, latest=True))
    async def index(page: int, version: int) -> None:
        ran.append(version)
        if version == 1:
            await index.enqueue(page=1, version=2)
        else:
            both.set()

    await index.enqueue(page=1, version=1)
    worker = asyncio.create_task(Worker(forge, queues=["default"]).run())
    async with asyncio.timeout(30):
        await both.wait()
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)

    assert ran == [1, 2]


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (
            {"within": 5, "latest": True},
            "Unique.within and Unique.latest are both given, allowed is one of them.",
        ),
        (
            {"latest": True, "on_conflict": "raise"},
            "Unique.on_conflict is 'raise' and latest is given, allowed is 'return' with it.",
        ),
        (
            {"debounce": 5, "latest": True, "edge": "leading"},
            "Unique.edge is 'leading' and latest is given, allowed is 'trailing' with it.",
        ),
        ({"by": ()}, "Unique.by is (), allowed are names of arguments, or None for all."),
        (
            {"on_conflict": "retrun"},
            "Unique.on_conflict is 'retrun', allowed is one of return, raise, replace.",
        ),
        ({"within": 0}, "Unique.within is 0:00:00, allowed is more than zero."),
        ({"max_wait": 5}, "Unique.max_wait is given and debounce is not, allowed is both."),
        ({"edge": "leading"}, "Unique.edge is given and debounce is not, allowed is both."),
        (
            {"within": 5, "debounce": 5},
            "Unique.within and Unique.debounce are both given, allowed is one of them.",
        ),
        (
            {"debounce": 5, "on_conflict": "raise"},
            "Unique.on_conflict is 'raise' and debounce is given, allowed is 'return' with it.",
        ),
        ({"debounce": 5, "edge": "both"}, "Unique.edge is 'both', allowed is one of leading, trailing."),
        (
            {"debounce": 5, "max_wait": 4},
            "Unique.max_wait is 0:00:04 and debounce is 0:00:05, allowed is at least that.",
        ),
    ],
)
def test_what_is_no_uniqueness_is_refused(facts: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Unique(**facts)

    assert str(refused.value) == sentence


def test_a_handler_is_refused_whose_arguments_are_named_wrongly() -> None:
    forge = Forge()

    async def send(to: str, subject: str) -> None: ...

    async def takes_all(**more: int) -> None: ...

    forge.handler(unique=Unique(by="anything"))(takes_all)
    for declared, sentence in (
        (
            {"unique": Unique(by="usr")},
            "unique names the argument 'usr', which send does not have; it takes to, subject.",
        ),
        ({"unique": "user"}, "unique is 'user', allowed is a Unique."),
        (
            {"unique": Unique(), "singleton": True},
            "unique and singleton are both given, allowed is one of them.",
        ),
    ):
        with pytest.raises(InvalidInput) as refused:
            forge.handler(**declared)(send)  # type: ignore[arg-type]
        assert str(refused.value) == sentence


async def test_options_that_exclude_each_other_are_refused_and_nothing_is_written(forge: Forge) -> None:
    @forge.handler(unique=Unique(debounce=5))
    async def index(page: int = 1) -> None: ...

    @forge.handler(singleton=True)
    async def sync() -> None: ...

    for enqueue, sentence in (
        (
            lambda: forge.enqueue("work", key="k", unique=Unique()),
            "key and unique are both given, allowed is one of them.",
        ),
        (
            lambda: index.options(delay=5).enqueue(),
            "delay and a debounce are both given, allowed is one of them.",
        ),
        (
            lambda: index.options(unique=Unique(by="pag")).enqueue(),
            "unique names the argument 'pag', which index does not have; it takes page.",
        ),
        (
            lambda: forge.enqueue("work", {"user": 7}, unique=Unique(by="usr")),
            "unique names the argument 'usr', which the payload of 'work' does not have.",
        ),
        (
            lambda: sync.options(key="k").enqueue(),
            "Handler 'sync' is a singleton and key is given, allowed is one of them.",
        ),
        (
            lambda: sync.options(unique=Unique()).enqueue(),
            "Handler 'sync' is a singleton and unique is given, allowed is one of them.",
        ),
        (lambda: index.ensure(), "Handler 'index' is no singleton, allowed is one with singleton=True."),
    ):
        with pytest.raises(InvalidInput) as refused:
            await enqueue()
        assert str(refused.value) == sentence

    assert await forge.jobs.list() == []


async def test_a_singleton_lives_once_and_for_ever_by_rescheduling_itself(forge: Forge) -> None:
    attempts = []

    @forge.handler(singleton=True)
    async def sync(ctx: Context, shop: str = "main") -> str:
        attempts.append((ctx.attempt, ctx.max_attempts))
        if len(attempts) in (2, 3):
            raise ValueError("the other side has gone")
        if len(attempts) < 5:
            raise Reschedule(after=HOUR)
        return "closed"

    first = await sync.ensure()
    again = await asyncio.gather(*(sync.ensure() for _ in range(5)), sync.enqueue(shop="other"))
    assert {answer.id for answer in again} == {first.id}

    await run(forge)
    for _ in range(4):
        await forge.jobs.run_now(first)
        await run(forge)

    assert attempts == [(1, 0), (1, 0), (2, 0), (3, 0), (1, 0)]
    assert (await forge.jobs.get(first)).state is State.DONE
    assert (await sync.ensure()).is_new


async def test_a_job_that_is_rescheduled_now_runs_again_as_if_for_the_first_time(forge: Forge) -> None:
    attempts = []

    @forge.handler(max_attempts=2)
    async def page(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        if len(attempts) < 4:
            raise Reschedule()

    job = await page.enqueue()
    await run(forge)

    assert attempts == [1, 1, 1, 1]
    assert (await forge.jobs.get(job)).state is State.DONE


def test_a_moment_and_a_time_to_wait_exclude_each_other() -> None:
    from datetime import UTC, datetime

    with pytest.raises(InvalidInput, match="Reschedule is given at and after, allowed is one of them"):
        Reschedule(datetime.now(UTC), after=5)
