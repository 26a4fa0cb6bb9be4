"""Where the jobs of the other package are in the same database, one transaction moves them."""

import secrets

import pytest

from forge_jobs.client.imports import Import
from forge_jobs.errors import StorageUnavailable
from forge_jobs.model.foreign_job import ForeignQueue
from forge_jobs.rules import foreign_jobs
from forge_jobs.storage.postgres.foreign_jobs import PostgresForeignJobs
from tests.elsewhere.databases import kept
from tests.storage.databases import PostgresDatabase
from tests.storage.factories import enqueue
from tests.storage.invariants import check_invariants
from tests.storage.test_imports import set_aside_and_die

TABLES = {
    ForeignQueue.GRAPHILE: "graphile_worker._private_jobs",
    ForeignQueue.PROCRASTINATE: "public.procrastinate_jobs",
}


@pytest.fixture
async def home(postgres_server):
    """A database of ours, in which there is room for others."""
    home = PostgresDatabase(postgres_server, f"forge_test_{secrets.token_hex(4)}")
    await home.create()
    yield home
    await home.drop()


@pytest.fixture
async def here(home):
    storage = home.storage()
    await storage.open()
    yield storage
    await check_invariants(storage, home)
    await storage.close()


@pytest.mark.parametrize("package", list(ForeignQueue))
async def test_a_batch_is_moved_in_one_transaction(home, here, package, monkeypatch):
    await home.run(kept(package))
    [(before,)] = await home.rows(f"SELECT count(*) FROM {TABLES[package]}")
    remove = PostgresForeignJobs.remove

    async def cut_off(there, ids, *, connection):
        await remove(there, ids, connection=connection)
        raise StorageUnavailable("cut off")

    monkeypatch.setattr(PostgresForeignJobs, "remove", cut_off)
    with pytest.raises(StorageUnavailable):
        await Import(here, package).run()
    assert await here.jobs.find() == []
    assert await home.rows(f"SELECT count(*) FROM {TABLES[package]}") == [(before,)]

    monkeypatch.setattr(PostgresForeignJobs, "remove", remove)
    report = await Import(here, package).run()

    assert len(await here.jobs.find()) == report.count
    assert await home.rows(f"SELECT count(*) FROM {TABLES[package]}") == [(before - report.count,)]


async def test_a_job_whose_key_is_taken_here_stays_there(home, here):
    await home.run(kept("graphile"))
    await enqueue(here, "remind", key="cart:7")

    report = await Import(here, ForeignQueue.GRAPHILE).run()

    assert report.left[foreign_jobs.HAS_KEY] == 1
    keys = await home.rows("SELECT key FROM graphile_worker._private_jobs WHERE key IS NOT NULL ORDER BY key")
    assert keys == [("cart:7",), ("lost",)]


async def test_a_job_that_another_transaction_has_locked_stays_there(home, here):
    await home.run(kept("graphile"))
    async with home.transaction() as other:
        await other.execute("SELECT FROM graphile_worker._private_jobs WHERE id = 1 FOR UPDATE")

        for dry_run in (True, False):
            report = await Import(here, ForeignQueue.GRAPHILE).run(dry_run=dry_run)
            assert (report.count, report.left[foreign_jobs.IS_LOCKED]) == (6, 1)

    report = await Import(here, ForeignQueue.GRAPHILE).run()
    assert (report.count, report.left[foreign_jobs.IS_LOCKED]) == (1, 0)


async def test_what_was_set_aside_in_this_database_comes_too(home, here, monkeypatch):
    """Somebody named it as another database first, and was cut off."""
    await home.run(kept("graphile"))
    await set_aside_and_die(here, home.url, monkeypatch)

    assert (await Import(here, ForeignQueue.GRAPHILE).run(dry_run=True)).count == 7
    assert (await Import(here, ForeignQueue.GRAPHILE).run()).count == 7
    assert len(await here.jobs.find()) == 7


async def test_a_schema_of_another_name_is_named(home, here):
    await home.run(kept("graphile").replace("graphile_worker", "other"))

    assert (await Import(here, ForeignQueue.GRAPHILE, schema="other").run()).count == 7
