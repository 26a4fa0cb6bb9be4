"""The tables are made once, by whoever comes first, and never by an older release."""

import asyncio

import pytest

from forge_jobs.errors import SchemaOutdated, SchemaTooNew, StorageUnavailable
from forge_jobs.storage.migrate import Migration, migrations
from tests.storage.databases import migrated_storage
from tests.storage.factories import enqueue, enqueue_many, worker


@pytest.fixture
async def empty(storage):
    """The storage of a database in which nothing of ours is left."""
    await storage.schema.drop()
    return storage


async def names(database):
    return [row[0] for row in await database.rows("SELECT name FROM queue")]


@pytest.fixture(autouse=True)
async def made_again(database, storage):
    """The tables are there when the invariants are checked."""
    yield
    try:
        await storage.schema.migrate()
    except SchemaTooNew:
        await storage.schema.drop()
        await storage.schema.migrate()


async def test_a_migrated_database_says_so(storage):
    status = await storage.schema.status()

    assert status.found == status.known >= 1
    assert status.server.startswith(("PostgreSQL 1", "SQLite 3"))


async def test_an_empty_database_says_so_and_stays_empty(empty):
    assert (await empty.schema.status()).found == 0
    assert (await empty.schema.status()).found == 0


async def test_migrating_applies_every_migration_once(empty):
    known = (await empty.schema.status()).known

    assert await empty.schema.migrate() == len(migrations("sqlite"))
    assert (await empty.schema.status()).found == known
    assert await empty.schema.migrate() == 0
    assert await enqueue(empty) > 0


async def test_what_is_there_survives_another_migration(storage):
    job_id = await enqueue(storage)

    assert await storage.schema.migrate() == 0

    assert (await storage.jobs.get(job_id)).id == job_id


@pytest.fixture
def next_release(database, monkeypatch):
    """What migrates is a release that knows two migrations more than this one."""
    job = "{schema}.job" if database.kind == "postgres" else "job"
    known = migrations(database.kind)
    adds = f"ALTER TABLE {job} ADD COLUMN %s text NOT NULL DEFAULT 'none';"
    more = (
        Migration(known[-1].number + number, column, adds.replace("%s", column))
        for number, column in enumerate(("made_up", "made_up_too"), 1)
    )
    known = (*known, *more)
    monkeypatch.setattr(f"forge_jobs.storage.{database.kind}.schema.migrations", lambda _: known)


async def test_a_database_at_work_gets_the_migrations_that_it_lacks_and_no_other(
    storage, another, database, next_release
):
    job_id = await enqueue(storage)
    others = [storage, *[await another() for _ in range(4)]]

    assert (await storage.schema.status()).known == (await storage.schema.status()).found + 2
    applied = await asyncio.gather(*(mine.schema.migrate() for mine in others))

    assert sum(applied) == 2
    assert await storage.schema.migrate() == 0
    assert await database.rows("SELECT id, made_up, made_up_too FROM job") == [(job_id, "none", "none")]
    assert (await storage.jobs.get(job_id)).id == job_id
    await storage.schema.drop()  # and made again without them


async def test_ten_who_migrate_at_once_all_succeed(empty, another, database):
    storages = [empty, *[await another() for _ in range(9)]]

    applied = await asyncio.gather(*(mine.schema.migrate() for mine in storages))

    assert sum(applied) == len(migrations("sqlite"))
    assert await names(database) == ["default"]


async def test_a_release_works_on_with_a_newer_schema_that_only_added(storage, database):
    await _pretend_a_newer_release(database, breaking=False)

    assert await storage.schema.migrate() == 0
    status = await storage.schema.status()
    assert status.required <= status.known < status.found
    assert await enqueue(storage) > 0


async def test_a_database_of_a_newer_release_is_refused_and_left_alone(storage, database):
    await _pretend_a_newer_release(database)
    before = await database.rows("SELECT * FROM migration ORDER BY number")

    with pytest.raises(SchemaTooNew) as caught:
        await storage.schema.migrate()

    assert caught.value.found == caught.value.known + 1
    assert await database.rows("SELECT * FROM migration ORDER BY number") == before
    status = await storage.schema.status()
    assert status.found == status.known + 1


async def test_without_tables_the_error_says_what_to_do(empty):
    with pytest.raises(SchemaOutdated, match="migrate"):
        await enqueue(empty)
    with pytest.raises(SchemaOutdated):
        await worker(empty)
    with pytest.raises(SchemaOutdated):
        await empty.claims.claim(1, 1, limit=1)
    with pytest.raises(SchemaOutdated):
        await enqueue_many(empty, 2)


async def test_dropping_twice_is_dropping_once(empty):
    await empty.schema.drop()

    assert (await empty.schema.status()).found == 0


async def test_creating_a_database_that_is_there_leaves_it_alone(storage):
    job_id = await enqueue(storage)

    await storage.schema.create()

    assert (await storage.jobs.get(job_id)).id == job_id


async def test_a_storage_that_was_opened_before_the_tables_were_made_works(empty, another):
    other = await another()
    await empty.schema.migrate()

    assert await enqueue(other) > 0


async def test_a_storage_works_on_tables_that_were_dropped_and_made_again(storage):
    me = await worker(storage)
    await enqueue(storage)
    await storage.claims.claim(1, me, limit=1)
    await storage.schema.drop()
    await storage.schema.migrate()

    me = await worker(storage)
    for _ in range(3):  # plans and connections of before may each be refused once, and say so
        try:
            job_id = await enqueue(storage)
            [claimed] = await storage.claims.claim((await storage.queues.all())[0].id, me, limit=1)
            break
        except StorageUnavailable:
            await storage.schema.drop()
            await storage.schema.migrate()
            me = await worker(storage)

    assert claimed.job_id == job_id


async def test_closing_is_right_at_any_time(database):
    storage = database.storage()
    await storage.close()
    await storage.open()
    await storage.close()
    await storage.close()


async def test_a_closed_storage_is_unavailable(database):
    async with migrated_storage(database) as storage:
        pass

    with pytest.raises(StorageUnavailable):
        await storage.ping()
    with pytest.raises(StorageUnavailable):
        await enqueue(storage)


async def test_an_open_storage_answers(storage, clock):
    now = await clock.freeze()

    await storage.ping()

    assert abs((await storage.now() - now).total_seconds()) < 0.001


async def _pretend_a_newer_release(database, breaking=True):
    await database.rows(
        "INSERT INTO migration (number, name, applied_at, breaking) "
        f"SELECT max(number) + 1, 'later', max(applied_at), {str(breaking).lower()} FROM migration"
    )
