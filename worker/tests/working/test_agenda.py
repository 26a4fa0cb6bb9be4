"""A leader with nothing to do looks once for all its chores, and begins each as soon as it has something to do."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import pytest

from forge_jobs import Forge, State
from forge_jobs.errors import StorageBusy, StorageRefused, StorageUnavailable
from forge_jobs.maintenance import agenda, leader, loop, pending, permits, reaper
from forge_jobs.model.chore import Chore, Outlook
from forge_jobs.model.moments import EPOCH
from forge_jobs.storage import outset
from forge_jobs.storage.outage import Outage
from forge_jobs.storage.outset import FROM_THE_BEGINNING
from forge_jobs.telemetry.events import CronFired, DatabaseLost, LeaderChanged, TokensAwaited
from forge_jobs.worker import audit
from tests.storage import factories
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working

LookUp = Callable[..., Awaitable[Outlook]]

ON_CALL: tuple[str, ...] = ("time_limits.expire", "signals.end_waits", "operations.due")
ON_CALL += ("queues.end_pauses", "kinds.end_pauses", "groups.end_pauses")
OF_SOME = (
    "tenants.forget",
    "tenants.waiting",
    "groups.audit",
    "flows.audit",
    "permits.waiting",
    "limits.changed",
    "jobs.fold",
    "statistics.add_up",
)
OF_JOBS = ("claims.held", "claims.lost", "schedule.make_pending")
NOW_AND_THEN = [
    name
    for name in vars(leader)
    if name.startswith(("FORGET_", "COUNT_", "AUDIT_", "MOVE_", "FOLD_", "ADD_UP"))
]
IN_BETWEEN = (
    (audit, "AUDIT_EVERY"),
    (audit, "PASSED_OVER"),
    (reaper, "TAKE_BACK_EVERY"),
    (agenda, "UNCALLED_EVERY"),
    (pending, "EVERY"),
)


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

    for name in ("chores.look", "leadership.lead", "workers.beats", *ON_CALL, *OF_SOME, *OF_JOBS):
        counted(name)
    return calls


async def test_a_leader_without_anything_to_do_looks_with_one_statement_until_there_is_something(
    forge: Forge, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agenda, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(agenda, "SHARE", 0)
    monkeypatch.setattr(loop, "WHILE_IDLE", 0.02)
    for name in NOW_AND_THEN:
        monkeypatch.setattr(leader, name, 0.01)
    for room, name in IN_BETWEEN:
        monkeypatch.setattr(room, name, 0.01)

    async def looks_only() -> bool:
        others = Counter(calls)
        calls["chores.look"] = 0
        await eventually(lambda: calls["chores.look"] >= 20)
        return {**others, "chores.look": 0} == {**calls, "chores.look": 0}

    go_on = asyncio.Event()

    @forge.handler
    async def work() -> None:
        await go_on.wait()

    async with working(forge, heartbeat=timedelta(seconds=0.1)):
        await eventually(lambda: {*ON_CALL, *OF_SOME, "schedule.make_pending"} <= calls.keys())
        await eventually(looks_only)

        counted = Counter(calls)
        job = await work.options(delay=0.5).enqueue()
        await eventually(lambda: all(calls[name] > counted[name] for name in OF_JOBS))
        go_on.set()
        await forge.wait(job.id, timeout=30)

        counted = Counter(calls)
        await forge.limits.set("smtp", capacity=1, refill=1)
        await eventually(lambda: calls["permits.waiting"] > counted["permits.waiting"] + 1)
        assert calls["tenants.waiting"] == counted["tenants.waiting"]


async def _refused(within: timedelta, **options: Any) -> Outlook:
    raise StorageRefused("The database refuses it: permission denied.")


async def _hanging(within: timedelta, **options: Any) -> Outlook:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_leader_looks_for_the_beats_of_others_while_there_are_any(
    forge: Forge, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agenda, "LOOK_EVERY", 0.02)

    async def looks_for_nobodys() -> bool:
        counted, until = calls["workers.beats"], calls["chores.look"] + 20
        await eventually(lambda: calls["chores.look"] >= until)
        return calls["workers.beats"] == counted

    async with working(forge, heartbeat=timedelta(seconds=0.1)):
        await eventually(looks_for_nobodys)
        await factories.worker(forge.storage)
        counted = calls["workers.beats"]
        await eventually(lambda: calls["workers.beats"] > counted + 8)


@pytest.mark.parametrize("look", [None, _refused, _hanging])
async def test_a_chore_begins_when_there_is_something_to_do_also_when_that_cannot_be_said(
    forge: Forge, calls: Counter[str], events: Events, monkeypatch: pytest.MonkeyPatch, look: LookUp | None
) -> None:
    if look is not None:
        monkeypatch.setattr(forge.storage.chores, "look", look)
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

    async def none(within: timedelta, **options: Any) -> Outlook:
        return Outlook(frozenset(), datetime.now(UTC), False, 0.0)

    monkeypatch.setattr(forge.storage.chores, "look", none)
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


@pytest.mark.parametrize("look", [None, _refused, _hanging])
async def test_a_leader_whose_looks_do_not_renew_its_lead_asks_for_it(
    forge: Forge, calls: Counter[str], events: Events, monkeypatch: pytest.MonkeyPatch, look: LookUp | None
) -> None:
    monkeypatch.setattr(leader, "LEASE", timedelta(seconds=4))
    monkeypatch.setattr(leader, "RENEW_EVERY", 2.0)
    monkeypatch.setattr(agenda, "LOOK_EVERY", 0.1)

    async def end() -> timedelta:
        found = await forge.storage.leadership.get()
        assert found is not None
        return found.until - until

    async with working(forge) as worker:
        await eventually(lambda: events.of(LeaderChanged))
        leads = await forge.storage.leadership.get()
        assert leads is not None
        until = leads.until
        if look is not None:
            monkeypatch.setattr(forge.storage.chores, "look", look)
        asked = calls["leadership.lead"]
        while await end() <= timedelta(0):
            await eventually(lambda: calls["leadership.lead"] > asked or calls["chores.look"] > 10)
            calls["chores.look"] = 0
        assert (calls["leadership.lead"] > asked) == (look is not None)
        assert worker.session is not None and worker.session.leader.epoch == leads.epoch
    assert len(events.of(LeaderChanged)) == 2


async def test_an_answer_that_is_lost_makes_a_leader_count_on_no_more_than_it_knows(
    forge: Forge, calls: Counter[str], events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look has renewed the lead in the database; the leader ends its chores when the lead of before runs out, and leads anew."""
    monkeypatch.setattr(leader, "LEASE", timedelta(seconds=2))
    monkeypatch.setattr(leader, "RENEW_EVERY", 1.0)
    monkeypatch.setattr(agenda, "LOOK_EVERY", 0.1)
    look, renewed = forge.storage.chores.look, list[datetime]()

    async def unanswered(*given: Any, **options: Any) -> Outlook:
        answer = await look(*given, **options)
        if answer.renewed:
            renewed.append(answer.at)
        raise StorageUnavailable("The connection broke.")

    async def away(*given: Any, **options: Any) -> None:
        raise StorageUnavailable("The database cannot be reached.")

    async with working(forge) as worker:
        await eventually(lambda: events.of(LeaderChanged))
        assert worker.session is not None
        with monkeypatch.context() as broken:
            broken.setattr(forge.storage.leadership, "lead", away)
            broken.setattr(forge.storage.chores, "look", unanswered)
            until = worker.session.leader._until
            await eventually(lambda: worker.session is not None and worker.session.leader.epoch is None)
            assert renewed and worker.session.leader._until == until
        await eventually(lambda: events.of(LeaderChanged)[-1].leads)


async def test_a_look_that_was_refused_is_tried_again_as_often_as_others_come(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agenda, "LOOK_EVERY", 0.01)
    refused = 0

    async def refuse(within: timedelta, **options: Any) -> Outlook:
        nonlocal refused
        refused += 1
        raise StorageBusy("Somebody has locked a table.")

    monkeypatch.setattr(forge.storage.chores, "look", refuse)
    async with working(forge):
        await eventually(lambda: refused > 50)

    waits = [
        event.retry_in for event in events.of(DatabaseLost) if event.doing == "looking what there is to do"
    ]
    assert max(waits) <= 0.01


class _Chores:
    """Looks that take so long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.takes = 0.0
        self.ahead = timedelta(0)
        self.since: list[datetime] = []
        monkeypatch.setattr(agenda, "uptime", lambda: self.now)
        monkeypatch.setattr(outset, "uptime", lambda: self.now)

    async def look(self, within: timedelta, *, since: datetime, **options: Any) -> Outlook:
        self.since.append(since)
        return Outlook(frozenset(), EPOCH + timedelta(seconds=self.now) + self.ahead, False, self.takes)


async def test_after_a_look_that_took_long_the_next_ones_look_for_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chores = _Chores(monkeypatch)
    looks = agenda.Agenda(chores, 1, timedelta(seconds=15), lambda moment: None, {})

    for _ in range(3):
        await looks.look()
        chores.now += 1
    assert chores.since == [FROM_THE_BEGINNING] * 3

    chores.takes, since = 0.1, len(chores.since)
    await looks.look()
    began = chores.now
    chores.takes = 0.001
    while chores.now < began + 9:
        chores.now += 1
        await looks.look()
    assert chores.since[since] == FROM_THE_BEGINNING
    assert set(chores.since[since + 1 :]) == {EPOCH + timedelta(seconds=began) - outset.MARGIN}
    chores.now += 2
    await looks.look()
    assert chores.since[-1] == FROM_THE_BEGINNING


async def test_a_look_after_the_clock_was_set_back_begins_no_later_than_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chores = _Chores(monkeypatch)
    chores.takes = 0.1
    looks = agenda.Agenda(chores, 1, timedelta(seconds=15), lambda moment: None, {})
    await looks.look()

    chores.ahead = -timedelta(hours=1)
    for _ in range(2):
        chores.now += 1
        await looks.look()
    assert chores.since[-1] == EPOCH + timedelta(seconds=101) + chores.ahead - outset.MARGIN


async def test_a_look_at_less_says_of_no_chore_with_moments_that_it_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A row that was due before may have been locked by then, or be committed late."""
    chores = _Chores(monkeypatch)
    chores.takes = 0.1
    looks = agenda.Agenda(chores, 1, timedelta(seconds=15), lambda moment: None, {})

    await looks.look()
    assert looks.is_idle(Chore.PENDING) and looks.is_idle(Chore.TIME_LIMITS)

    chores.now += 1
    await looks.look()
    assert chores.since[-1] != FROM_THE_BEGINNING
    assert not looks.is_idle(Chore.PENDING) and not looks.is_idle(Chore.TIME_LIMITS)
    assert looks.is_idle(Chore.CLAIMS) and looks.is_idle(Chore.PAUSES)


async def test_who_could_not_renew_its_lead_in_time_takes_nothing_for_idle(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has noticed that, it looks no more, and what was idle at its last look may be so no longer."""
    monkeypatch.setattr(leader, "LEASE", timedelta(seconds=1))
    asked = asyncio.Event()

    async def none(within: timedelta, **options: Any) -> Outlook:
        return Outlook(frozenset(), datetime.now(UTC), False, 0.0)

    async def hang(*given: Any, **options: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(forge.storage.chores, "look", none)
    async with working(forge) as worker:
        await eventually(lambda: worker.session is not None and worker.session.leader.is_idle(Chore.PENDING))
        assert worker.session is not None
        lead = worker.session.leader
        monkeypatch.setattr(forge.storage.leadership, "lead", hang)
        await asked.wait()
        await eventually(lambda: not lead.is_idle(Chore.PENDING))
        assert lead.epoch is not None


async def test_a_look_that_is_answered_late_takes_nothing_from_a_lead_that_was_renewed_meanwhile(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(forge) as worker:
        await eventually(lambda: events.of(LeaderChanged))
        assert worker.session is not None
        lead = worker.session.leader
        until = lead._until
        lead._renewed(until - 60)
        assert lead._until >= until


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
