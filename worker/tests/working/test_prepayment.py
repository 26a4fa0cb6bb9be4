"""The tokens of keys that jobs need to begin are taken when the jobs are claimed, in one statement for all."""

import asyncio
from datetime import timedelta
from enum import Enum
from typing import Any

import pytest

from forge_jobs import Forge, KeyLimit, State, Worker
from forge_jobs.errors import StorageUnavailable
from forge_jobs.model.decision import AwaitsTurn
from forge_jobs.storage.interface.permits import Permits
from forge_jobs.worker import key_tokens
from forge_jobs.worker.key_tokens import KeyTokens
from tests.working.eventually import eventually
from tests.working.running import working

LONG = 10 * 365 * 86_400  # seconds in which next to nothing flows back


@pytest.fixture(autouse=True)
async def api(forge: Forge) -> None:
    await forge.limits.set("api", capacity=1000, per=LONG)


async def spent(forge: Forge) -> dict[str, int]:
    """Return how many tokens of each key are spent."""
    return {
        use.key: round(use.spent) for use in await forge.limits.hottest("api", limit=1000) if use.spent > 0.5
    }


@pytest.fixture
def statements(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests each statement had."""
    sizes: list[int] = []
    reserve = forge.storage.permits.reserve

    async def counted(wanted: Any) -> Any:
        sizes.append(len(wanted))
        return await reserve(wanted)

    monkeypatch.setattr(forge.storage.permits, "reserve", counted)
    return sizes


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_jobs_that_are_claimed_together_pay_together(
    forge: Forge, statements: list[int], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    claim = forge.storage.claims.claim
    hands = 0

    async def counted(*given: Any, **options: Any) -> Any:
        nonlocal hands
        claims = await claim(*given, **options)
        hands += bool(claims)
        return claims

    monkeypatch.setattr(forge.storage.claims, "claim", counted)
    ran: list[int] = []
    limits = [KeyLimit("api", by="user"), KeyLimit("api", by="number", cost=2)]
    if where == "loop":

        @forge.handler(kind="call", limits=limits)
        async def call(user: str, number: int) -> None:
            ran.append(number)

    else:

        @forge.handler(kind="call", limits=limits)
        def plain_call(user: str, number: int) -> None:
            ran.append(number)

    await forge.enqueue_many("call", [{"user": "ann", "number": number} for number in range(200)])
    async with asyncio.timeout(90):
        await Worker(forge, queues=["default"], concurrency=50).run(until_empty=True)

    assert sorted(ran) == list(range(200))
    assert sum(statements) == 400
    assert len(statements) <= hands
    assert await spent(forge) == {"ann": 200, **{str(number): 2 for number in range(200)}}


async def test_each_job_pays_once_also_when_it_is_handed_back_before_it_begins(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_tokens, "FRESH", 0.05)

    @forge.handler(limits=KeyLimit("api", by="user"))
    async def call(user: int) -> None:
        await asyncio.sleep(0)

    await call.enqueue_many([{"user": number % 10} for number in range(600)])
    async with working(forge, concurrency=5):
        for _ in range(5):
            await forge.queues.pause("default")
            await forge.queues.resume("default")
        await eventually(lambda: _all_done(forge, 600))
    assert await spent(forge) == {str(user): 60 for user in range(10)}


async def _all_done(forge: Forge, count: int) -> bool:
    [counts] = await forge.jobs.counts()
    return counts.done == count


async def test_tokens_of_a_job_that_does_not_begin_are_there_again(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_tokens, "FRESH", 0.01)
    tokens = KeyTokens(forge.storage.permits, forge.telemetry)
    for job_id in range(5):
        tokens.take_ahead(job_id, [("api", "ann", 2.0), ("api", "bob", 1.0)])

    await eventually(lambda: not tokens._advances and not tokens._unused)
    await eventually(lambda: _nothing_spent(forge))
    await tokens.close()


async def _nothing_spent(forge: Forge) -> bool:
    return not await spent(forge)


async def test_tokens_that_nobody_has_used_are_there_again_when_the_worker_ends(forge: Forge) -> None:
    tokens = KeyTokens(forge.storage.permits, forge.telemetry)
    tokens.take_ahead(1, [("api", "ann", 2.0)])
    tokens.take_ahead(2, [("api", "ann", 2.0)])
    await tokens.take([("api", "ann", 2.0)], timedelta(0), 2, [])

    await tokens.close()

    assert await spent(forge) == {"ann": 2}


async def test_tokens_of_a_bucket_that_was_emptied_meanwhile_let_no_job_begin(forge: Forge) -> None:
    await forge.limits.set("other", capacity=10, per=LONG)
    tokens = KeyTokens(forge.storage.permits, forge.telemetry)
    tokens.take_ahead(1, [("api", "ann", 1.0), ("other", "ann", 1.0)])
    await eventually(lambda: tokens._advances[1].is_answered)
    await forge.limits.empty("api")
    tokens.void("api")

    with pytest.raises(AwaitsTurn):
        await tokens.take([("api", "ann", 1.0)], timedelta(0), 1, [])
    await tokens.close()
    assert [use.key for use in await forge.limits.hottest("other") if use.spent > 0.5] == []


async def test_a_job_that_begins_too_late_takes_its_tokens_anew(
    forge: Forge, statements: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = KeyTokens(forge.storage.permits, forge.telemetry)
    tokens.take_ahead(1, [("api", "ann", 2.0)])
    await eventually(lambda: tokens._advances[1].is_answered)
    monkeypatch.setattr(key_tokens, "FRESH", -1.0)
    await tokens.take([("api", "ann", 2.0)], timedelta(0), 1, [])
    await tokens.close()

    assert statements == [1, 1]
    assert await spent(forge) == {"ann": 2}


class Colour(str, Enum):  # noqa: UP042  its text is not its value
    RED = "red"


async def test_a_job_pays_for_the_key_that_its_handler_sees(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_tokens, "FRESH", 0.01)

    @forge.handler(limits=KeyLimit("api", by="colour"))
    async def call(colour: Colour) -> None: ...

    job = await call.enqueue(colour=Colour.RED)
    async with working(forge):
        await forge.wait(job.id, timeout=30)
        await eventually(lambda: _is_spent(forge, {str(Colour.RED): 1}))


async def _is_spent(forge: Forge, tokens: dict[str, int]) -> bool:
    return await spent(forge) == tokens


async def test_a_job_with_an_argument_that_cannot_be_a_key_fails_by_itself(forge: Forge) -> None:
    @forge.handler(limits=KeyLimit("api", by="user"), max_attempts=1)
    async def call(user: Any) -> None: ...

    jobs = [await call.enqueue(user=user) for user in (None, "ann", [1], "bob")]
    async with working(forge):
        for job in (jobs[1], jobs[3]):
            await forge.wait(job.id, timeout=30)
        await eventually(lambda: _are_dead(forge, 2))
    assert await spent(forge) == {"ann": 1, "bob": 1}


async def _are_dead(forge: Forge, count: int) -> bool:
    return len(await forge.jobs.list(state=State.DEAD)) == count


async def test_a_job_whose_tokens_cannot_be_asked_for_is_throttled_when_it_begins(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = forge.storage.permits.reserve

    async def away(wanted: Any) -> Any:
        monkeypatch.setattr(forge.storage.permits, "reserve", reserve)
        raise StorageUnavailable("it is away")

    monkeypatch.setattr(forge.storage.permits, "reserve", away)

    @forge.handler(limits=KeyLimit("api", by="user"), max_attempts=1)
    async def call(user: str) -> None: ...

    job = await call.enqueue(user="ann")
    async with working(forge):
        await forge.wait(job.id, timeout=30)
    assert (await forge.jobs.get(job.id)).attempt == 1
    assert await spent(forge) == {"ann": 1}


async def test_tokens_that_cannot_be_given_back_are_lost_and_nothing_else_is(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(permits: Permits, granted: Any) -> None:
        raise StorageUnavailable("it is away")

    monkeypatch.setattr(type(forge.storage.permits), "give_back", away)
    tokens = KeyTokens(forge.storage.permits, forge.telemetry)
    tokens.take_ahead(1, [("api", "ann", 2.0)])
    await eventually(lambda: tokens._advances[1].is_answered)

    await tokens.close()

    assert await spent(forge) == {"ann": 2}
