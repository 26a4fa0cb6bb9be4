"""Roles of the server that may do what they are there for, and nothing else; also after an upgrade."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from forge_jobs import Context, Forge, Reschedule, Retry, Settings, Signalled, Worker, acting_as
from forge_jobs.errors import ForgeError, StorageUnusable
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import Hold, NewJob
from forge_jobs.model.signal import NewSignal, Recipient
from forge_jobs.storage.interface.schema import Purpose
from forge_jobs.storage.postgres import PostgresStorage, rights
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.schema import PostgresSchema
from forge_jobs.telemetry.events import (
    ChoreFailed,
    CronHeldUp,
    DatabaseLost,
    KindsUnpublished,
    OutcomeRefused,
    OutcomesHeld,
)
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.storage.factories import awaiting, worker
from tests.storage_postgres.conftest import ROLES, as_role, until, with_schema
from tests.storage_postgres.next_release import KNOWN, NEEDED, NEXT

HOUR = timedelta(hours=1)


def test_the_page_shows_what_is_granted_to_who_enqueues() -> None:
    page = (Path(__file__).parents[3] / "docs/operating.md").read_text(encoding="utf-8")

    assert "\n".join(rights.grants("forge_jobs", "shop_web", Purpose.ENQUEUER)) in page


@pytest.fixture
def url(server: LocalPostgres, with_tables: str) -> Iterator[str]:
    """The URL of a database of the test's own, with tables."""
    yield server.create_database("rights", template=with_tables)
    server.drop_database("rights")


@pytest.fixture
async def tables(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the role that owns them."""
    connection = await asyncpg.connect(as_role(url, "owner"))
    yield connection
    await connection.close()


@pytest.fixture
def bare(server: LocalPostgres, roles: None) -> Iterator[str]:
    """The URL of one without tables."""
    yield with_schema(server, "bare")
    server.drop_database("bare")


@pytest.fixture
async def owner(bare: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the role that owns its schema."""
    connection = await asyncpg.connect(as_role(bare, "owner"))
    yield connection
    await connection.close()


async def grant(owner: asyncpg.Connection, purpose: Purpose) -> None:
    """Let the role of that purpose do it, as the command line says."""
    schema = PostgresSchema(PostgresDatabase("postgresql:///any"))
    for statement in schema.grants(ROLES[purpose], purpose):
        await owner.execute(statement)


async def opened(url: str, purpose: Purpose) -> PostgresStorage:
    """Return the database as the role of that purpose sees it."""
    storage = PostgresStorage(as_role(url, ROLES[purpose]))
    await storage.open()
    return storage


TROUBLES = (ChoreFailed, DatabaseLost, KindsUnpublished, OutcomesHeld, OutcomeRefused, CronHeldUp)

OPTIONS: list[dict[str, Any]] = [
    {"tags": ("a",)},
    {"priority": 3},
    {"max_attempts": 2},
    {"timeout": HOUR},
    {"delay": HOUR},
    {"run_at": datetime(2100, 1, 1, tzinfo=UTC)},
    {"key": "one"},
    {"key": "one"},
    {"hold": Hold(b"one", HOUR)},
    {"hold": Hold(b"one", HOUR)},
    {"queue": "default", "codec": "msgpack", "payload": b"\x80"},
]


async def singly(storage: PostgresStorage) -> None:
    for option in OPTIONS:
        await storage.jobs.enqueue(NewJob("work", **option))


async def in_a_small_batch(storage: PostgresStorage) -> None:
    await storage.jobs.enqueue_many(
        [NewJob("work", **option) for option in OPTIONS if not option.keys() & {"key", "hold"}]
    )


async def in_bulk(storage: PostgresStorage) -> None:
    await storage.jobs.enqueue_many(
        [*(NewJob("work", **option) for option in OPTIONS), *[NewJob("work")] * 300]
    )


async def in_a_transaction(storage: PostgresStorage) -> None:
    connection = await storage._database.connect()
    try:
        async with connection.transaction():
            for option in OPTIONS:
                await storage.jobs.enqueue(NewJob("work", **option), connection=connection)
            await storage.jobs.enqueue_many([NewJob("work")] * 300, connection=connection)
            await storage.jobs.enqueue_many([NewJob("work", key="two")], connection=connection)
    finally:
        await storage._database.disconnect(connection)


async def in_groups(storage: PostgresStorage) -> None:
    for limit in (1, 1, 2):
        await storage.jobs.enqueue(NewJob("work", groups=encoded([Group("a", limit=limit)])))


async def of_tenants(storage: PostgresStorage) -> None:
    for tenant in ("a", "a", "b"):
        await storage.jobs.enqueue(NewJob("work", tenant=tenant))
    await storage.jobs.enqueue_many([NewJob("work", tenant="a")] * 300)


async def in_sql(storage: PostgresStorage) -> None:
    for given in (
        "",
        ", key => 'one'",
        ", run_at => now() + interval '1 h'",
        ", priority => 3, max_attempts => 2",
    ):
        await storage._database.fetchval(f"SELECT {{schema}}.enqueue('work'{given})")


WAYS: list[Callable[[PostgresStorage], Awaitable[None]]] = [
    singly,
    in_a_small_batch,
    in_bulk,
    in_a_transaction,
    in_groups,
    of_tenants,
    in_sql,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_who_may_only_enqueue_enqueues_in_every_way(
    tables: asyncpg.Connection, url: str, way: Callable[[PostgresStorage], Awaitable[None]]
) -> None:
    await grant(tables, Purpose.ENQUEUER)
    storage = await opened(url, Purpose.ENQUEUER)

    await way(storage)

    assert await tables.fetchval("SELECT count(*) FROM forge_jobs.jobs") >= 3
    await storage.close()


async def test_a_program_that_may_only_enqueue_opens_with_its_handlers(
    tables: asyncpg.Connection, url: str
) -> None:
    await grant(tables, Purpose.ENQUEUER)
    await tables.execute("INSERT INTO forge_jobs.queue (name) VALUES ('mail')")
    forge = Forge(as_role(url, "producer"))

    @forge.handler(queue="mail")
    async def work() -> None: ...

    async with forge:
        await work.enqueue()


async def test_who_may_only_enqueue_may_do_nothing_else(tables: asyncpg.Connection, url: str) -> None:
    await grant(tables, Purpose.ENQUEUER)
    storage = await opened(url, Purpose.ENQUEUER)
    job = await storage.jobs.enqueue(NewJob("work", payload=b"secret"))

    for call in (
        lambda: storage.jobs.get(job.id),
        lambda: storage.jobs.cancel(job.id),
        lambda: storage.jobs.counts(),
        lambda: storage.queues.set("default", {"paused": True}),
        lambda: storage.queues.ensure(["more"]),
        lambda: storage.claims.claim(1, 7, limit=1),
        lambda: storage.workers.all(),
        lambda: storage._database.fetch("SELECT payload FROM {schema}.job"),
        lambda: storage._database.fetch("SELECT * FROM {schema}.jobs"),
        lambda: storage._database.fetch("DELETE FROM {schema}.job"),
        lambda: storage._database.fetch("UPDATE {schema}.job SET priority = -1"),
    ):
        with pytest.raises(StorageUnusable, match=r"The role of .* lacks a right on table '\w+'"):
            await call()
    await storage.close()


def each_right(purpose: Purpose) -> list[tuple[str, str]]:
    return [
        (relation, right)
        for relation, given in rights.RIGHTS[purpose].items()
        for right in given.split(", ")
        if relation != "migration"
    ]


@pytest.mark.parametrize(("relation", "right"), each_right(Purpose.ENQUEUER))
async def test_who_enqueues_needs_each_right_and_is_told_of_one_that_is_missing(
    tables: asyncpg.Connection, url: str, relation: str, right: str
) -> None:
    await grant(tables, Purpose.ENQUEUER)
    await tables.execute(f"REVOKE {right} ON forge_jobs.{relation} FROM producer")
    storage = await opened(url, Purpose.ENQUEUER)
    said: list[str] = []
    for way in WAYS:
        try:
            await way(storage)
        except ForgeError as error:
            said.append(str(error))

    assert said
    for sentence in said:
        assert f"The role of {storage.url} lacks a right on table {relation!r}" in sentence or (
            f"The role of the given connection lacks a right on table {relation!r}" in sentence
        )
        assert f"who enqueues needs {rights.RIGHTS[Purpose.ENQUEUER][relation]}" in sentence
        assert "forge-jobs db grants" in sentence
    await storage.close()


@pytest.mark.parametrize(
    ("revoked", "said"),
    [
        ("USAGE ON SCHEMA forge_jobs", "lacks USAGE on schema 'forge_jobs'"),
        ("USAGE ON SEQUENCE forge_jobs.job_id_seq", "lacks USAGE on sequence 'job_id_seq'"),
        ("EXECUTE ON FUNCTION forge_jobs.micros", "lacks EXECUTE on function 'micros'"),
    ],
)
async def test_what_is_missing_besides_tables_is_named_too(
    tables: asyncpg.Connection, url: str, revoked: str, said: str
) -> None:
    await grant(tables, Purpose.ENQUEUER)
    await tables.execute(f"REVOKE {revoked} FROM producer, PUBLIC")
    storage = await opened(url, Purpose.ENQUEUER)

    with pytest.raises(StorageUnusable, match=re.escape(said)):
        await in_a_small_batch(storage)
    await storage.close()


async def test_every_table_and_function_has_its_purposes(tables: asyncpg.Connection) -> None:
    relations = await tables.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'forge_jobs'::regnamespace AND relkind IN ('r', 'p', 'v')"
    )
    functions = await tables.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'forge_jobs'::regnamespace"
    )

    assert {name for (name,) in relations} == rights.RIGHTS[Purpose.READER].keys()
    assert rights.RIGHTS[Purpose.WORKER].keys() == rights.RIGHTS[Purpose.READER].keys()
    assert {name for (name,) in functions} == {*rights.FUNCTIONS, rights.PROCEDURE}


async def test_a_worker_that_may_work_does_everything(
    tables: asyncpg.Connection, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for chore in ("SWEEP_EVERY", "FOLD_EVERY", "WARN_EVERY"):
        monkeypatch.setattr(f"forge_jobs.maintenance.leader.{chore}", 0.1)
    await grant(tables, Purpose.WORKER)
    forge = Forge(as_role(url, "labourer"))
    troubles: list[object] = []
    forge.telemetry.subscribe(lambda event: troubles.append(event) if type(event) in TROUBLES else None)

    @forge.handler(queue="mail", priority=1)
    async def work(ctx: Context, how: str) -> str | None:
        await ctx.enqueue("echo", key=f"of {ctx.job_id}")
        if ctx.attempt == 1 and how == "retry":
            raise Retry(timedelta(seconds=0.01))
        if ctx.attempt == 1 and how == "reschedule":
            raise Reschedule(timedelta(seconds=0.01))
        if how == "fail":
            raise ValueError(how)
        return how

    @forge.handler
    async def echo() -> None: ...

    async with forge:
        await forge.queues.set("mail", concurrency=2, backoff_enabled=False, max_attempts=2)
        await forge.limits.set("slack", capacity=1_000, per=1)
        await forge.queues.set("default", rate_limit="slack", done_retention=0)
        await forge.crons.set("often", "* * * * * *", "echo")
        worker = Worker(forge, queues=["mail", "default"], concurrency=5)
        running = asyncio.create_task(worker.run())
        jobs = [await work.enqueue(how=how) for how in ("return", "retry", "reschedule", "fail")]
        jobs += await work.enqueue_many([{"how": "return"}] * 300)

        async def all_ended() -> bool:
            counts = {each.queue: each for each in await forge.jobs.counts()}["mail"]
            return (counts.done, counts.dead) == (303, 1)

        async def has_fired() -> bool:
            return (await forge.crons.get("often")).last_fire_at is not None

        await until(all_ended)
        await until(has_fired)
        await forge.jobs.retry(jobs[3].id)
        await forge.jobs.cancel((await forge.enqueue("echo", delay=3600)).id)
        await forge.jobs.delete(jobs[0].id)
        worker.stop()
        await running

    assert troubles == []


async def test_who_may_only_look_sees_everything_and_changes_nothing(
    tables: asyncpg.Connection, url: str
) -> None:
    await grant(tables, Purpose.READER)
    async with Forge(as_role(url, "owner")) as forge:
        job = await forge.enqueue("work")

    async with Forge(as_role(url, "visitor")) as forge:
        assert [each.id for each in await forge.jobs.list(queue="default")] == [job.id]
        assert (await forge.jobs.why(job.id)).reasons == ("No live worker serves queue 'default'.",)
        assert [each.pending for each in await forge.jobs.counts()] == [1]
        await forge.jobs.upcoming(3600)
        for look in (forge.queues, forge.crons, forge.limits, forge.workers, forge.kinds, forge.owners):
            await look.list()
        await forge.versions.all()
        async for _ in forge.storage.audit.jobs():
            pass
        for view in ("jobs", "depth", "scaling_signal"):
            await forge.storage._database.fetch(f"SELECT * FROM {{schema}}.{view}")  # type: ignore[attr-defined]
        for change in (
            lambda: forge.enqueue("work"),
            lambda: forge.jobs.cancel(job.id),
            lambda: forge.queues.pause("default"),
        ):
            with pytest.raises(StorageUnusable, match=r"lacks a right on table '\w+'"):
                await change()


async def test_who_may_only_signal_sends_signals_in_every_way(tables: asyncpg.Connection, url: str) -> None:
    await grant(tables, Purpose.SIGNALLER)
    settings = Settings.load({"FORGE_CALLBACK_SECRETS": "a secret of at least 32 characters"})
    async with Forge(as_role(url, "owner")) as forge:
        waiting = await awaiting(forge.storage, await worker(forge.storage))
        job = await forge.enqueue("work", key="one", tags=["night"])
    sender = Forge(as_role(url, "messenger"), settings=settings)

    @sender.handler
    async def work() -> None: ...

    async with sender:
        token = await sender.callback_token(job, "token", expires=60)
        assert await sender.signal("approved", {"by": "ada"}, job=waiting.job_id) is Signalled.WOKEN
        assert await sender.signal("key", kind="work", key="one") is Signalled.KEPT
        assert await sender.signal("tag", tag="night") == {job.id: Signalled.KEPT}
        assert await sender.signal("tag", tag="day") == {}
        assert await sender.signal_by_token(token) is Signalled.KEPT
        assert await sender.signal("late", job=4711) is Signalled.UNKNOWN
        with acting_as("ada"):
            assert await sender.signal("by hand", tag="night") == {job.id: Signalled.KEPT}
    connection = await asyncpg.connect(as_role(url, "messenger"))
    async with connection.transaction():
        assert await sender.signal("connection", job=job, connection=connection) is Signalled.KEPT
    [(_, answer)] = await connection.fetch(
        "SELECT * FROM forge_jobs.signal('sql', '7', kind => 'work', key => 'one')"
    )
    await connection.close()

    assert answer == "kept"
    names = [name for (name,) in await tables.fetch("SELECT name FROM forge_jobs.signal ORDER BY id")]
    assert names == ["approved", "key", "tag", "token", "by hand", "connection", "sql"]
    noted = "SELECT job_id, by_whom, role, note FROM forge_jobs.intervention"
    assert [tuple(row) for row in await tables.fetch(noted)] == [(job.id, "ada", "messenger", "by hand")]


async def test_who_may_only_signal_may_do_nothing_else(tables: asyncpg.Connection, url: str) -> None:
    await grant(tables, Purpose.SIGNALLER)
    async with Forge(as_role(url, "owner")) as forge:
        job = await forge.enqueue("work", {"secret": 1}, key="one")
        await forge.signal("approved", {"secret": 1}, job=job)
    storage = await opened(url, Purpose.SIGNALLER)
    fetch = storage._database.fetch

    for call in (
        lambda: storage.jobs.enqueue(NewJob("work")),
        lambda: storage.jobs.get(job.id),
        lambda: storage.jobs.cancel(job.id),
        lambda: storage.jobs.counts(),
        lambda: storage.queues.set("default", {"paused": True}),
        lambda: storage.claims.claim(1, 7, limit=1),
        lambda: storage.signals.of_job(job.id),
        lambda: fetch("SELECT payload FROM {schema}.job"),
        lambda: fetch("SELECT value FROM {schema}.signal"),
        lambda: fetch("INSERT INTO {schema}.signal (job_id, name, codec, at) VALUES (1, 'x', 'json', now())"),
        lambda: fetch("DELETE FROM {schema}.signal"),
        lambda: fetch("DELETE FROM {schema}.intervention"),
        lambda: fetch("SELECT by_whom FROM {schema}.intervention"),
        lambda: fetch(
            "INSERT INTO {schema}.intervention (at, what, by_whom, role) VALUES (now(), 'paused', 'x', 'y')"
        ),
        lambda: fetch("UPDATE {schema}.step SET result = NULL"),
        lambda: fetch("UPDATE {schema}.job SET replaced = 7"),
        lambda: fetch("SELECT * FROM {schema}.remove('work', 'one')"),
        lambda: fetch("SELECT {schema}.send(1, 'x', NULL, 'json', 'first', NULL, true, NULL)"),
        lambda: fetch("SELECT {schema}.end_wait(1, true)"),
    ):
        with pytest.raises(StorageUnusable, match=r"lacks (a right on table|EXECUTE on function)"):
            await call()
    await storage.close()


async def test_a_signaller_can_put_nothing_of_its_own_into_what_the_owner_does(
    tables: asyncpg.Connection, url: str
) -> None:
    await grant(tables, Purpose.SIGNALLER)
    async with Forge(as_role(url, "owner")) as forge:
        job = await forge.enqueue("work")
    connection = await asyncpg.connect(as_role(url, "messenger"))
    await connection.execute(
        "CREATE TEMP TABLE called (by text); GRANT ALL ON called TO PUBLIC;"
        "CREATE FUNCTION pg_temp.statement_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO pg_temp.called VALUES (current_user); RETURN pg_catalog.statement_timestamp(); END $$;"
        "CREATE TEMP TABLE signal (LIKE forge_jobs.migration); SET search_path = pg_temp, pg_catalog"
    )
    [(_, answer)] = await connection.fetch(
        "SELECT * FROM forge_jobs.signal('approved', NULL, job => $1)", job.id
    )
    assert answer == "kept"
    assert await connection.fetch("SELECT * FROM pg_temp.called") == []
    await connection.close()


@pytest.mark.parametrize("purpose", [Purpose.ENQUEUER, Purpose.READER])
async def test_who_was_not_granted_to_send_signals_is_told_so(
    tables: asyncpg.Connection, url: str, purpose: Purpose
) -> None:
    await grant(tables, purpose)
    async with Forge(as_role(url, "owner")) as forge:
        job = await forge.enqueue("work")
    storage = await opened(url, purpose)
    with pytest.raises(
        StorageUnusable, match=r"lacks EXECUTE on procedure 'signal_as_owner' \(who sends signals needs it\)"
    ):
        await storage.signals.send(Recipient(job.id), NewSignal("approved"))
    await storage.close()
    for statement in rights.grants("forge_jobs", ROLES[purpose], Purpose.SIGNALLER):
        await tables.execute(statement)
    storage = await opened(url, purpose)
    assert (await storage.signals.send(Recipient(job.id), NewSignal("approved")))[0][1] is Signalled.KEPT
    await storage.close()


async def test_why_says_which_right_the_workers_lack(
    tables: asyncpg.Connection, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_jobs.worker.session.UNWELL_AFTER", 0.2)
    for purpose in (Purpose.WORKER, Purpose.READER):
        await grant(tables, purpose)
    await tables.execute("REVOKE UPDATE ON forge_jobs.ready FROM labourer")
    forge = Forge(as_role(url, "labourer"))

    @forge.handler
    async def work() -> None: ...

    async with forge, Forge(as_role(url, "visitor")) as visitor:
        job = await work.enqueue()
        worker = Worker(forge, queues=["default"], heartbeat=timedelta(seconds=0.1))
        running = asyncio.create_task(worker.run())

        async def is_said() -> bool:
            [reason, *_] = (await visitor.jobs.why(job.id)).reasons
            return "reports: It could not look for jobs for" in reason and (
                "lacks a right on table 'ready' (who enqueues needs INSERT, SELECT, a worker needs SELECT, INSERT, UPDATE, DELETE"
                in reason
            )

        await until(is_said)
        await tables.execute("GRANT UPDATE ON forge_jobs.ready TO labourer")
        await forge.wait(job, timeout=20)
        worker.stop()
        await running


@pytest.fixture
def upgraded(bare: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[None]]:
    """Migrate, as a role, up to the migration of this number, or to all that the next release knows."""
    for purpose, needed in NEEDED.items():
        monkeypatch.setitem(rights.RIGHTS, purpose, {**rights.RIGHTS[purpose], **needed})

    async def upgraded(role: str, *, number: int | None = None) -> None:
        known = [step for step in NEXT if number is None or step.number <= number]
        monkeypatch.setattr("forge_jobs.storage.postgres.schema.migrations", lambda _: known)
        await PostgresSchema(PostgresDatabase(as_role(bare, role))).migrate()

    return upgraded


async def grant_as_of_today(owner: asyncpg.Connection, purpose: Purpose) -> None:
    """Grant what is needed while the tables of the next release are not there."""
    there = {name for (name,) in await owner.fetch("SELECT relname FROM pg_class")}
    role = ROLES[purpose]
    await owner.execute(f"GRANT USAGE ON SCHEMA forge_jobs TO {role}")
    await owner.execute(f"GRANT USAGE ON SEQUENCE forge_jobs.job_id_seq TO {role}")
    for relation, given in rights.RIGHTS[purpose].items():
        if relation in there:
            await owner.execute(f"GRANT {given} ON forge_jobs.{relation} TO {role}")


@pytest.mark.parametrize("migrates", ["owner", "postgres", "steward"])
async def test_who_was_granted_rights_keeps_its_work_when_others_migrate(
    owner: asyncpg.Connection, bare: str, upgraded: Callable[..., Awaitable[None]], migrates: str
) -> None:
    await owner.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    await upgraded("owner", number=KNOWN)
    for purpose in (Purpose.ENQUEUER, Purpose.WORKER):
        await grant_as_of_today(owner, purpose)
        await owner.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA forge_jobs TO {ROLES[purpose]}")
    producer = await asyncpg.connect(as_role(bare, "producer"))
    await producer.fetchval("SELECT forge_jobs.enqueue('work')")
    if migrates == "steward":
        admin = await asyncpg.connect(bare)
        await admin.execute("CREATE ROLE steward LOGIN; GRANT owner TO steward")

    await upgraded(migrates)

    await producer.fetchval("SELECT forge_jobs.enqueue('work')")
    storage = await opened(bare, Purpose.ENQUEUER)
    for way in WAYS:
        await way(storage)
    forge = Forge(as_role(bare, "labourer"))

    @forge.handler
    async def work() -> None: ...

    await Worker(forge, queues=["default"]).run(until_empty=True)
    assert await owner.fetchval("SELECT sum(jobs) FROM forge_jobs.made_up_spent") > 0
    owners = await owner.fetch(
        "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'forge_jobs'::regnamespace "
        "UNION SELECT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'forge_jobs'::regnamespace"
    )
    assert [name for (name,) in owners] == ["owner"]
    await storage.close()
    await producer.close()
    if migrates == "steward":
        await admin.execute("DROP ROLE steward")
        await admin.close()


async def test_nobody_gets_more_from_a_migration_than_its_purpose_needs(
    owner: asyncpg.Connection, bare: str, upgraded: Callable[..., Awaitable[None]]
) -> None:
    await upgraded("owner", number=KNOWN)
    await grant_as_of_today(owner, Purpose.ENQUEUER)
    await owner.execute(
        "GRANT USAGE ON SCHEMA forge_jobs TO visitor; GRANT SELECT ON forge_jobs.depth TO visitor"
    )

    await upgraded("owner")

    granted = await owner.fetch(
        "SELECT table_name, grantee, privilege_type FROM information_schema.role_table_grants "
        "WHERE table_schema = 'forge_jobs' AND grantee <> 'owner' AND table_name IN ('made_up_quota', 'made_up_spent', 'made_up_quota_left', 'worker')"
    )
    assert [tuple(row) for row in granted] == [("made_up_quota", "producer", "SELECT")]


async def test_who_may_not_migrate_is_told_who_may(
    owner: asyncpg.Connection, bare: str, upgraded: Callable[..., Awaitable[None]]
) -> None:
    await upgraded("owner", number=KNOWN)
    await grant_as_of_today(owner, Purpose.WORKER)

    with pytest.raises(StorageUnusable) as caught:
        await upgraded("labourer")

    assert "This role may not migrate schema 'forge_jobs'" in str(caught.value)
    assert "allowed is the owner of its tables: run forge-jobs db migrate as that role." in str(caught.value)
    with pytest.raises(StorageUnusable, match="allowed is one that may create a schema there"):
        await PostgresSchema(PostgresDatabase(as_role(bare, "labourer"), schema="other")).migrate()
