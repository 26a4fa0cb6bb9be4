"""A worker of many queues asks several of them in one statement."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from forge_jobs import Forge, Throttled, Worker
from forge_jobs.errors import StorageBusy, StorageUnavailable
from forge_jobs.model.job import Claim
from forge_jobs.model.worker import Standing
from forge_jobs.storage.interface.claims import AskedQueue
from forge_jobs.telemetry.events import ChoreFailed, DatabaseLost
from forge_jobs.worker import audit, together
from forge_jobs.worker.polling import LONGEST_POLL
from forge_jobs.worker.served_queue import ServedQueue
from forge_jobs.worker.together import Together
from tests.working.asked import Asked
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working

QUEUES = [f"q{number}" for number in range(40)]


@pytest.fixture
def asked(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(forge, monkeypatch)


async def test_many_queues_are_drained_in_few_statements_each_in_its_turn_and_each_job_once(
    forge: Forge, asked: Asked
) -> None:
    ran: Counter[int] = Counter()

    @forge.handler
    async def work(number: int) -> None:
        ran[number] += 1

    await forge.queues.ensure(*QUEUES)
    for place, queue in enumerate(QUEUES):
        numbers = [{"number": number} for number in range(100 * place, 100 * place + 100)]
        await forge.enqueue_many("work", numbers, queue=queue)
    async with working(forge, *QUEUES, concurrency=10):
        await eventually(lambda: len(ran) == 4000)

    assert set(ran.values()) == {1}
    assert asked.statements < 100
    turns = [queue_id for _, gave in asked.together for queue_id in dict.fromkeys(gave)]
    third = next((place for place, turn in enumerate(turns) if turns[:place].count(turn) == 2), len(turns))
    assert len(set(turns[:third])) == len(QUEUES), "a queue had its third turn before another had its first"


async def test_queues_in_which_nothing_is_pending_are_asked_together_and_heard_of(
    forge: Forge, asked: Asked
) -> None:
    @forge.handler
    async def work() -> None:
        pass

    await forge.queues.ensure(*QUEUES)
    async with working(forge, *QUEUES) as worker:
        assert worker.session is not None
        served = list(worker.session._claimer.queues.values())
        await eventually(lambda: all(queue.marked and queue.empty for queue in served))
        assert asked.statements < 20
        for queue in QUEUES[::7]:
            await forge.wait((await work.options(queue=queue).enqueue()).id, timeout=2)


async def test_of_queues_that_are_asked_together_those_with_rare_looks_are_looked_at_from_their_beginning(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bool] = []

    async def claim_from(queues: Sequence[AskedQueue], *given: Any, **options: Any) -> list[Claim]:
        begun.extend(not queue.hints and queue.hint is None for queue in queues)
        return []

    monkeypatch.setattr(forge.storage.claims, "claim_from", claim_from)
    await forge.queues.ensure("often", "rare")
    queues = [ServedQueue(await forge.queues.get(name)) for name in ("often", "rare")]
    for queue in queues:
        claim = Claim(1, 1, 1, queue.id, "work", b"{}", "json", 0, 10**15, 5, None, None, 1e9)
        queue.scout_took = 0.0
        queue.hints.took(queue.hints.set_out(), [claim], is_full=False)
    queues[1].poll = LONGEST_POLL

    asked = Together(forge.storage.claims, forge.telemetry, 1, lambda: None)
    await asked.ask(queues, 1, 1, frozenset(), Standing(1, datetime.now(UTC)))

    assert begun == [False, True]


async def test_queues_with_limits_are_asked_alone_beside_others(forge: Forge, asked: Asked) -> None:
    running, most = 0, 0

    @forge.handler
    async def work(is_limited: bool) -> None:
        nonlocal running, most
        running += is_limited
        most = max(most, running)
        await asyncio.sleep(0)
        running -= is_limited

    await forge.queues.ensure("narrow", "paced", *QUEUES[:4])
    await forge.queues.set("narrow", concurrency=2)
    await forge.limits.set("scope", capacity=3, refill=0)
    await forge.queues.set("paced", rate_limit="scope")
    ids = {queue.name: queue.id for queue in await forge.queues.list()}
    for queue in ("narrow", "paced", *QUEUES[:4]):
        await forge.enqueue_many("work", [{"is_limited": queue == "narrow"}] * 50, queue=queue)
    async with working(forge, *ids, concurrency=10):
        await eventually(lambda: _pending(forge, 47))

    assert most == 2
    assert asked.queues_together().isdisjoint({ids["narrow"], ids["paced"]})
    assert asked.queues_together() >= {ids[queue] for queue in QUEUES[:4]}


async def _pending(forge: Forge, count: int) -> bool:
    counts = await forge.jobs.counts()
    return (sum(one.pending for one in counts), sum(one.in_progress for one in counts)) == (count, 0)


async def test_a_queue_that_is_paused_while_it_is_asked_keeps_its_jobs(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    at_work: list[Worker] = []
    claim_from = forge.storage.claims.claim_from

    async def as_one_is_paused(*given: Any, **options: Any) -> list[Claim]:
        claims = await claim_from(*given, **options)
        if not ran:
            await forge.queues.pause("a")
            await eventually(lambda: at_work and _is_known_to_be_paused(at_work[0]))
        return claims

    @forge.handler
    async def work(queue: str) -> None:
        ran.append(queue)

    await forge.queues.ensure("a", "b")
    for queue in ("a", "b"):
        await forge.enqueue_many("work", [{"queue": queue}] * 3, queue=queue)
    monkeypatch.setattr(forge.storage.claims, "claim_from", as_one_is_paused)
    async with working(forge, "a", "b") as worker:
        at_work.append(worker)
        await eventually(lambda: len(ran) == 3)
        await eventually(lambda: _pending(forge, 3))

    assert ran == ["b"] * 3


def _is_known_to_be_paused(worker: Worker) -> bool:
    assert worker.session is not None
    return any(queue.config.paused for queue in worker.session._claimer.queues.values())


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("error", [StorageBusy, StorageUnavailable])
async def test_jobs_are_run_once_though_the_answer_of_a_claim_was_lost(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch, carried_out: bool, error: type[Exception]
) -> None:
    monkeypatch.setattr(audit, "AUDIT_EVERY", 0.1)
    ran: Counter[str] = Counter()
    claim_from = forge.storage.claims.claim_from

    async def lost(*given: Any, **options: Any) -> list[Claim]:
        monkeypatch.setattr(forge.storage.claims, "claim_from", claim_from)
        if carried_out:
            await claim_from(*given, **options)
        raise error("no answer came")

    @forge.handler
    async def work(queue: str) -> None:
        ran[queue] += 1

    await forge.queues.ensure("a", "b")
    ids = [(await work.options(queue=queue).enqueue(queue=queue)).id for queue in ("a", "b")]
    monkeypatch.setattr(forge.storage.claims, "claim_from", lost)
    async with working(forge, "a", "b"):
        for job_id in ids:
            await forge.wait(job_id, timeout=30)

    assert ran == {"a": 1, "b": 1}
    assert {(await forge.jobs.get(job_id)).attempt for job_id in ids} == {1}
    said = events.of(ChoreFailed) if error is StorageBusy else events.of(DatabaseLost)
    assert len(said) == 1


async def test_after_a_claim_from_several_failed_each_is_asked_alone_for_a_while(
    forge: Forge, events: Events, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "APART", 3600.0)

    async def refused(*given: Any, **options: Any) -> list[Claim]:
        raise StorageBusy("it took too long")

    @forge.handler
    async def work() -> None:
        pass

    monkeypatch.setattr(forge.storage.claims, "claim_from", refused)
    await forge.queues.ensure("a", "b")
    async with working(forge, "a", "b"):
        for queue in ("a", "b"):
            await forge.wait((await work.options(queue=queue).enqueue()).id, timeout=30)

    assert [(event.chore, event.retry_in) for event in events.of(ChoreFailed)] == [
        ("claiming jobs from several queues", 3600.0)
    ]
    assert len({queue_id for queue_id, _ in asked.alone}) == 2


async def test_a_queue_with_a_throttled_job_does_not_hold_up_those_that_are_asked_with_it(
    forge: Forge,
) -> None:
    ran: list[str] = []

    @forge.handler
    async def work(queue: str) -> None:
        ran.append(queue)
        if queue == "a":
            raise Throttled(60)

    await forge.queues.ensure("a", "b", "c")
    for queue in ("a", "b", "c"):
        await forge.enqueue_many("work", [{"queue": queue}] * 20, queue=queue)
    async with working(forge, "a", "b", "c"):
        await eventually(lambda: (ran.count("b"), ran.count("c")) == (20, 20))

    assert ran.count("a") <= 4
