"""A worker whose SQLite file is replaced or removed says so, and works on what stands there now."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from forge_jobs import Forge
from forge_jobs.telemetry.events import DatabaseLost, Event, HistoryCut, WorkerCutOff
from tests.storage.databases import SqliteDatabase, migrated_storage
from tests.working.eventually import eventually
from tests.working.running import working


async def test_jobs_of_the_new_file_are_run_and_the_replacement_is_said(sqlite: SqliteDatabase) -> None:
    forge, said, ran = Forge(storage=sqlite.storage()), [], []

    def hear(event: Event) -> None:
        if isinstance(event, DatabaseLost | WorkerCutOff):
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


async def test_a_handler_whose_claim_a_restored_copy_does_not_have_is_stopped_however_new_the_copy_is(
    sqlite: SqliteDatabase,
) -> None:
    forge, began, stopped, cut = Forge(storage=sqlite.storage()), list[Any](), list[Any](), list[Any]()

    @forge.handler
    async def work(n: int) -> None:
        began.append(n)
        try:
            if n == 1:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(n)
            raise

    forge.telemetry.subscribe(
        lambda event: cut.extend(event.job_ids) if isinstance(event, HistoryCut) else None
    )
    async with forge, working(forge):
        copy = Path(f"{sqlite.path}.copy")
        with closing(sqlite3.connect(sqlite.path)) as there, closing(sqlite3.connect(copy)) as here:
            there.backup(here)
        lost = await work.enqueue(n=1)
        await eventually(lambda: began == [1])

        for suffix in ("-wal", "-shm"):
            Path(f"{sqlite.path}{suffix}").unlink()
        copy.rename(sqlite.path)
        await eventually(lambda: stopped == [1])
        await eventually(lambda: cut == [lost.id])
        await forge.wait(await work.enqueue(n=2), timeout=30)
    assert began == [1, 2]
