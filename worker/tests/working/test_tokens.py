"""Rate limits as handlers use them."""

import asyncio
from typing import Any

import pytest

from forge_jobs import Context, Forge, InvalidInput, State, Throttled, UnknownScope, Worker
from forge_jobs.errors import StorageUnavailable
from forge_jobs.model.rate_limit import Lease
from forge_jobs.telemetry.events import Event, TokensLeased
from forge_jobs.worker import tokens as leased
from forge_jobs.worker.tokens import LeasedTokens
from tests.working.running import working


@pytest.fixture
async def tokens(forge: Forge) -> LeasedTokens:
    return LeasedTokens(forge.storage.tokens, forge.storage.permits, forge.telemetry)


async def spent(tokens: LeasedTokens, scope: str, tries: int) -> int:
    """How many of `tries` at once got a token."""
    answers = await asyncio.gather(
        *(tokens.acquire(scope, wait=0) for _ in range(tries)), return_exceptions=True
    )
    assert all(answer is None or isinstance(answer, Throttled) for answer in answers)
    return sum(answer is None for answer in answers)


async def test_no_more_tokens_are_spent_than_the_bucket_holds(forge: Forge, tokens: LeasedTokens) -> None:
    await forge.limits.set("mail", capacity=10, refill=0.0001)
    assert await spent(tokens, "mail", 50) == 10
    await tokens.close()


async def test_several_processes_never_spend_one_token_too_many(forge: Forge) -> None:
    await forge.limits.set("mail", capacity=40, refill=0.0001)
    many = [LeasedTokens(forge.storage.tokens, forge.storage.permits, forge.telemetry) for _ in range(10)]
    got = await asyncio.gather(*(spent(each, "mail", 10) for each in many))
    assert sum(got) == 40
    for each in many:
        await each.close()


async def test_a_token_that_comes_soon_is_waited_for(forge: Forge, tokens: LeasedTokens) -> None:
    await forge.limits.set("mail", capacity=1, refill=20)
    await tokens.acquire("mail")
    await tokens.acquire("mail", wait=5)
    await tokens.close()


async def test_a_emptied_bucket_gives_nothing_to_anybody(forge: Forge, tokens: LeasedTokens) -> None:
    await forge.limits.set("mail", capacity=10, refill=0.0001)
    other = LeasedTokens(forge.storage.tokens, forge.storage.permits, forge.telemetry)
    await tokens.acquire("mail")

    await other.empty("mail")
    tokens.void("mail")

    assert await spent(tokens, "mail", 5) == 0
    assert await spent(other, "mail", 5) == 0
    await tokens.close()
    await other.close()


async def test_an_unknown_scope_is_a_clear_error(tokens: LeasedTokens) -> None:
    with pytest.raises(UnknownScope, match="'nowhere'"):
        await tokens.acquire("nowhere")


async def test_more_tokens_than_the_bucket_can_hold_are_a_mistake_and_no_wait(
    forge: Forge, tokens: LeasedTokens
) -> None:
    await forge.limits.set("mail", capacity=10, refill=1000)

    wanted = await asyncio.gather(
        tokens.acquire("mail", 11, wait=5), tokens.acquire("mail", 10, wait=5), return_exceptions=True
    )

    assert wanted[1] is None  # who asks for what there can be is not held up
    assert isinstance(wanted[0], InvalidInput)
    assert str(wanted[0]) == "tokens is 11, allowed are at most 10, the capacity of rate limit 'mail'."
    await tokens.close()


async def test_tokens_are_leased_in_slices(forge: Forge, tokens: LeasedTokens) -> None:
    leases: list[Event] = []
    forge.telemetry.subscribe(lambda event: leases.append(event) if isinstance(event, TokensLeased) else None)
    await forge.limits.set("mail", capacity=10_000, refill=1)

    for _ in range(40):
        await asyncio.gather(*(tokens.acquire("mail") for _ in range(25)))

    assert len(leases) < 60  # for 1000 tokens
    await tokens.close()


async def test_unspent_tokens_go_back(forge: Forge, tokens: LeasedTokens) -> None:
    await forge.limits.set("mail", capacity=1000, refill=0.0001)
    for _ in range(20):
        await asyncio.gather(*(tokens.acquire("mail") for _ in range(10)))
    await tokens.close()

    [limit] = await forge.limits.list()
    assert limit.tokens == pytest.approx(800, abs=1)


async def test_a_handler_without_a_token_is_throttled_and_costs_no_attempt(forge: Forge) -> None:
    @forge.handler
    async def send(ctx: Context) -> None:
        await ctx.rate_limit.acquire("mail", wait=0)

    await forge.limits.set("mail", capacity=1, refill=0.0001)
    first, second = await forge.enqueue_many("send", [{}, {}])
    await Worker(forge, queues=["default"], concurrency=1).run(until_empty=True)

    assert (await forge.jobs.get(first.id)).state is State.DONE
    waiting = await forge.jobs.get(second.id)
    assert (waiting.state, waiting.attempt) == (State.SCHEDULED, 0)


@pytest.mark.parametrize("by", ["this process", "another process"])
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_lease_that_was_on_its_way_when_the_bucket_was_emptied_is_worth_nothing(
    forge: Forge, tokens: LeasedTokens, monkeypatch: pytest.MonkeyPatch, by: str, is_first: bool
) -> None:
    await forge.limits.set("mail", capacity=10, refill=0.0001)
    if not is_first:
        await tokens.acquire("mail")
        await tokens.close()
        await tokens.acquire("mail")
        tokens.void("mail")
    lease = forge.storage.tokens.lease
    leased, may_arrive = asyncio.Event(), asyncio.Event()

    async def late(scope: str, count: int) -> Lease:
        answer = await lease(scope, count)
        leased.set()
        await may_arrive.wait()
        return answer

    monkeypatch.setattr(forge.storage.tokens, "lease", late)
    waiting = asyncio.create_task(tokens.acquire("mail", 4, wait=0))
    await leased.wait()
    if by == "this process":
        await tokens.empty("mail")
    else:
        await forge.storage.tokens.empty("mail")
        tokens.void("mail")
    may_arrive.set()

    with pytest.raises(Throttled):
        await waiting
    await tokens.close()


async def test_whoever_waits_for_a_token_hears_of_any_error(
    forge: Forge, tokens: LeasedTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(scope: str, count: int) -> Lease:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(forge.storage.tokens, "lease", broken)
    async with asyncio.timeout(30):
        with pytest.raises(RuntimeError):
            await tokens.acquire("mail")
    await tokens.close()


@pytest.fixture
def away(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list; for each number in it, the database does not answer once when tokens are asked for."""
    monkeypatch.setattr(leased, "SHORTEST_RETRY", 0.1)
    times: list[int] = []
    lease = forge.storage.tokens.lease

    async def lease_later(*given: Any) -> Lease:
        if times:
            times.pop()
            raise StorageUnavailable("The database cannot be reached.")
        return await lease(*given)

    monkeypatch.setattr(forge.storage.tokens, "lease", lease_later)
    return times


async def test_tokens_are_waited_for_while_the_database_is_away(
    forge: Forge, tokens: LeasedTokens, away: list[int]
) -> None:
    await forge.limits.set("mail", capacity=10, refill=1)
    away.extend(range(3))

    await tokens.acquire("mail", wait=30)

    assert not away
    await tokens.close()


async def test_a_job_that_cannot_wait_for_tokens_while_the_database_is_away_loses_no_attempt(
    forge: Forge, away: list[int]
) -> None:
    await forge.limits.set("mail", capacity=10, refill=1)
    attempts: list[int] = []

    @forge.handler(max_attempts=1)
    async def send(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        await ctx.rate_limit.acquire("mail", wait=0)

    away.append(1)
    job = await send.enqueue()
    async with working(forge):
        await forge.wait(job, timeout=30)

    assert attempts == [1, 1]
