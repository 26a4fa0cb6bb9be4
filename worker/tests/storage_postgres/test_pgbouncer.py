"""Behind PgBouncer: what its modes mean is found out, and everything but LISTEN works."""

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from forge_jobs.errors import StorageBusy, StorageUnavailable
from forge_jobs.model.job import End, NewJob, Postponement, Reason, State
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.postgres import PostgresStorage
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.connections_left import connections_left
from forge_jobs.storage.postgres.schema import PostgresSchema
from forge_jobs.storage.postgres.wakeups import PostgresWakeups
from tests.storage_postgres.conftest import until
from tests.storage_postgres.test_wakeups import listening, tell

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")

SETTINGS = """
[databases]
alias = host={host} port=5432 dbname={name} user={user}
* = host={host} port=5432 user={user} pool_size={size}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
query_wait_timeout = 10
"""

Start = Callable[..., str]


@pytest.fixture
def bouncer(url: str) -> Iterator[Start]:
    """Start a PgBouncer before the test's database; return the URL that goes through it."""
    running: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:

        def start(mode: str, *, size: int = 3, user: str = "postgres", port: int | None = None) -> str:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forge-jobs-", dir="/tmp")))
            port = port or free_port()
            host = parse_qs(urlsplit(url).query)["host"][0]
            (folder / "ini").write_text(
                SETTINGS.format(
                    host=host, name=urlsplit(url).path[1:], user=user, size=size, port=port, mode=mode
                )
            )
            # it refuses to run as root
            identity = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid} if os.geteuid() == 0 else {}
            folder.chmod(0o755)
            assert PGBOUNCER is not None
            running.append(subprocess.Popen([PGBOUNCER, "-q", str(folder / "ini")], **identity))  # type: ignore[call-overload]
            wait_for(port)
            return f"postgresql://postgres@127.0.0.1:{port}{urlsplit(url).path}"

        def stop() -> None:
            process = running.pop()
            process.terminate()
            process.wait()

        start.stop = stop  # type: ignore[attr-defined]
        yield start
        for process in running:
            process.terminate()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    for _ in range(1000):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    raise AssertionError("pgbouncer did not start")


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.mark.parametrize("size", [1, 2, 20])
async def test_transaction_pooling_is_found_out(bouncer: Start, size: int) -> None:
    async with opened(bouncer("transaction", size=size)) as database:
        assert database.pooled


async def test_a_connection_past_a_pooler_that_has_another_name_for_the_database_may_enqueue(
    bouncer: Start, url: str
) -> None:
    direct = PostgresStorage(url)
    await direct.open()
    await direct.schema.migrate()
    never_opened = PostgresStorage(bouncer("transaction").rpartition("/")[0] + "/alias")
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        made = await never_opened.jobs.enqueue(NewJob("work"), connection=connection)
    await connection.close()

    assert (await direct.jobs.get(made.id)).state is State.PENDING
    await direct.close()


async def test_transaction_pooling_is_found_out_while_others_are_busy(bouncer: Start) -> None:
    url = bouncer("transaction", size=20)
    async with opened(url) as busy:
        stop = asyncio.Event()

        async def work() -> None:
            while not stop.is_set():
                await busy.fetchval("SELECT pg_backend_pid()")

        workers = [asyncio.create_task(work()) for _ in range(8)]
        for _ in range(10):
            async with opened(url) as database:
                assert database.pooled
        stop.set()
        await asyncio.gather(*workers)


async def test_behind_a_pooler_that_shares_connections_nobody_knows_how_many_are_left(
    bouncer: Start, url: str
) -> None:
    for through, is_known in ((bouncer("transaction"), False), (bouncer("session"), True), (url, True)):
        async with opened(through) as database:
            assert (await connections_left(database) is not None) is is_known


@pytest.mark.parametrize("size", [5, 20])
async def test_session_pooling_is_as_good_as_none(bouncer: Start, size: int) -> None:
    async with opened(bouncer("session", size=size)) as database:
        assert not database.pooled
        assert await database.claims.fetch("SHOW synchronous_commit") == [("off",)]
        async with listening(PostgresWakeups(database)) as heard:
            await tell(database, "queue:1")
            assert await heard.next() == ("queue", "1")


async def test_a_direct_connection_is_not_taken_for_a_pooler(database: PostgresDatabase) -> None:
    assert not database.pooled


async def test_statement_pooling_is_refused_in_one_sentence(bouncer: Start) -> None:
    with pytest.raises(StorageUnavailable, match="statement pooling"):
        await PostgresDatabase(bouncer("statement")).open()


async def test_nothing_depends_on_getting_the_same_server_twice(bouncer: Start) -> None:
    async with opened(bouncer("transaction", size=3)) as database:

        async def ask(number: int) -> None:
            for statement in ("SELECT $1::int", "SELECT $1::int + 0", "SELECT $1::bigint"):
                for fetch in (database.fetch, database.claims.fetch, database.outcomes.fetch):
                    assert await fetch(statement, number) == [(number,)]
            async with database.transaction() as connection:
                assert await connection.fetchval("SELECT $1::int", number) == number

        await asyncio.gather(*(ask(number) for number in range(40)))


async def test_session_settings_do_not_leak_to_other_clients_of_the_pooler(bouncer: Start) -> None:
    async with opened(bouncer("transaction", size=1)) as database:
        await database.claims.fetch("SELECT 1")

        assert await database.fetchval("SHOW synchronous_commit") == "on"
        assert await database.fetchval("SHOW enable_seqscan") == "on"


async def test_a_cancelled_statement_leaves_its_lane_usable_behind_a_pooler(
    bouncer: Start, database: PostgresDatabase
) -> None:
    sleepers = (
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'"
    )
    async with opened(bouncer("transaction", size=2)) as pooled:
        sleeping = asyncio.create_task(pooled.claims.fetch("SELECT pg_sleep(600)"))
        await until(lambda: database.fetchval(sleepers))

        sleeping.cancel()
        await asyncio.wait([sleeping])

        assert await pooled.claims.fetch("SELECT 7") == [(7,)]

        async def nobody_sleeps() -> bool:
            return await database.fetchval(sleepers) == 0

        await until(nobody_sleeps)


async def test_a_job_goes_from_enqueue_to_done_by_polling(bouncer: Start) -> None:
    storage = PostgresStorage(bouncer("transaction", size=2))
    await storage.schema.migrate()
    await storage.open()

    assert storage.wakeups.poll_only
    await storage.workers.register(
        WorkerInfo(7, "shop-worker-1-7", "host", 1, "1", ("default",), ("greet",), 1)
    )
    await storage.wakeups.mark_idle(7, [1])
    await storage.jobs.enqueue_many([NewJob("greet") for _ in range(20)])
    job = await storage.jobs.enqueue(NewJob("greet"))
    claims = await storage.claims.claim(1, 7, limit=100)
    assert (await storage.workers.beat(7)).cancels == ()
    assert await storage.claims.finish([End(claim, State.DONE) for claim in claims]) == []

    assert len(claims) == 21
    assert (await storage.jobs.get(job.id)).state == State.DONE
    await storage.close()


async def test_what_somebody_locked_is_waited_for_as_shortly_as_without_a_pooler(
    bouncer: Start, database: PostgresDatabase
) -> None:
    storage = PostgresStorage(bouncer("transaction", size=2))
    await storage.schema.migrate()
    await storage.open()
    await storage.workers.register(
        WorkerInfo(7, "shop-worker-1-7", "host", 1, "1", ("default",), ("greet",), 1)
    )
    await storage.jobs.enqueue_many([NewJob("greet"), NewJob("greet")])
    first, second = await storage.claims.claim(1, 7, limit=2)
    again = Postponement(second, Reason.RETRY, timedelta(0))
    async with database.transaction() as somebody:
        await somebody.execute("SELECT FROM forge_jobs.claimed FOR UPDATE")
        await somebody.execute("SELECT FROM forge_jobs.worker FOR UPDATE")
        for call in (
            lambda: storage.claims.finish([End(first, State.DONE)]),
            lambda: storage.claims.postpone([again]),
            lambda: storage.claims.hand_back([second]),
            lambda: storage.workers.beat(7),
        ):
            with pytest.raises(StorageBusy) as caught:
                await call()
            assert isinstance(caught.value.__cause__, asyncpg.LockNotAvailableError)

    assert await storage.claims.finish([End(first, State.DONE)]) == []
    assert await storage.claims.postpone([again]) == []
    assert await storage._database.fetchval("SHOW lock_timeout") == "0"  # of whoever is the next client
    await storage.close()


async def test_nothing_is_ever_heard_in_poll_only_mode(bouncer: Start) -> None:
    storage = PostgresStorage(bouncer("transaction"))
    await storage.open()
    heard: list[tuple[str, str]] = []

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(
            storage.wakeups.listen(lambda kind, subject: heard.append((kind, subject))), 0.05
        )

    assert heard == []
    await storage.close()


async def test_ten_processes_worth_of_migrations_pass_a_pooler(bouncer: Start) -> None:
    url = bouncer("transaction", size=3)

    applied = await asyncio.gather(*(PostgresSchema(PostgresDatabase(url)).migrate() for _ in range(10)))

    assert sorted(applied)[:-1] == [0] * 9
    assert applied != [0] * 10


async def test_a_pooler_that_comes_back_in_another_mode_is_noticed(bouncer: Start) -> None:
    url = bouncer("session", size=10)
    port = urlsplit(url).port
    async with opened(url) as database:
        wakeups = PostgresWakeups(
            database, check_every=timedelta(seconds=0.1), answer_within=timedelta(seconds=0.5)
        )
        told = asyncio.get_running_loop().create_future()

        async def listen() -> None:
            while True:
                try:
                    await wakeups.listen(lambda kind, subject: None)
                except StorageUnavailable as error:
                    if not told.done():
                        told.set_result(str(error))

        listening = asyncio.create_task(listen())
        for fetch in (database.fetch, database.claims.fetch, database.outcomes.fetch):
            await fetch("SELECT $1::int", 1)
        assert not database.pooled

        bouncer.stop()  # type: ignore[attr-defined]
        bouncer("transaction", size=10, port=port)

        async def works() -> bool:
            with contextlib.suppress(StorageUnavailable):
                for fetch in (database.fetch, database.claims.fetch, database.outcomes.fetch):
                    await fetch("SELECT $1::int", 1)
                return database.pooled
            return False

        await until(works)
        for number in range(20):
            for fetch in (database.fetch, database.claims.fetch, database.outcomes.fetch):
                assert await fetch("SELECT $1::int", number) == [(number,)]
        assert await database.fetchval("SHOW enable_seqscan") == "on"
        async with asyncio.timeout(20):
            assert "gives every transaction another server now" in await told
        assert wakeups.poll_only
        listening.cancel()
        await asyncio.wait([listening])
