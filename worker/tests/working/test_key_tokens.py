"""Handlers take tokens of a key; who comes too early waits for its turn and holds up nobody."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from forge_jobs import Context, Forge, InvalidInput, Job, KeyLimit, RateLimited, State
from forge_jobs.errors import StorageUnavailable, UnknownScope
from forge_jobs.maintenance import leader
from forge_jobs.model.decision import AwaitsTurn
from forge_jobs.model.job import Reason
from forge_jobs.model.permit import PermitRequest, Taken
from forge_jobs.worker.key_tokens import KeyTokens
from tests.working.eventually import eventually
from tests.working.running import working


async def are(forge: Forge, state: State, count: int) -> bool:
    return len(await forge.jobs.list(state=state)) == count


async def is_in(forge: Forge, job_id: int, state: State) -> bool:
    return (await forge.jobs.get(job_id)).state is state


async def of_user(forge: Forge, user: str) -> list[Job]:
    return [job for job in await forge.jobs.list() if f'"{user}"' in job.payload.decode()]


async def test_a_job_whose_key_has_no_token_waits_for_its_turn_and_others_go_on(forge: Forge) -> None:
    await forge.limits.set("api", capacity=2, per=timedelta(hours=1))

    @forge.handler
    async def call(ctx: Context, user: str) -> None:
        await ctx.rate_limit.acquire("api", key=user, wait=0)

    await call.enqueue_many([{"user": "ann"}] * 4 + [{"user": "bob"}])
    async with working(forge, concurrency=5):
        await eventually(lambda: are(forge, State.DONE, 3))
        await eventually(lambda: are(forge, State.SCHEDULED, 2))
        await forge.wait((await call.enqueue(user="eve")).id, timeout=30)

    first, second = sorted(
        (job for job in await of_user(forge, "ann") if job.state is State.SCHEDULED),
        key=lambda job: job.run_at or datetime.max.replace(tzinfo=UTC),
    )
    assert (first.reason, first.attempt, second.attempt) == (Reason.THROTTLED, 0, 0)
    assert first.run_at is not None
    assert second.run_at is not None
    assert (
        (await forge.jobs.why(first.id))
        .reasons[0]
        .startswith("It waits for tokens of key 'ann' of rate limit 'api'; its next attempt waits until ")
    )
    assert timedelta(minutes=29.9) < second.run_at - first.run_at < timedelta(minutes=30.1)


async def test_a_job_runs_when_its_turn_has_come_whoever_else_waits(forge: Forge) -> None:
    await forge.limits.set("api", capacity=1, refill=2.0)
    began: list[int] = []

    @forge.handler
    async def call(ctx: Context, number: int) -> None:
        await ctx.rate_limit.acquire("api", key="ann", wait=0)
        began.append(number)

    await call.enqueue_many([{"number": number} for number in range(4)])
    async with working(forge, concurrency=1):
        await eventually(lambda: are(forge, State.DONE, 4))
    assert sorted(began) == [0, 1, 2, 3]


@pytest.mark.parametrize("is_cut_short", [False, True])
async def test_jobs_that_wait_for_tokens_come_when_the_limit_becomes_faster(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, is_cut_short: bool
) -> None:
    await forge.limits.set("api", capacity=1, per=3600)

    @forge.handler
    async def call(ctx: Context) -> None:
        await ctx.rate_limit.acquire("api", key="ann")

    async def ends(scope: str) -> None:
        raise StorageUnavailable("the program that changes it ends")

    await call.enqueue_many([{}] * 2)
    async with working(forge):
        await eventually(lambda: are(forge, State.SCHEDULED, 1))

    if is_cut_short:
        with monkeypatch.context() as patch, pytest.raises(StorageUnavailable):
            patch.setattr(forge.storage.permits, "moved", ends)
            await forge.limits.set("api", capacity=1, refill=100)
    else:
        monkeypatch.setattr(leader, "MOVE_EVERY", 3600)
        await forge.limits.set("api", capacity=1, refill=100)

    async with working(forge):
        await eventually(lambda: are(forge, State.DONE, 2))


async def test_the_first_job_that_waits_for_a_key_runs_when_it_is_reset(forge: Forge) -> None:
    await forge.limits.set("api", capacity=1, per=timedelta(hours=1))
    began: list[int] = []

    @forge.handler(limits=[KeyLimit("api", by="user")])
    async def call(user: str, number: int) -> None:
        began.append(number)

    async with working(forge):
        for number in range(3):
            job = await call.enqueue(user="ann", number=number)
            state = State.SCHEDULED if number else State.DONE
            await eventually(lambda job=job, state=state: is_in(forge, job.id, state))
        assert await forge.limits.reset("api", "ann")
        await eventually(lambda: are(forge, State.DONE, 2))
        await forge.limits.empty("api")
        assert await forge.limits.reset("api", "ann")
        await eventually(lambda: are(forge, State.DONE, 3))
    assert began == [0, 1, 2]
    with pytest.raises(UnknownScope):
        await forge.limits.reset("nix", "ann")
    with pytest.raises(InvalidInput):
        await forge.limits.reset("api", "")


async def test_a_handler_may_wait_for_its_tokens(forge: Forge) -> None:
    await forge.limits.set("api", capacity=1, refill=10.0)

    @forge.handler
    async def call(ctx: Context) -> None:
        await ctx.rate_limit.acquire("api", 0.5, key="ann", wait=30)

    await call.enqueue_many([{}] * 6)
    async with working(forge, concurrency=6):
        await eventually(lambda: are(forge, State.DONE, 6))
    assert all(job.attempt == 1 for job in await forge.jobs.list())


async def test_a_plain_handler_takes_tokens_of_a_key_too(forge: Forge) -> None:
    await forge.limits.set("api", capacity=1, per=3600)

    @forge.handler
    def call(ctx: Context) -> None:
        ctx.rate_limit.acquire("api", key="ann", wait=0)

    await call.enqueue_many([{}] * 2)
    async with working(forge):
        await eventually(lambda: are(forge, State.DONE, 1))
        await eventually(lambda: are(forge, State.SCHEDULED, 1))


async def test_many_handlers_ask_with_few_statements(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    await forge.limits.set("api", capacity=1000, refill=1000)
    sizes: list[int] = []
    reserve = forge.storage.permits.reserve

    async def counted(wanted: Any) -> Any:
        sizes.append(len(wanted))
        return await reserve(wanted)

    monkeypatch.setattr(forge.storage.permits, "reserve", counted)

    @forge.handler
    async def call(ctx: Context, user: int) -> None:
        await ctx.rate_limit.acquire("api", key=str(user))

    await call.enqueue_many([{"user": number % 7} for number in range(100)])
    async with working(forge, concurrency=100):
        await eventually(lambda: are(forge, State.DONE, 100))
    assert sum(sizes) == 100
    assert len(sizes) < 50


async def test_the_mistake_of_one_handler_is_no_other_s(forge: Forge) -> None:
    await forge.limits.set("api", capacity=3, refill=100)
    both = asyncio.Barrier(3)

    @forge.handler(max_attempts=1)
    async def call(ctx: Context, scope: str, tokens: float) -> None:
        await both.wait()
        await ctx.rate_limit.acquire(scope, tokens, key="ann")

    good = await call.enqueue(scope="api", tokens=1)
    unknown = await call.enqueue(scope="nix", tokens=1)
    too_many = await call.enqueue(scope="api", tokens=4)
    async with working(forge, concurrency=3):
        await eventually(lambda: are(forge, State.DEAD, 2))
        await forge.wait(good.id, timeout=30)
    assert "There is no rate limit 'nix'" in str((await forge.jobs.get(unknown.id)).error)
    assert "allowed is at most 3" in str((await forge.jobs.get(too_many.id)).error)


async def test_in_an_outage_a_job_that_asks_is_throttled_and_loses_no_attempt(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    await forge.limits.set("api", capacity=3, refill=100)
    reserve = forge.storage.permits.reserve

    async def away(wanted: Any) -> Any:
        monkeypatch.setattr(forge.storage.permits, "reserve", reserve)
        raise StorageUnavailable("it is away")

    monkeypatch.setattr(forge.storage.permits, "reserve", away)

    @forge.handler(max_attempts=1)
    async def call(ctx: Context) -> None:
        await ctx.rate_limit.acquire("api", key="ann")

    job = await call.enqueue()
    async with working(forge):
        await forge.wait(job.id, timeout=30)
    assert (await forge.jobs.get(job.id)).attempt == 1


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_a_handler_declares_by_what_its_jobs_are_limited(forge: Forge, where: str) -> None:
    await forge.limits.set("api", capacity=3, per=3600)
    limit = KeyLimit("api", by="user", cost=lambda user, pages: pages)
    began: list[str] = []

    if where == "loop":

        @forge.handler(kind="call", limits=limit)
        async def call(user: str, pages: int) -> None:
            began.append(user)

    else:

        @forge.handler(kind="call", limits=[limit])
        def plain_call(user: str, pages: int) -> None:
            began.append(user)

    await forge.enqueue_many("call", [{"user": "ann", "pages": 2}] * 2 + [{"user": "bob", "pages": 3}])
    async with working(forge, concurrency=1):
        await eventually(lambda: are(forge, State.DONE, 2))
        await eventually(lambda: are(forge, State.SCHEDULED, 1))
    assert sorted(began) == ["ann", "bob"]
    [waiting] = await forge.jobs.list(state=State.SCHEDULED)
    assert (waiting.reason, waiting.attempt) == (Reason.THROTTLED, 0)


async def test_a_job_with_several_limits_begins_when_all_let_it_and_pays_each_once(forge: Forge) -> None:
    await forge.limits.set("user", capacity=10, per=3600)
    await forge.limits.set("all", capacity=1, refill=3.0)
    began: list[int] = []

    @forge.handler(limits=[KeyLimit("user", by="user"), KeyLimit("all", by=lambda user, number: "everybody")])
    async def call(user: str, number: int) -> None:
        began.append(number)

    await call.enqueue_many([{"user": "ann", "number": number} for number in range(4)])
    async with working(forge, concurrency=4):
        await eventually(lambda: are(forge, State.DONE, 4))
    assert sorted(began) == [0, 1, 2, 3]
    [ann] = await forge.limits.hottest("user")
    assert 3.9 < ann.spent <= 4


async def test_a_job_that_takes_tokens_of_one_key_again_and_again_ends(forge: Forge) -> None:
    await forge.limits.set("api", capacity=1, refill=4.0)
    begun: list[int] = []

    @forge.handler(limits=KeyLimit("api", by="user"))
    async def call(ctx: Context, user: str) -> None:
        begun.append(ctx.attempt)
        await ctx.rate_limit.acquire("api", key=user, wait=0)
        await ctx.rate_limit.acquire("api", key=user, wait=0)

    job = await call.enqueue(user="ann")
    async with working(forge):
        await forge.wait(job.id, timeout=30)
    assert len(begun) <= 3, "it runs anew for a token that is not there yet, and pays none twice"


async def test_a_key_may_be_a_whole_number_or_a_uuid_which_is_written_as_text(forge: Forge) -> None:
    await forge.limits.set("api", capacity=3, per=3600)
    number, user = 7, UUID(int=7)

    @forge.handler(limits=[KeyLimit("api", by="number"), KeyLimit("api", by="user")])
    async def call(number: int, user: UUID) -> None: ...

    job = await call.enqueue(number=number, user=user)
    async with working(forge):
        await forge.wait(job, timeout=30)

    assert {use.key for use in await forge.limits.hottest("api")} == {"7", str(user)}


async def test_a_limit_knows_the_defaults_of_arguments(forge: Forge) -> None:
    await forge.limits.set("api", capacity=10, per=3600)

    @forge.handler(limits=KeyLimit("api", by="user", cost=lambda user, words: words))
    async def call(user: str = "ann", words: int = 3) -> None: ...

    async with working(forge):
        await forge.wait((await call.enqueue()).id, timeout=30)
    [ann] = await forge.limits.hottest("api")
    assert (ann.key, round(ann.spent, 1)) == ("ann", 3.0)


async def test_a_limit_that_cannot_be_declared_is_refused(forge: Forge) -> None:
    async def call(user: str) -> None: ...

    for limits, said in (
        ([KeyLimit("api", by="usr")], "by 'usr', allowed is one of its arguments: it takes user"),
        ("api", "allowed is a list of KeyLimit"),
        ([3], "allowed is a list of KeyLimit"),
    ):
        with pytest.raises(InvalidInput, match=said):
            forge.handler(kind="call", limits=limits)(call)  # type: ignore[call-overload]
    for wrong in (
        {"scope": "a b", "by": "x"},
        {"scope": "api", "by": 3},
        {"scope": "api", "by": "x", "cost": 0},
    ):
        with pytest.raises(InvalidInput, match="allowed"):
            KeyLimit(**wrong)  # type: ignore[arg-type]


async def test_a_key_that_cannot_be_fails_its_own_job(forge: Forge) -> None:
    await forge.limits.set("api", capacity=3, per=3600)

    @forge.handler(limits=KeyLimit("api", by="user"), max_attempts=1)
    async def call(user: str | None) -> None: ...

    await call.enqueue(user=None)
    await call.enqueue(user="ann")
    async with working(forge):
        await eventually(lambda: are(forge, State.DEAD, 1))
        await eventually(lambda: are(forge, State.DONE, 1))
    [dead] = await forge.jobs.list(state=State.DEAD)
    assert "The key of rate limit 'api' is None" in str(dead.error)


async def test_programs_reserve_settle_and_see_the_hottest_keys(forge: Forge) -> None:
    await forge.limits.set("api", capacity=10, per=3600)

    permit = await forge.limits.reserve("api", "ann", 8, within=0)
    with pytest.raises(RateLimited, match="no token for 'ann'"):
        await forge.limits.reserve("api", "ann", 8, within=0)
    assert await forge.limits.settle(permit, 1.5)
    assert not await forge.limits.settle(permit, 0), "it is settled already"
    await forge.limits.reserve("api", "ann", 8, within=0)
    await forge.limits.reserve("api", "bob")
    later = await forge.limits.reserve("api", "ann", 10)

    assert later.wait > timedelta(minutes=50)
    ann, bob = await forge.limits.hottest("api")
    assert (ann.key, round(ann.spent, 1), bob.key, round(bob.spent, 1)) == ("ann", 19.5, "bob", 1.0)


@pytest.mark.parametrize("cost", [0, -1, "3", None, True, float("nan"), float("inf")])
async def test_a_cost_that_cannot_be_is_refused(forge: Forge, cost: Any) -> None:
    await forge.limits.set("api", capacity=10, per=3600)

    with pytest.raises(InvalidInput, match="allowed is a number of more than 0"):
        await forge.limits.reserve("api", "ann", cost)
    assert await forge.limits.hottest("api") == []


async def test_only_what_was_reserved_can_be_settled(forge: Forge) -> None:
    await forge.limits.set("api", capacity=10, per=3600)
    [of_job] = await forge.storage.permits.reserve([PermitRequest("api", "ann")])

    for permit in (None, "api", of_job):
        with pytest.raises(InvalidInput, match=r"allowed is one that forge\.limits\.reserve has returned"):
            await forge.limits.settle(permit, 0)  # type: ignore[arg-type]


async def test_unknown_limits_and_keys_that_cannot_be_are_refused(forge: Forge) -> None:
    await forge.limits.set("api", capacity=10, per=3600)

    with pytest.raises(UnknownScope):
        await forge.limits.reserve("nix", "ann")
    with pytest.raises(UnknownScope):
        await forge.limits.hottest("nix")
    for key in ("", "x" * 513, 3):
        with pytest.raises(InvalidInput, match="The key is"):
            await forge.limits.reserve("api", key)  # type: ignore[arg-type]


async def test_whoever_waits_for_an_answer_when_the_worker_ends_is_told(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def never(wanted: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(forge.storage.permits, "reserve", never)
    tokens = KeyTokens(forge.storage.permits, forge.telemetry)
    waiting = asyncio.create_task(tokens.take([("api", "ann", 1.0)], timedelta(0), 7, Taken()))
    await asked.wait()

    await tokens.close()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 30)


LONG = 10 * 365 * 86_400  # seconds in which next to nothing flows back


async def test_a_job_of_which_one_limit_is_not_there_pays_the_others_once_however_often_it_is_tried(
    forge: Forge,
) -> None:
    await forge.limits.set("user", capacity=10, per=LONG)
    await forge.queues.set("default", backoff_enabled=False)

    @forge.handler(limits=[KeyLimit("user", by="user"), KeyLimit("model", by="user")], max_attempts=50)
    async def call(user: str) -> None: ...

    job = await call.enqueue(user="ann")
    async with working(forge):
        await eventually(lambda: has_attempts(forge, job.id, 4))
        await forge.limits.set("model", capacity=10, per=LONG)
        await forge.wait(job.id, timeout=30)

    assert [round((await forge.limits.hottest(scope))[0].spent) for scope in ("user", "model")] == [1, 1]


async def has_attempts(forge: Forge, job_id: int, attempts: int) -> bool:
    return (await forge.jobs.get(job_id)).attempt >= attempts


async def test_a_handler_that_asks_again_in_one_run_pays_for_what_it_got_once(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    await forge.limits.set("user", capacity=10, per=LONG)
    await forge.limits.set("model", capacity=1, per=LONG)
    tokens, both = (
        KeyTokens(forge.storage.permits, forge.telemetry),
        [("user", "ann", 1.0), ("model", "ann", 1.0)],
    )
    await forge.limits.reserve("model", "ann")
    for _ in range(3):
        with pytest.raises(AwaitsTurn):
            await tokens.take(both, timedelta(0), 7, Taken())
    await forge.limits.set("model", capacity=10, refill=100)
    await eventually(lambda: is_free(forge, "model"))

    await tokens.take(both, timedelta(0), 7, Taken())

    assert [use.key for use in await forge.limits.hottest("user") if round(use.spent) == 1] == ["ann"]
    assert not tokens.advances


async def is_free(forge: Forge, scope: str) -> bool:
    return not await forge.limits.hottest(scope)


async def test_a_run_takes_tokens_of_one_key_however_often_and_the_last_are_kept(forge: Forge) -> None:
    await forge.limits.set("api", capacity=40_000, per=LONG)
    tokens, taken = KeyTokens(forge.storage.permits, forge.telemetry), Taken()
    used = (
        PermitRequest("api", "ann", 1.0, 7),
        (await forge.storage.permits.reserve([PermitRequest("api", "ann")]))[0],
    )
    taken.add([used] * 33_000)

    await tokens.take([("api", "ann", 1.0)], timedelta(0), 7, taken)

    [*_, (last, _)] = taken.last
    assert (last.take, len(taken.last)) == (33_001, 1000)


async def test_a_handler_has_its_tokens_though_somebody_cancels_the_task_that_asks(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    await forge.limits.set("api", capacity=1, per=timedelta(hours=1))
    reserve = forge.storage.permits.reserve

    async def cancelled(wanted: Any) -> Any:
        monkeypatch.setattr(forge.storage.permits, "reserve", reserve)
        for task in asyncio.all_tasks():
            if task.get_name() == "tokens of keys":
                task.cancel()
        await asyncio.Event().wait()

    monkeypatch.setattr(forge.storage.permits, "reserve", cancelled)
    tokens = KeyTokens(forge.storage.permits, forge.telemetry)

    async with asyncio.timeout(20):
        await tokens.take([("api", "ann", 1.0)], timedelta(0), 1, Taken())
