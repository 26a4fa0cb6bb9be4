"""A worker whose SQLite file is replaced or removed says so, and works on what stands there now."""

from pathlib import Path

from forge_jobs import Forge
from forge_jobs.telemetry import DatabaseLost, Event, WorkerGivenUp
from tests.storage.databases import SqliteDatabase, migrated_storage
from tests.working.eventually import eventually
from tests.working.running import working


async def test_jobs_of_the_new_file_are_run_and_the_replacement_is_said(sqlite: SqliteDatabase) -> None:
    forge, said, ran = Forge(storage=sqlite.storage()), [], []

    def hear(event: Event) -> None:
        if isinstance(event, DatabaseLost | WorkerGivenUp):
            said.append(getattr(event, "error", "given up"))

    @forge.handler
    async def work(n: int) -> None:
        ran.append(n)

    forge.telemetry.subscribe(hear)
    async with forge, working(forge):
        await work.enqueue(n=1)
        await eventually(lambda: ran == [1])
        for suffix in ("", "-wal", "-shm"):
            Path(f"{sqlite.path}{suffix}").rename(f"{sqlite.path}.old{suffix}")
        await eventually(lambda: any("was removed while it was in use" in one for one in said))
        assert not sqlite.path.exists()

        async with migrated_storage(sqlite) as other:
            another = Forge(storage=other)
            await another.enqueue("work", {"n": 2})
            await eventually(lambda: ran == [1, 2])
    assert "given up" in said
