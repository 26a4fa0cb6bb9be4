"""A leader with nothing to do looks once for all its chores, and begins each as soon as it has something to do."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import wraps
from typing import Any

import pytest

from forge_jobs import Forge, State
from forge_jobs.errors import StorageRefused
from forge_jobs.maintenance import agenda, leader, loop, permits
from forge_jobs.model.chore import Chore
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.events import CronFired, DatabaseLost, TokensAwaited
from tests.storage import factories
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working

Look = Callable[[timedelta], Awaitable[frozenset[Chore]]]

ON_CALL: tuple[str, ...] = ("time_limits.expire", "signals.end_waits", "operations.due")
ON_CALL += ("queues.end_pauses", "kinds.end_pauses", "groups.end_pauses")
OF_SOME = (
    "tenants.forget",
    "tenants.waiting",
    "groups.audit",
    "flows.audit",
    "permits.waiting",
    "limits.changed",
)
NOW_AND_THEN = [name for name in vars(leader) if name.startswith(("FORGET_", "COUNT_", "AUDIT_", "MOVE_"))]


@pytest.fixture
def calls(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the leader looked, and began what it begins when there is something to do."""
    calls = Counter[str]()

    def counted(name: str) -> None:
        noun, _, verb = name.partition(".")
        method = getattr(getattr(forge.storage, noun), verb)

        @wraps(method)
        async def call(*given: Any, **options: Any) -> Any:
            answer = await method(*given, **options)
            calls[name] += 1
            return answer

        monkeypatch.setattr(getattr(forge.storage, noun), verb, call)

    for name in ("chores.due", "workers.beats", *ON_CALL, *OF_SOME):
        counted(name)
    return calls


async def test_a_leader_without_anything_to_do_looks_with_one_statement_until_there_is_something(
    forge: Forge, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agenda, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(loop, "WHILE_IDLE", 0.02)
    for name in NOW_AND_THEN:
        monkeypatch.setattr(leader, name, 0.01)

    async def looks_only() -> bool:
        others = Counter(calls)
        calls["chores.due"] = 0
        await eventually(lambda: calls["chores.due"] >= 20)
        return {**others, "chores.due": 0} == {**calls, "chores.due": 0}

    async with working(forge):
        await eventually(lambda: {*ON_CALL, *OF_SOME} <= calls.keys())
        await eventually(looks_only)

        counted = Counter(calls)
        await forge.limits.set("smtp", capacity=1, refill=1)
        await eventually(lambda: calls["permits.waiting"] > counted["permits.waiting"] + 1)
        assert calls["tenants.waiting"] == counted["tenants.waiting"]


async def _refused(within: timedelta) -> frozenset[Chore]:
    raise StorageRefused("The database refuses it: permission denied.")


async def _hanging(within: timedelta) -> frozenset[Chore]:
    await asyncio.Event().wait()
    return frozenset()


async def test_a_leader_looks_for_the_beats_of_others_while_there_are_any(
    forge: Forge, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agenda, "LOOK_EVERY", 0.02)

    async def looks_for_nobodys() -> bool:
        counted, until = calls["workers.beats"], calls["chores.due"] + 20
        await eventually(lambda: calls["chores.due"] >= until)
        return calls["workers.beats"] == counted

    async with working(forge, heartbeat=timedelta(seconds=0.1)):
        await eventually(looks_for_nobodys)
        await factories.worker(forge.storage)
        counted = calls["workers.beats"]
        await eventually(lambda: calls["workers.beats"] > counted + 8)


@pytest.mark.parametrize("look", [None, _refused, _hanging])
async def test_a_chore_begins_when_there_is_something_to_do_also_when_that_cannot_be_said(
    forge: Forge, calls: Counter[str], events: Events, monkeypatch: pytest.MonkeyPatch, look: Look | None
) -> None:
    if look is not None:
        monkeypatch.setattr(forge.storage.chores, "due", look)
    monkeypatch.setattr(agenda, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(agenda, "LONGEST_LOOK", 0.1 if look is _hanging else 60.0)
    monkeypatch.setattr(agenda, "UNCALLED_EVERY", 3600.0)

    @forge.handler
    async def send() -> None:
        pass

    await forge.queues.ensure("mail")
    async with working(forge):
        await eventually(lambda: {*ON_CALL, *(OF_SOME if look else ())} <= calls.keys())
        await asyncio.gather(
            forge.queues.pause("mail", until=0.1),
            forge.kinds.pause("send", until=0.1),
            forge.groups.pause("a", until=0.1),
        )
        late = await forge.enqueue("unknown", start_by=0.1)
        many = await forge.operations.start("cancelled", kind="other")

        await eventually(lambda: _is(forge, late.id, State.EXPIRED))
        await eventually(lambda: _all_resumed(forge))
        await eventually(lambda: _has_ended(forge, many.id))

    doing = {event.doing for event in events.of(DatabaseLost)}
    assert doing == ({"looking what there is to do"} if look is _refused else set())


async def test_a_cron_fires_when_it_is_due_though_the_last_look_was_before_it_was_there(
    forge: Forge, calls: Counter[str], events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`is_idle` says what was so at the last look, which may be long ago: another that hangs may follow."""

    async def none(within: timedelta) -> frozenset[Chore]:
        return frozenset()

    monkeypatch.setattr(forge.storage.chores, "due", none)
    async with working(forge):
        await eventually(lambda: set(OF_SOME) <= calls.keys())
        await forge.crons.set("often", "* * * * * *", "unknown")
        await eventually(lambda: len(events.of(CronFired)) >= 2)


@pytest.mark.parametrize("rest", [0.0, 0.5])
async def test_a_count_is_told_once_more_when_the_last_rate_limit_has_gone_also_while_it_rests(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch, rest: float
) -> None:
    monkeypatch.setattr(permits, "breather", lambda began: rest / permits.SHARE)
    waiting = {"smtp": 5}

    async def counted() -> dict[str, int]:
        return dict(waiting)

    monkeypatch.setattr(forge.storage.permits, "waiting", counted)
    tell = permits.AwaitedTokens(forge.storage.permits, forge.telemetry).tell
    outage = Outage("counting", forge.telemetry)
    chore = asyncio.create_task(loop.every(0.01, tell, outage=outage, is_idle=lambda: not waiting))
    try:
        await eventually(lambda: events.of(TokensAwaited))
        waiting.clear()
        await eventually(lambda: TokensAwaited("smtp", 0) in events.of(TokensAwaited))
    finally:
        chore.cancel()


async def _is(forge: Forge, job_id: int, state: State) -> bool:
    return (await forge.jobs.get(job_id)).state is state


async def _all_resumed(forge: Forge) -> bool:
    return not (
        (await forge.queues.get("mail")).paused
        or await forge.kinds.paused()
        or await forge.storage.groups.paused()
    )


async def _has_ended(forge: Forge, operation_id: int) -> bool:
    return (await forge.operations.get(operation_id)).state != "working"
