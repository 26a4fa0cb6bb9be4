"""A worker that is not heard of: when its process sleeps it believes nothing that it heard, or did not hear, meanwhile;
and while nobody can use the database its handlers go on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.errors import StorageDown, StorageUnavailable
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.events import (
    DatabaseBack,
    DatabaseLost,
    OutageOutlived,
    WorkerCutOff,
    WorkerStopped,
)
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


@pytest.fixture
def sleep(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], Awaitable[None]]:
    """Return what lets an hour pass while a beat is on its way, which then raises, and waits for the next beat."""
    hours = 0.0
    answered = asyncio.Event()
    raised: list[BaseException] = []
    beat = forge.storage.workers.beat

    async def sleepy(*given: Any, **said: Any) -> Any:
        nonlocal hours
        if raised:
            hours += 1
            raise raised.pop()
        heard = await beat(*given, **said)
        answered.set()
        return heard

    async def sleep(error: BaseException) -> None:
        raised.append(error)
        answered.clear()
        while raised or not answered.is_set():
            await asyncio.sleep(0.01)

    monkeypatch.setattr(forge.storage.workers, "beat", sleepy)
    monkeypatch.setattr("forge_jobs.worker.heartbeat.uptime", lambda: uptime() + hours * 3600)
    return sleep


@pytest.mark.parametrize(
    "error", [TimeoutError(), StorageUnavailable("connection reset")], ids=lambda error: type(error).__name__
)
async def test_a_worker_that_slept_in_the_midst_of_a_beat_asks_before_it_gives_up(
    forge: Forge, events: Events, sleep: Callable[[BaseException], Awaitable[None]], error: BaseException
) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    @forge.handler
    async def works() -> str:
        begun.set()
        await over.wait()
        return "done"

    async with working(forge, heartbeat=timedelta(seconds=0.1)):
        job = await works.enqueue()
        await begun.wait()
        await sleep(error)
        over.set()
        assert await forge.wait(job, timeout=30) == "done"

    assert (await forge.jobs.get(job.id)).attempt == 1
    assert (events.of(WorkerCutOff), events.of(DatabaseLost)) == ([], [])


Slept = Callable[[list[BaseException], list[BaseException]], None]


@pytest.fixture
def slept(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> Slept:
    """Return what makes the next beats raise these errors, then an hour pass while none is on its way, and the beats
    after it raise those.
    """
    hours = 0
    before: list[BaseException] = []
    after: list[BaseException] = []
    is_asked = False
    beat = forge.storage.workers.beat

    async def beaten(*given: Any, **said: Any) -> Any:
        nonlocal hours, is_asked
        if "era" not in said:  # the first beat of a session
            return await beat(*given, **said)
        if is_asked and len(before) <= 1:
            is_asked = False
            asyncio.get_running_loop().call_soon(passes)
        elif not is_asked and not before and after:
            raise after.pop(0)
        if before:
            raise before.pop(0)
        return await beat(*given, **said)

    def passes() -> None:
        nonlocal hours
        hours += 1

    def slept(failed: list[BaseException], fails: list[BaseException]) -> None:
        nonlocal is_asked
        before.extend(failed)
        after.extend(fails)
        is_asked = True

    monkeypatch.setattr(forge.storage.workers, "beat", beaten)
    for module in ("heartbeat", "runners"):
        monkeypatch.setattr(f"forge_jobs.worker.{module}.uptime", lambda: uptime() + hours * 3600)
    return slept


@pytest.mark.parametrize("before", [[], [StorageUnavailable("reset")], [StorageDown("refused")] * 2], ids=len)
@pytest.mark.parametrize(
    "after",
    [
        [StorageUnavailable("the connection was closed")],  # of before; the next one is new
        [TimeoutError()],
        [StorageDown("refused"), StorageUnavailable("reset")],
    ],
    ids=lambda errors: type(errors[0]).__name__,
)
async def test_a_worker_that_slept_between_two_beats_asks_by_a_new_connection_before_it_gives_up(
    forge: Forge, events: Events, slept: Slept, before: list[BaseException], after: list[BaseException]
) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    @forge.handler
    async def works() -> str:
        begun.set()
        await over.wait()
        return "done"

    async with working(forge, heartbeat=timedelta(seconds=0.1)):
        job = await works.enqueue()
        await begun.wait()
        slept(before, after)
        await eventually(lambda: events.of(DatabaseBack))
        over.set()
        assert await forge.wait(job, timeout=30) == "done"

    assert (await forge.jobs.get(job.id)).attempt == 1
    assert events.of(WorkerCutOff) == []


async def test_a_worker_that_slept_and_wakes_up_in_an_outage_stops_its_handlers(
    forge: Forge, events: Events, slept: Slept
) -> None:
    """While it slept the database may have been there, and others may have its jobs."""
    begun, stopped = asyncio.Event(), asyncio.Event()

    @forge.handler
    async def works() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with working(forge, heartbeat=timedelta(seconds=0.1)):
        await works.enqueue()
        await begun.wait()
        slept([StorageDown("refused")] * 4, [StorageDown("refused")] * 200)
        await asyncio.wait_for(stopped.wait(), 30)
        assert events.of(WorkerCutOff)
        slept([], [])


DOWN = StorageDown("The database cannot be reached: connection refused.")
AWAY = StorageUnavailable("The database did not answer in time.")

Met = Callable[[Iterable[Exception]], Awaitable[None]]


@pytest.fixture
def met(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> Met:
    """Return what makes each of the next beats meet an error, one every 0.9 seconds, and waits for the beat after them."""
    seconds = 0.0
    errors: list[Exception] = []
    answered = asyncio.Event()
    beat = forge.storage.workers.beat

    async def missed(*given: Any, **said: Any) -> Any:
        nonlocal seconds
        if errors and "era" in said:  # not the first beat of a session
            seconds += 0.9
            raise errors.pop(0)
        heard = await beat(*given, **said)
        answered.set()
        return heard

    async def met(those: Iterable[Exception]) -> None:
        errors.extend(those)
        answered.clear()
        while errors or not answered.is_set():
            await asyncio.sleep(0.01)

    monkeypatch.setattr(forge.storage.workers, "beat", missed)
    for module in ("heartbeat", "session"):
        monkeypatch.setattr(f"forge_jobs.worker.{module}.uptime", lambda: uptime() + seconds)
    return met


@pytest.mark.parametrize(
    ("errors", "goes_on"),
    [
        ([DOWN] * 20, True),
        ([AWAY] + [DOWN] * 20 + [AWAY], True),
        ([DOWN] * 20 + [AWAY] * 8, False),  # from then on it may be away for this worker alone
        ([AWAY, DOWN] * 6, False),  # nobody knows what was between them
        (
            [TimeoutError(), TimeoutError(), DOWN] * 6,
            True,
        ),  # who refuses now and then is not there for others
        ([DOWN] * 20 + [TimeoutError()] * 8, False),
        ([AWAY] * 12, False),
    ],
)
async def test_handlers_go_on_for_as_long_as_nobody_can_use_the_database(
    forge: Forge, events: Events, met: Met, errors: list[Exception], goes_on: bool
) -> None:
    begun, over = asyncio.Event(), asyncio.Event()
    stopped: list[int] = []

    @forge.handler
    async def works() -> str:
        begun.set()
        try:
            await over.wait()
        except asyncio.CancelledError:
            stopped.append(1)
            raise
        return "done"

    async with working(forge, heartbeat=timedelta(seconds=0.1), stale=timedelta(seconds=6)):
        job = await works.enqueue()
        await begun.wait()
        await met(errors)
        over.set()
        assert await forge.wait(job, timeout=30) == "done"

    assert (await forge.jobs.get(job.id)).attempt == 1
    assert (stopped, bool(events.of(WorkerCutOff))) == (([], False) if goes_on else ([1], True))


@pytest.mark.parametrize(
    ("heard_by_others", "goes_on"),
    [
        (lambda: (0.0, uptime() + 1000), True),
        (lambda: (uptime() + 1000, uptime() + 1000), False),  # one of them got in each time
        (lambda: (0.0, 0.0), False),  # that was long ago
        (lambda: None, False),
    ],
)
async def test_a_heartbeat_without_an_answer_believes_what_another_connection_of_the_process_was_told(
    forge: Forge,
    events: Events,
    met: Met,
    monkeypatch: pytest.MonkeyPatch,
    heard_by_others: Callable[[], tuple[float, float] | None],
    goes_on: bool,
) -> None:
    begun, over = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(forge.storage, "met_down", heard_by_others)

    @forge.handler
    async def works() -> str:
        begun.set()
        await over.wait()
        return "done"

    async with working(forge, heartbeat=timedelta(seconds=0.1), stale=timedelta(seconds=6)):
        job = await works.enqueue()
        await begun.wait()
        await met([TimeoutError()] * 12)
        over.set()
        assert await forge.wait(job, timeout=30) == "done"

    assert bool(events.of(OutageOutlived)) == goes_on
    assert bool(events.of(WorkerCutOff)) == (not goes_on)


async def test_a_worker_that_outlives_an_outage_says_so_once_and_what_ails_it(
    forge: Forge, events: Events, met: Met
) -> None:
    ailments: list[str] = []

    async with working(forge, heartbeat=timedelta(seconds=0.1), stale=timedelta(seconds=6)) as worker:
        session = worker.session
        assert session is not None
        forge.telemetry.subscribe(
            lambda event: ailments.append(str(session.ailment)) if type(event) is OutageOutlived else None
        )
        await met([DOWN] * 20)
        await eventually(lambda: session.ailment is None)

    [said] = events.of(OutageOutlived)
    assert (said.seconds, said.error) == (6, str(DOWN))
    [ailment] = ailments
    assert "its jobs go on, since nobody can use the database: The database cannot be reached" in ailment


async def test_no_handler_begins_once_a_worker_in_an_outage_has_been_silent_for_too_long(
    forge: Forge, met: Met
) -> None:
    async with working(forge, heartbeat=timedelta(seconds=0.1), stale=timedelta(seconds=6)) as worker:
        assert worker.session is not None
        runners = worker.session.runners
        before = runners._fence_at
        await met([DOWN] * 20)
        assert runners._fence_at > before + 15


async def test_a_worker_that_stops_and_is_cut_off_meanwhile_gives_its_handlers_no_more_grace(
    forge: Forge, events: Events, met: Met
) -> None:
    begun = asyncio.Event()
    stopped = asyncio.Event()

    @forge.handler
    async def works() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with working(
        forge, grace=3600, heartbeat=timedelta(seconds=0.1), stale=timedelta(seconds=6)
    ) as worker:
        await works.enqueue()
        await begun.wait()
        worker.stop()
        missing = asyncio.ensure_future(met([AWAY] * 12))
        await asyncio.wait_for(stopped.wait(), 30)
        missing.cancel()

    assert events.of(WorkerCutOff) and events.of(WorkerStopped)
