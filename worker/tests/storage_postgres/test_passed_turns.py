"""Jobs of a kind that is resumed go on from the turn that comes, and so do those that come meanwhile."""

from collections.abc import AsyncIterator

import pytest

from forge_jobs.errors import StorageUnavailable
from forge_jobs.storage.postgres import PostgresStorage, passed_turns
from tests.storage.factories import claim, enqueue, enqueue_many, worker


@pytest.fixture
async def storage(url: str) -> AsyncIterator[PostgresStorage]:
    storage = PostgresStorage(url)
    await storage.open()
    await storage.schema.migrate()
    yield storage
    await storage.close()


@pytest.fixture
async def passed(storage: PostgresStorage) -> int:
    """Jobs of a paused kind were passed over; the worker that did so."""
    me = await worker(storage)
    await storage.kinds.pause("paused", until=None, reason=None)
    await enqueue_many(storage, 50, kind="paused", tenant="a")
    await enqueue_many(storage, 200, tenant="b")
    assert len(await claim(storage, me, limit=100, without_kinds=["paused"])) == 100
    return me


async def test_jobs_that_come_while_a_kind_is_being_resumed_come_not_before_all_others(
    storage: PostgresStorage, passed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[int] = []
    go_on = passed_turns.go_on

    async def slowly(*facts: object) -> None:
        await go_on(*facts)  # type: ignore[arg-type]
        late.extend(await enqueue_many(storage, 30, kind="paused", tenant="late"))

    monkeypatch.setattr(passed_turns, "go_on", slowly)

    assert await storage.kinds.resume("paused")

    first = [(await storage.jobs.get(one.job_id)).tenant for one in await claim(storage, passed, limit=30)]
    assert set(first) == {"a", "b", "late"}
    assert first.count("late") == first.count("b") == 10


async def test_a_kind_that_nobody_could_resume_to_the_end_is_resumed_by_the_leader(
    storage: PostgresStorage, passed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as dying:
        dying.setattr(passed_turns, "go_on", die)
        with pytest.raises(StorageUnavailable):
            await storage.kinds.resume("paused")

    assert (await storage.kinds.end_pauses())[0] == ["paused"]
    assert await storage.kinds.paused() == []
    first = [(await storage.jobs.get(one.job_id)).tenant for one in await claim(storage, passed, limit=20)]
    assert first.count("a") == first.count("b") == 10


async def test_many_tenants_go_on_some_at_a_time(
    storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passed_turns, "TOGETHER", 7)
    me = await worker(storage)
    await storage.kinds.pause("paused", until=None, reason=None)
    for number in range(20):
        await enqueue(storage, kind="paused", tenant=f"t{number}")
    await enqueue_many(storage, 30, tenant="b")
    await claim(storage, me, limit=10, without_kinds=["paused"])

    await storage.kinds.resume("paused")

    again = [await enqueue(storage, kind="paused", tenant=f"t{number}") for number in range(20)]
    claimed = [one.job_id for one in await claim(storage, me, limit=100)]
    assert len(claimed) == 60
    assert not set(claimed[:20]) & set(again)
