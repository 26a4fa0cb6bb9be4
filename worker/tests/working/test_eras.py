"""The database's history may turn out to be another: after a crash, a fail-over, or a restore under running workers."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from forge_jobs import Forge, State
from forge_jobs.telemetry.events import HistoryCut, OutcomesDropped
from forge_jobs.testing.local_postgres import LocalPostgres
from forge_jobs.worker import audit
from tests.copied_postgres import CopiedPostgres
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working

SOON = {"heartbeat": timedelta(seconds=0.2), "stale": timedelta(seconds=20)}


async def _forget(database: Database, job_id: int) -> None:
    """The claim and the job are gone, as if they had never been there, and the era with them."""
    for table in ("claimed", "job"):
        column = "id" if table == "job" else "job_id"
        await database.rows(f"DELETE FROM {table} WHERE {column} = {job_id}")
    await database.rows("DELETE FROM tally")
    await database.rows("DELETE FROM era")


async def test_a_handler_whose_claim_is_gone_is_stopped_and_those_whose_is_there_go_on(
    forge: Forge, database: Database, events: Events
) -> None:
    started: list[int] = []
    stopped: list[int] = []
    go = asyncio.Event()

    @forge.handler
    async def work(number: int) -> int:
        started.append(number)
        try:
            await go.wait()
        except asyncio.CancelledError:
            stopped.append(number)
            raise
        return number

    async with working(forge, **SOON) as worker:
        ids = [each.id for each in await work.enqueue_many([{"number": number} for number in range(3)])]
        await eventually(lambda: len(started) == 3)
        session = worker.session
        await _forget(database, ids[1])
        await eventually(lambda: stopped)
        go.set()
        for job_id in (ids[0], ids[2]):
            await forge.wait(job_id, timeout=30)
        assert worker.session is session
    assert stopped == [1]
    assert len(started) == 3
    assert [list(event.job_ids) for event in events.of(HistoryCut)] == [[ids[1]]]


async def test_a_handler_whose_claim_alone_is_gone_is_stopped(
    forge: Forge, database: Database, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "AUDIT_EVERY", 0.1)
    began: list[int] = []
    stopped = asyncio.Event()

    @forge.handler
    async def work(number: int) -> None:
        began.append(number)
        if number == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                stopped.set()
                raise

    async with working(forge):
        lost = (await work.enqueue(number=1)).id
        await eventually(lambda: began)
        await database.rows(f"DELETE FROM claimed WHERE job_id = {lost}")
        await asyncio.wait_for(stopped.wait(), 30)
        await forge.wait(await work.enqueue(number=2), timeout=30)
    assert began == [1, 2]
    assert list(events.of(HistoryCut)[0].job_ids) == [lost]


async def test_a_new_job_with_the_id_of_a_lost_one_is_not_done_with_the_result_of_the_old_one(
    forge: Forge, database: Database, events: Events
) -> None:
    ran: list[str] = []
    go = asyncio.Event()

    @forge.handler
    async def work(name: str) -> str:
        ran.append(name)
        while name == "old" and not go.is_set():  # it does not obey
            try:
                await go.wait()
            except asyncio.CancelledError:
                pass
        return name

    async with working(forge, **SOON):
        old = (await work.enqueue(name="old")).id
        await eventually(lambda: ran)
        await _forget(database, old)
        await eventually(lambda: events.of(HistoryCut))
        await forge.queues.pause("default")
        new = (await work.enqueue(name="new")).id
        await database.rows(f"UPDATE job SET id = {old} WHERE id = {new}")
        await database.rows(f"UPDATE ready SET job_id = {old} WHERE job_id = {new}")
        await forge.queues.resume("default")
        go.set()
        await eventually(lambda: events.of(OutcomesDropped))
        assert await forge.wait(old, timeout=30) == "new"
    assert ran == ["old", "new"]


async def test_a_worker_whose_own_beat_is_gone_tells_all_others_to_look(
    forge: Forge, database: Database, events: Events
) -> None:
    @forge.handler
    async def work() -> None:
        pass

    async with working(forge, **SOON), working(forge, **SOON):
        await forge.wait((await work.enqueue()).id, timeout=30)
        await database.rows("UPDATE worker SET beat_at = started_at WHERE id = (SELECT min(id) FROM worker)")
        await eventually(lambda: len(events.of(HistoryCut)) >= 2)
        await forge.wait((await work.enqueue()).id, timeout=30)


@pytest.fixture
def server() -> Iterator[LocalPostgres]:
    """A server that flushes nothing before it has to."""
    with CopiedPostgres(settings={"fsync": "off", "wal_writer_delay": "10s"}) as server:
        yield server


@pytest.mark.parametrize("immediate", [True, False])
async def test_no_job_runs_twice_at_once_because_the_server_forgot_its_claim(
    server: LocalPostgres, immediate: bool
) -> None:
    running: list[int] = []
    most: list[int] = []
    cut: list[HistoryCut] = []
    go = asyncio.Event()

    def program() -> Forge:
        forge = Forge(server.url())
        forge.telemetry.subscribe(lambda event: cut.append(event) if isinstance(event, HistoryCut) else None)

        @forge.handler
        async def work() -> None:
            running.append(1)
            most.append(len(running))
            try:
                await go.wait()
            finally:
                running.pop()

        return forge

    one, two = program(), program()
    async with one, two, working(one, **SOON), working(two, **SOON):
        job = await one.enqueue("work")
        await eventually(lambda: running)
        await asyncio.to_thread(server.restart, immediate=immediate)
        if immediate:
            await eventually(lambda: len(cut) == 2, within=60)
        later = await _enqueued(two)
        await eventually(lambda: len(running) == 2, within=60)
        go.set()
        for job_id in (job.id, later):
            await eventually(lambda job_id=job_id: _is_done(one, job_id), within=60)
    assert max(most) <= 2
    assert bool(cut) is immediate


async def _enqueued(forge: Forge) -> int:
    """Enqueue a job, as soon as the server takes it."""
    ids: list[int] = []

    async def enqueue() -> bool:
        try:
            ids.append((await forge.enqueue("work")).id)
        except Exception:
            return False
        return True

    await eventually(enqueue)
    return ids[0]


async def _is_done(forge: Forge, job_id: int) -> bool:
    return (await forge.jobs.get(job_id)).state is State.DONE
