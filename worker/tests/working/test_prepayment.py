"""The tokens of keys that jobs need to begin are taken when the jobs are claimed, in one statement for all."""

import asyncio
import gc
import weakref
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Generic, TypeVar

import pytest

from forge_jobs import Context, Forge, KeyLimit, State, Worker
from forge_jobs.errors import StorageBusy, StorageUnavailable
from forge_jobs.model.decision import AwaitsTurn
from forge_jobs.model.job import Claim, NewJob
from forge_jobs.model.permit import Taken
from forge_jobs.rules.verdict import Verdict, dead, handed_back
from forge_jobs.worker import key_tokens
from forge_jobs.worker.key_tokens import KeyTokens
from forge_jobs.worker.recorder import Recorder
from tests.storage.databases import Database
from tests.storage.factories import claim_of, queue, running, worker
from tests.working.eventually import eventually
from tests.working.in_a_process import plain
from tests.working.running import working

LONG = 10 * 365 * 86_400  # seconds in which next to nothing flows back
ANN = [("api", "ann", 1.0)]


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


@pytest.mark.parametrize("where", ["loop", "context", "thread"])
async def test_jobs_that_are_claimed_together_pay_together(
    forge: Forge, statements: list[int], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    claim = forge.storage.claims.claim
    hands, claimed = 0, 0  # more than there are jobs where some are handed back and claimed again

    async def counted(*given: Any, **options: Any) -> Any:
        nonlocal hands, claimed
        claims = await claim(*given, **options)
        hands, claimed = hands + bool(claims), claimed + len(claims)
        return claims

    monkeypatch.setattr(forge.storage.claims, "claim", counted)
    ran: list[int] = []
    limits = [KeyLimit("api", by="user"), KeyLimit("api", by="number", cost=2)]
    if where == "loop":

        @forge.handler(kind="call", limits=limits)
        async def call(user: str, number: int) -> None:
            ran.append(number)

    elif where == "context":

        @forge.handler(kind="call", limits=limits)
        async def call_with_context(ctx: Context, user: str, number: int) -> None:
            ran.append(number)

    else:

        @forge.handler(kind="call", limits=limits)
        def plain_call(user: str, number: int) -> None:
            ran.append(number)

    await forge.enqueue_many("call", [{"user": "ann", "number": number} for number in range(200)])
    async with asyncio.timeout(90):
        await Worker(forge, queues=["default"], concurrency=50).run(until_empty=True)

    assert sorted(ran) == list(range(200))
    assert sum(statements) == 2 * claimed
    assert len(statements) <= hands
    assert await spent(forge) == {"ann": 200, **{str(number): 2 for number in range(200)}}


async def test_each_job_pays_once_also_when_it_is_handed_back_before_it_begins(forge: Forge) -> None:
    await forge.limits.set(
        "api", capacity=60, per=LONG
    )  # a job that pays twice keeps another one waiting for years

    @forge.handler(limits=KeyLimit("api", by="user"))
    async def call(user: int) -> None:
        await asyncio.sleep(0)

    await call.enqueue_many([{"user": number % 10} for number in range(600)])
    for _ in range(3):
        async with working(forge, concurrency=5):
            for _ in range(3):
                await forge.queues.pause("default")
                await forge.queues.resume("default")
    async with working(forge, concurrency=5):
        await eventually(lambda: _all_done(forge, 600))
    assert await spent(forge) == {str(user): 60 for user in range(10)}


async def _all_done(forge: Forge, count: int) -> bool:
    [counts] = await forge.jobs.counts()
    return counts.done == count


async def test_a_job_that_does_not_begin_here_finds_its_tokens_elsewhere(
    forge: Forge, statements: list[int]
) -> None:
    here, elsewhere = (KeyTokens(forge.storage.permits, forge.telemetry) for _ in range(2))
    tokens = [("api", "ann", 2.0), ("api", "ann", 1.0), ("api", "bob", 1.0)]
    here.take_ahead(1, tokens)
    await here.advances[1].answered()

    await here.keep([claim_of(1)])
    here.forget([claim_of(1)])

    await elsewhere.take(tokens, timedelta(0), 1, Taken())
    assert statements == [3, 3]
    assert await spent(forge) == {"ann": 3, "bob": 1}
    assert not here.advances


@pytest.fixture
async def paid(forge: Forge) -> tuple[Claim, KeyTokens]:
    """A job that was claimed and has the only token of its key, and the tokens of its worker."""
    await forge.limits.set("api", capacity=1, per=LONG)
    tokens = KeyTokens(forge.storage.permits, forge.telemetry)
    claim = await running(forge.storage, await worker(forge.storage))
    tokens.take_ahead(claim.job_id, ANN)
    await tokens.advances[claim.job_id].answered()
    return claim, tokens


async def record(forge: Forge, verdict: Verdict, tokens: KeyTokens) -> None:
    """The verdict is written down."""
    recorder = Recorder(forge.storage, forge.telemetry, lambda verdicts, runs: None, tokens)
    recorder.add(verdict)
    await recorder.flush()
    assert not tokens.advances


async def test_tokens_are_kept_before_anybody_can_claim_their_job_again(
    forge: Forge, paid: tuple[Claim, KeyTokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, tokens = paid
    keep, states = forge.storage.permits.keep, list[State]()

    async def kept(granted: Any) -> None:
        states.append((await forge.jobs.get(claim.job_id)).state)
        await keep(granted)

    monkeypatch.setattr(forge.storage.permits, "keep", kept)
    await record(forge, handed_back(claim, await queue(forge.storage)), tokens)

    assert states == [State.IN_PROGRESS]
    await KeyTokens(forge.storage.permits, forge.telemetry).take(ANN, timedelta(0), claim.job_id, Taken())


async def test_tokens_are_kept_when_the_database_is_back(
    forge: Forge, paid: tuple[Claim, KeyTokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, tokens = paid
    keep = forge.storage.permits.keep

    async def away(granted: Any) -> None:
        monkeypatch.setattr(forge.storage.permits, "keep", keep)
        raise StorageUnavailable("it is away")

    monkeypatch.setattr(forge.storage.permits, "keep", away)
    await record(forge, handed_back(claim, await queue(forge.storage)), tokens)

    await tokens.take(ANN, timedelta(0), claim.job_id, Taken())


@pytest.mark.parametrize("error", [StorageBusy("it is locked"), RuntimeError("nobody knows")])
async def test_tokens_that_cannot_be_kept_are_lost_and_nothing_else_is(
    forge: Forge, paid: tuple[Claim, KeyTokens], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    claim, tokens = paid

    async def never(granted: Any) -> None:
        raise error

    monkeypatch.setattr(forge.storage.permits, "keep", never)
    await record(forge, handed_back(claim, await queue(forge.storage)), tokens)

    assert (await forge.jobs.get(claim.job_id)).state is State.PENDING
    with pytest.raises(AwaitsTurn):
        await tokens.take(ANN, timedelta(0), claim.job_id, Taken())


async def test_what_nobody_answers_keeps_no_outcome_waiting(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = await worker(forge.storage)
    claim = await running(forge.storage, me)
    tokens = KeyTokens(forge.storage.permits, forge.telemetry)

    async def never(wanted: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(forge.storage.permits, "reserve", never)
    monkeypatch.setattr(key_tokens, "LONGEST_ANSWER", 0.05)
    tokens.take_ahead(claim.job_id, ANN)

    async with asyncio.timeout(10):
        await record(forge, handed_back(claim, await queue(forge.storage)), tokens)

    assert (await forge.jobs.get(claim.job_id)).state is State.PENDING
    await tokens.close()


async def test_for_a_job_that_ends_without_having_begun_nothing_is_kept(
    forge: Forge, paid: tuple[Claim, KeyTokens], database: Database
) -> None:
    claim, tokens = paid

    await record(forge, dead(claim, await queue(forge.storage), "cancelled"), tokens)

    assert await database.rows("SELECT job_id FROM permit") == []


async def test_a_job_whose_turn_has_come_keeps_it_however_late_it_begins(
    forge: Forge, statements: list[int]
) -> None:
    await forge.limits.set("turns", capacity=1, refill=1)
    first, second = (KeyTokens(forge.storage.permits, forge.telemetry) for _ in range(2))
    await forge.limits.reserve("turns", "ann")
    with pytest.raises(AwaitsTurn):
        await first.take([("turns", "ann", 1.0)], timedelta(0), 1, Taken())
    await eventually(lambda: _has_come(forge))
    await forge.limits.set("turns", capacity=1, per=LONG)
    await forge.limits.reserve("turns", "ann")

    first.take_ahead(1, [("turns", "ann", 1.0)])
    await first.keep([claim_of(1)])
    first.forget([claim_of(1)])
    second.take_ahead(1, [("turns", "ann", 1.0)])
    await second.take([("turns", "ann", 1.0)], timedelta(0), 1, Taken())


async def _has_come(forge: Forge) -> bool:
    return not await forge.limits.hottest("turns")


async def test_a_job_that_is_stopped_while_it_asks_for_its_tokens_keeps_them(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, asked, answer = forge.storage.permits.reserve, asyncio.Event(), asyncio.Event()

    async def slow(wanted: Any) -> Any:
        asked.set()
        await answer.wait()
        return await reserve(wanted)

    monkeypatch.setattr(forge.storage.permits, "reserve", slow)
    tokens = KeyTokens(forge.storage.permits, forge.telemetry)
    tokens.take_ahead(1, [("api", "ann", 2.0)])
    taking = asyncio.create_task(tokens.take([("api", "ann", 2.0)], timedelta(0), 1, Taken()))
    await asked.wait()
    taking.cancel()
    await asyncio.wait([taking])
    answer.set()

    await tokens.keep([claim_of(1)])
    tokens.forget([claim_of(1)])

    await tokens.take([("api", "ann", 2.0)], timedelta(0), 1, Taken())
    assert await spent(forge) == {"ann": 2}


async def test_a_job_that_is_stopped_while_it_waits_for_its_tokens_keeps_them(forge: Forge) -> None:
    await forge.limits.set("slow", capacity=1, refill=0.02)
    await forge.limits.reserve("slow", "ann")
    claim = await running(forge.storage, await worker(forge.storage))
    tokens, slow = KeyTokens(forge.storage.permits, forge.telemetry), [("slow", "ann", 1.0)]
    taking = asyncio.create_task(tokens.take(slow, timedelta(seconds=60), claim.job_id, Taken()))
    await eventually(lambda: _is_spent(forge, 1.5))

    taking.cancel()
    await asyncio.wait([taking])
    await record(forge, handed_back(claim, await queue(forge.storage)), tokens)

    with pytest.raises(AwaitsTurn):
        await tokens.take(slow, timedelta(0), claim.job_id, Taken())
    assert not await _is_spent(forge, 2.5), "it has paid once"


async def _is_spent(forge: Forge, tokens: float) -> bool:
    return any(use.spent > tokens for use in await forge.limits.hottest("slow"))


async def test_tokens_of_a_bucket_that_was_emptied_meanwhile_let_no_job_begin(forge: Forge) -> None:
    await forge.limits.set("other", capacity=10, per=LONG)
    tokens = KeyTokens(forge.storage.permits, forge.telemetry)
    both = [("api", "ann", 1.0), ("other", "ann", 1.0)]
    for job_id in (1, 2):
        tokens.take_ahead(job_id, both)
        await tokens.advances[job_id].answered()
    await tokens.keep([claim_of(1)])
    tokens.forget([claim_of(1)])
    await forge.limits.empty("api")
    tokens.void("api")

    for job_id in (1, 2):
        with pytest.raises(AwaitsTurn):
            await tokens.take(both, timedelta(0), job_id, Taken())
    [other] = await forge.limits.hottest("other")
    assert round(other.spent) == 2, "each has paid the other limit once"


async def test_tokens_that_are_emptied_away_while_they_are_asked_for_are_asked_for_anew(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, answered, answer = forge.storage.permits.reserve, asyncio.Event(), asyncio.Event()

    async def slow(wanted: Any) -> Any:
        permits = await reserve(wanted)
        answered.set()
        await answer.wait()
        return permits

    monkeypatch.setattr(forge.storage.permits, "reserve", slow)
    tokens = KeyTokens(forge.storage.permits, forge.telemetry)
    tokens.take_ahead(1, [("api", "ann", 1.0)])
    taking = asyncio.create_task(tokens.take([("api", "ann", 1.0)], timedelta(0), 1, Taken()))
    await answered.wait()
    await forge.limits.empty("api")
    tokens.void("api")
    answer.set()

    with pytest.raises(AwaitsTurn):
        await taking


class Colour(str, Enum):  # noqa: UP042  its text is not its value
    RED = "red"


async def test_a_job_pays_for_the_key_that_its_handler_sees(forge: Forge) -> None:
    @forge.handler(limits=KeyLimit("api", by="colour"))
    async def call(colour: Colour) -> None: ...

    job = await call.enqueue(colour=Colour.RED)
    async with working(forge):
        await forge.wait(job.id, timeout=30)
    assert await spent(forge) == {str(Colour.RED): 1}


async def test_a_job_with_an_argument_that_cannot_be_a_key_fails_by_itself(forge: Forge) -> None:
    @forge.handler(limits=KeyLimit("api", by="user"), max_attempts=1)
    async def call(user: Any) -> None: ...

    jobs = [await call.enqueue(user=user) for user in (None, "ann", [1], "bob")]
    async with working(forge):
        for job in (jobs[1], jobs[3]):
            await forge.wait(job.id, timeout=30)
        await eventually(lambda: _are_dead(forge, 2))
    assert await spent(forge) == {"ann": 1, "bob": 1}


async def test_jobs_that_pay_together_run_in_processes(forge: Forge) -> None:
    call: Any = forge.handler(kind="call", executor="process", limits=KeyLimit("api", by="left"))(plain)
    jobs = await call.enqueue_many([{"left": number, "right": 1} for number in range(10)])

    async with working(forge, concurrency=10):
        results = [await forge.wait(job.id, timeout=60) for job in jobs]

    assert results == list(range(1, 11))
    assert await spent(forge) == {str(number): 1 for number in range(10)}


V = TypeVar("V")


@dataclass
class Box(Generic[V]):
    """What refuses a value in its own way."""

    value: V

    def __post_init__(self) -> None:
        if self.value == 3:
            raise RuntimeError("it takes no 3")


async def test_a_job_whose_argument_refuses_its_value_fails_by_itself(forge: Forge) -> None:
    @forge.handler(limits=KeyLimit("api", by="user"))
    async def call(user: int, box: Box[int]) -> None: ...

    await call.enqueue_many([{"user": user, "box": {"value": user + 10}} for user in range(20)])
    await forge.storage.jobs.enqueue(NewJob("call", b'{"user": 20, "box": {"value": 3}}', max_attempts=1))
    async with working(forge, concurrency=21):
        await eventually(lambda: _all_done(forge, 20))
        await eventually(lambda: _are_dead(forge, 1))


class Kept: ...


async def test_what_an_argument_has_kept_is_freed_after_the_job(forge: Forge) -> None:
    kept: list[weakref.ref[Kept]] = []

    @forge.handler(limits=KeyLimit("api", by="user"))
    async def call(ctx: Context, user: int, seen: Any) -> None:
        seen += [ctx, Kept()]
        kept.append(weakref.ref(seen[-1]))

    await call.enqueue_many([{"user": user, "seen": []} for user in range(20)])
    async with working(forge, concurrency=20):
        await eventually(lambda: _all_done(forge, 20))
        gc.collect()
        assert [one() for one in kept] == [None] * 20


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
