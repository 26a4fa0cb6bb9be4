"""The file: where it is, what it may be, and what the caller does to it."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from forge_jobs.errors import InvalidInput, KeyBusy, SchemaOutdated, StorageUnavailable
from forge_jobs.model.job import NewJob
from forge_jobs.storage.migrate import migrations
from forge_jobs.storage.sqlite import SqliteStorage
from tests.storage_sqlite.processes import heard_from, start


async def test_opening_makes_the_folder_and_the_file(tmp_path):
    path = tmp_path / "jobs" / "data" / "queue.sqlite"
    storage = SqliteStorage(f"sqlite:///{path}")

    await storage.open()
    await storage.close()

    assert path.exists()


async def test_a_status_makes_no_file(path, url):
    status = await SqliteStorage(url).schema.status()

    assert (status.found, path.exists()) == (0, False)


async def test_the_tables_are_made_without_opening_the_storage(url):
    storage = SqliteStorage(url)
    await storage.schema.create()

    assert await storage.schema.migrate() == len(migrations("sqlite"))
    assert await storage.schema.migrate() == 0


async def test_a_file_that_is_no_database_is_a_clear_error(path, url):
    path.write_bytes(b"this is a letter to my grandmother, not a database" * 100)

    with pytest.raises(StorageUnavailable, match="not a database"):
        await SqliteStorage(url).open()


async def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageUnavailable, match="cannot be made"):
        await SqliteStorage(f"sqlite:///{tmp_path}/file/queue.sqlite").open()


async def test_a_storage_that_is_not_open_says_so(url):
    with pytest.raises(StorageUnavailable, match="is not open"):
        await SqliteStorage(url).jobs.enqueue(NewJob("work"))


async def test_without_the_tables_the_schema_is_outdated(url):
    storage = SqliteStorage(url)
    await storage.open()

    with pytest.raises(SchemaOutdated, match="forge-jobs db migrate"):
        await storage.jobs.enqueue(NewJob("work"))
    with pytest.raises(SchemaOutdated):
        await storage.jobs.counts()
    await storage.close()


async def test_dropping_leaves_the_tables_of_the_program(storage, path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")

    await storage.schema.drop()

    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
        ).fetchall()
    assert tables == [("orders",)]


async def test_a_database_in_memory_does_everything_on_one_connection():
    storage = SqliteStorage("sqlite://:memory:")
    await storage.open()
    await storage.schema.migrate()

    job = await storage.jobs.enqueue(NewJob("work"))

    assert (await storage.jobs.get(job.id)).kind == "work"
    await storage.close()


async def test_the_clock_of_the_storage_is_the_databases(url):
    moment = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    storage = SqliteStorage(url, clock=lambda: moment)
    await storage.open()
    await storage.schema.migrate()

    job = await storage.jobs.enqueue(NewJob("work"))

    assert await storage.now() == moment
    assert (await storage.jobs.get(job.id)).created_at == moment
    await storage.close()


def test_synchronous_is_normal_or_full(url):
    SqliteStorage(url, synchronous="FULL")

    with pytest.raises(InvalidInput, match="NORMAL or FULL"):
        SqliteStorage(url, synchronous="OFF")


@pytest.mark.parametrize("isolation_level", [None, "", "IMMEDIATE"])
async def test_a_job_is_part_of_the_callers_transaction(storage, path, isolation_level):
    with closing(sqlite3.connect(path, isolation_level=isolation_level)) as connection:
        connection.row_factory = sqlite3.Row
        if isolation_level is None:
            connection.execute("BEGIN")
        await storage.jobs.enqueue(NewJob("work"), connection=connection)
        assert await storage.jobs.find() == []
        connection.rollback()
        assert await storage.jobs.find() == []

        await storage.jobs.enqueue_many([NewJob("work")] * 2, connection=connection)
        connection.commit()

    assert len(await storage.jobs.find()) == 2


def as_dict(cursor, row):
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


@pytest.mark.parametrize("row_factory", [None, sqlite3.Row, as_dict])
async def test_a_callers_connection_may_give_rows_and_texts_in_any_form(storage, path, row_factory):
    with closing(sqlite3.connect(path)) as own:
        own.row_factory, own.text_factory = row_factory, bytes
        answers = [
            await storage.jobs.enqueue(NewJob("work", key="k"), connection=own),
            await storage.jobs.enqueue(NewJob("work", key="k"), connection=own),
            *await storage.jobs.enqueue_many([NewJob("work", key=key) for key in "kl"], connection=own),
        ]
        own.commit()

        assert (own.row_factory, own.text_factory) == (row_factory, bytes)

    assert [answer.duplicate for answer in answers] == [False, True, True, False]
    assert len(await storage.jobs.find()) == 2


async def test_a_refused_job_leaves_the_callers_transaction_as_it_was(storage, path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        with pytest.raises(InvalidInput):
            await storage.jobs.enqueue_many(
                [NewJob("work"), NewJob("work", queue="nowhere")], connection=connection
            )
        connection.execute("COMMIT")

    assert await storage.jobs.find() == []


async def test_something_that_is_no_connection_is_a_clear_error(storage):
    with pytest.raises(
        InvalidInput, match=r"connection is a builtins\.str, allowed is a connection of sqlite3"
    ):
        await storage.jobs.enqueue(NewJob("work"), connection="here")


async def test_a_connection_that_is_closed_is_a_clear_error(storage, path):
    connection = sqlite3.connect(path)
    connection.close()

    with pytest.raises(InvalidInput, match="cannot be used"):
        await storage.jobs.enqueue(NewJob("work"), connection=connection)


async def test_a_keyed_job_that_cannot_be_written_for_long_names_its_key(storage, path, url):
    impatient = SqliteStorage(url)
    impatient._database.busy_seconds = 0.1
    await impatient.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(KeyBusy, match=r"Key '42' of kind 'send' .* has not ended for 0\.1 s; nothing"):
            await impatient.jobs.enqueue(NewJob("send", key="42"))
    await impatient.close()

    assert await storage.jobs.find() == []


async def _migrated(url):
    storage = SqliteStorage(url)
    await storage.open()
    await storage.schema.migrate()
    await storage.close()


def _move_away(path):
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").rename(f"{path}.old{suffix}")


async def test_a_file_that_was_replaced_is_said_and_the_new_one_is_used(storage, path, url):
    await storage.jobs.enqueue(NewJob("of_the_old"))
    assert len(await storage.jobs.find()) == 1
    _move_away(path)
    await _migrated(url)

    with pytest.raises(StorageUnavailable, match="was replaced while it was in use"):
        await storage.jobs.enqueue(NewJob("never_stored"))
    await storage.jobs.enqueue(NewJob("of_the_new"))

    assert [job.kind for job in await storage.jobs.find()] == ["of_the_new"]
    with closing(sqlite3.connect(path)) as there:
        assert there.execute("SELECT kind FROM job").fetchall() == [("of_the_new",)]


async def test_nothing_is_stored_in_a_file_that_was_removed_until_it_is_there_again(storage, path, url):
    await storage.jobs.find()
    _move_away(path)

    for _ in range(2):
        with pytest.raises(StorageUnavailable, match="was removed while it was in use"):
            await storage.jobs.enqueue(NewJob("work"))
        with pytest.raises(StorageUnavailable, match="was removed while it was in use"):
            await storage.ping()
    assert not path.exists()

    await _migrated(url)
    with pytest.raises(StorageUnavailable):
        await storage.jobs.enqueue(NewJob("work"))
    await storage.jobs.enqueue(NewJob("work"))
    assert len(await storage.jobs.find()) == 1


async def test_a_log_that_was_removed_is_said_and_costs_no_job(storage, path):
    kept = await storage.jobs.enqueue(NewJob("work"))
    Path(f"{path}-wal").unlink()

    with pytest.raises(StorageUnavailable, match="-wal file, was removed"):
        await storage.jobs.enqueue(NewJob("work"))
    later = await storage.jobs.enqueue(NewJob("work"))

    assert {kept.id, later.id} <= {job.id for job in await storage.jobs.find()}


async def test_whoever_listens_hears_that_the_file_is_another(storage, path, url):
    heard: asyncio.Queue[Any] = asyncio.Queue()
    listening = asyncio.create_task(storage.wakeups.listen(lambda kind, subject: heard.put_nowait(kind)))
    assert await heard.get() == "reconnect"  # listening began
    _move_away(path)

    assert await asyncio.wait_for(heard.get(), 10) == "reconnect"
    listening.cancel()


async def test_who_keeps_a_write_waiting_is_named(storage, path, url):
    impatient = SqliteStorage(url)
    impatient._database.busy_seconds = 0.1
    await impatient.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as ours:
        ours.execute("BEGIN IMMEDIATE")

        with pytest.raises(StorageUnavailable, match="another connection of this very process"):
            await impatient.jobs.enqueue(NewJob("work"))

    holder = await start("hold", url)
    assert await heard_from(holder) == "held"
    with pytest.raises(StorageUnavailable, match=f"waiting for process {holder.pid} "):
        await impatient.jobs.enqueue(NewJob("work"))
    holder.kill()
    await holder.wait()

    await impatient.jobs.enqueue(NewJob("work"))
    await impatient.close()


async def test_nothing_of_a_job_is_behind_its_payload_whose_pages_would_have_to_be_read_for_it(path, url):
    await SqliteStorage(url).schema.create()
    await SqliteStorage(url).schema.migrate()

    with closing(sqlite3.connect(path)) as connection:
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(job)")]

    assert columns[-1] == "payload"
