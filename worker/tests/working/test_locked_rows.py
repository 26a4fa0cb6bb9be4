"""Rows that somebody else has locked hold up those outcomes only, and tables that a leader looks at neither its lead nor its jobs."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from forge_jobs import Forge, State
from forge_jobs.maintenance import leader
from forge_jobs.telemetry.events import (
    LeaderChanged,
    OutcomesDropped,
    OutcomesHeld,
    OutcomesParted,
    WorkerCutOff,
)
from tests.storage.databases import PostgresDatabase
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


@pytest.fixture
def database(postgres: PostgresDatabase) -> PostgresDatabase:
    """SQLite locks no rows."""
    return postgres


async def test_a_row_that_somebody_locked_holds_up_its_own_outcome_only(
    forge: Forge, database: PostgresDatabase, events: Events
) -> None:
    gate = asyncio.Event()

    @forge.handler
    async def work() -> None:
        await gate.wait()

    async with working(forge, concurrency=20):
        ids = [each.id for each in await work.enqueue_many([{}] * 12)]
        await eventually(lambda: _all_are(forge, ids, State.IN_PROGRESS))
        somebody = await asyncpg.connect(database.url)
        try:
            transaction = somebody.transaction()
            await transaction.start()
            await somebody.execute(
                "SELECT FROM forge_jobs.claimed WHERE job_id = ANY ($1) FOR UPDATE", [ids[2], ids[9]]
            )
            gate.set()
            for job_id in ids:
                if job_id not in (ids[2], ids[9]):
                    await forge.wait(job_id, timeout=30)
            await eventually(lambda: events.of(OutcomesHeld))
            later = (await work.enqueue()).id
            await forge.wait(later, timeout=30)
            assert await _all_are(forge, [ids[2], ids[9]], State.IN_PROGRESS)
            await transaction.rollback()
        finally:
            somebody.terminate()
        for job_id in ids:
            await forge.wait(job_id, timeout=30)
    assert not events.of(OutcomesDropped)
    assert any({ids[2], ids[9]} & set(event.job_ids) for event in events.of(OutcomesParted))


@pytest.mark.parametrize(
    ("lock", "leads_on"),
    [("LOCK TABLE forge_jobs.flow", True), ("SELECT FROM forge_jobs.leader FOR UPDATE", False)],
)
async def test_a_leader_whose_look_is_locked_out_goes_on_and_one_whose_lease_is_leads_again_later(
    forge: Forge,
    database: PostgresDatabase,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
    lock: str,
    leads_on: bool,
) -> None:
    monkeypatch.setattr(leader, "LEASE", timedelta(seconds=4))
    monkeypatch.setattr(leader, "RENEW_EVERY", 1.0)

    @forge.handler
    async def work() -> None:
        pass

    async with working(forge, heartbeat=timedelta(seconds=0.3), stale=timedelta(seconds=9)) as worker:
        await eventually(lambda: events.of(LeaderChanged))
        assert worker.session is not None
        session, epoch = worker.session, worker.session.leader.epoch
        somebody = await asyncpg.connect(database.url)
        try:
            await somebody.execute(f"BEGIN; {lock}")
            until = session.leader._until
            if leads_on:
                await eventually(lambda: session.leader._until > until + 5)
                assert session.leader.epoch == epoch
            else:
                await eventually(lambda: session.leader.epoch is None)
            await forge.wait((await work.enqueue()).id, timeout=30)
            await somebody.execute("ROLLBACK")
        finally:
            somebody.terminate()
        await eventually(lambda: session.leader.epoch is not None)
        assert (session.leader.epoch == epoch) == leads_on
        assert worker.session is session and not events.of(WorkerCutOff)


async def _all_are(forge: Forge, ids: list[int], state: State) -> bool:
    return {(await forge.jobs.get(job_id)).state for job_id in ids} == {state}
