"""The database goes away and comes back: workers go on by themselves, and nothing is lost."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from forge_jobs import Context, Forge, State, StorageUnavailable, WaitTimeout, Worker
from forge_jobs.telemetry.events import (
    DatabaseBack,
    DatabaseLost,
    Event,
    OutcomesUnwritten,
    WorkerCutOff,
    WorkerStarted,
    WorkerStopped,
)
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.copied_postgres import CopiedPostgres
from tests.storage_postgres.gate import Gate
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.ledger import Ledger
from tests.working.processes import Fleet, fleet
from tests.working.running import working


@pytest.fixture
def server() -> Iterator[LocalPostgres]:
    """A server of the test's own, which it may stop."""
    with CopiedPostgres(settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture(scope="module")
def strict_server() -> Iterator[LocalPostgres]:
    """A server that asks for passwords, with a role that may do nothing."""
    with CopiedPostgres(settings={"fsync": "off"}, port=0) as server:
        server.execute("CREATE ROLE guest LOGIN PASSWORD 'right'")
        yield server


@pytest.fixture
async def workers(server: LocalPostgres, ledger: Ledger, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet(server.url(), ledger, tmp_path) as workers:
        yield workers


async def test_a_server_restarted_under_load_loses_nothing(
    server: LocalPostgres, workers: Fleet, ledger: Ledger
) -> None:
    async with Forge(server.url()) as forge:
        await forge.queues.set("default", backoff_enabled=False)
        ids = [each.id for each in await forge.enqueue_many("nap", [{"seconds": 0.01}] * 3000)]
        running = [await workers.start("--concurrency", "20") for _ in range(2)]
        await eventually(lambda: len(ledger.of("end")) > 200, within=60)

    server.restart(immediate=True)  # as a crash: what was not flushed is gone

    async with Forge(server.url()) as forge:
        await eventually(lambda: _all_done(forge, ids), within=90)
        counts = {each.queue: each for each in await forge.jobs.counts()}["default"]
        assert (counts.pending, counts.in_progress, counts.done, counts.dead) == (0, 0, 3000, 0)
    assert {worker.returncode for worker in running} == {None}
    assert {line.job_id for line in ledger.of("end")} == set(ids)


async def _all_done(forge: Forge, ids: list[int]) -> bool:
    return len(await forge.jobs.list(state=State.DONE, limit=len(ids) + 1)) == len(ids)


@pytest.mark.parametrize("options", [(), ("--processes", "2")])
async def test_a_worker_that_is_started_before_its_database_waits_for_it(
    server: LocalPostgres, workers: Fleet, options: tuple[str, ...]
) -> None:
    async with Forge(server.url()) as forge:
        job = await forge.enqueue("nap")
    server.stop()
    worker = await workers.start(*options)
    await eventually(lambda: "does not answer (opening the database)" in workers.log())

    server.start()

    async with Forge(server.url()) as forge:
        await forge.wait(job.id, timeout=60)
    assert worker.returncode is None
    assert "The database answers again" in workers.log()


@pytest.mark.parametrize("options", [(), ("--processes", "2")])
async def test_a_worker_that_waits_for_its_database_ends_at_once_when_told_to(
    server: LocalPostgres, workers: Fleet, options: tuple[str, ...]
) -> None:
    server.stop()
    worker = await workers.start(*options)
    await eventually(lambda: "does not answer (opening the database)" in workers.log())

    worker.terminate()

    assert await worker.wait() == 0
    assert "Traceback" not in workers.log()


async def test_a_worker_in_a_program_waits_for_its_database_too(server: LocalPostgres) -> None:
    async with Forge(server.url()) as producer:
        job = await producer.enqueue("work")
    server.stop()
    forge = Forge(server.url())
    said: list[Event] = []
    forge.telemetry.subscribe(said.append)

    @forge.handler
    async def work() -> str:
        return "worked"

    running = asyncio.create_task(Worker(forge, queues=["default"]).run(until_empty=True))
    await eventually(lambda: any(isinstance(event, DatabaseLost) for event in said))
    server.start()
    await running

    async with forge:
        assert await forge.wait(job.id, timeout=30) == "worked"


async def test_a_worker_that_waits_for_its_database_is_alive_and_not_ready(server: LocalPostgres) -> None:
    """So that Kubernetes does not restart it."""
    server.stop()
    forge = Forge(server.url())
    said: list[Event] = []
    forge.telemetry.subscribe(said.append)
    worker = Worker(forge, queues=["default"], metrics_port=0, metrics_host="127.0.0.1")
    running = asyncio.create_task(worker.run())
    await eventually(lambda: any(isinstance(event, DatabaseLost) for event in said))

    assert [await _status(worker.metrics_port, path) for path in ("/healthz", "/readyz")] == ["200", "503"]
    worker.stop()
    await running


async def _status(port: int | None, path: str) -> str:
    """Return the status with which a path is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return answer.split()[1]


async def test_an_outage_that_may_be_one_for_this_process_alone_costs_no_attempt(
    server: LocalPostgres,
) -> None:
    """Handlers are stopped meanwhile, since who cannot ask cannot know whether others took their jobs over."""
    async with Gate(server.url()) as gate:
        await _outlive(gate)


async def _outlive(gate: Gate) -> None:
    forge = Forge(gate.url)
    said: list[Event] = []
    forge.telemetry.subscribe(said.append)
    started: list[tuple[str, int]] = []
    running: set[str] = set()
    may_end = asyncio.Event()

    @forge.handler(max_attempts=1)
    async def work(ctx: Context, name: str) -> str:
        assert name not in running
        started.append((name, ctx.attempt))
        running.add(name)
        try:
            await may_end.wait()
        finally:
            running.discard(name)
        return name

    @forge.handler(max_attempts=1)
    async def short(ctx: Context, name: str) -> str:
        """End while the database is away."""
        started.append((name, ctx.attempt))
        await eventually(lambda: any(isinstance(event, DatabaseLost) for event in said))
        return name

    async with forge:
        jobs = [await forge.enqueue("work", {"name": "a"}), await forge.enqueue("work", {"name": "b"})]
        ended = await forge.enqueue("short", {"name": "c"})
    workers = [
        Worker(
            forge,
            queues=["default"],
            concurrency=2,
            heartbeat=timedelta(seconds=0.5),
            stale=timedelta(seconds=4),
        )
        for _ in range(2)
    ]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    await eventually(lambda: len(started) == 3)

    gate.refuse()
    await eventually(lambda: sum(isinstance(event, WorkerCutOff) for event in said) == 2)
    assert not running
    await gate.reopen()
    await eventually(lambda: len(running) == 2)
    may_end.set()

    async with Forge(gate.url) as asking:
        assert [await asking.wait(job, timeout=60) for job in jobs] == ["a", "b"]
        assert await asking.wait(ended, timeout=60) == "c"
    assert sorted(started) == [("a", 1), ("a", 1), ("b", 1), ("b", 1), ("c", 1)]
    for worker in workers:
        worker.stop()
    await asyncio.gather(*tasks)


async def test_a_worker_that_ends_while_the_database_is_away_says_which_outcomes_are_unwritten(
    server: LocalPostgres,
) -> None:
    async with Gate(server.url()) as gate:
        await _end_meanwhile(gate)


async def _end_meanwhile(gate: Gate) -> None:
    forge = Forge(gate.url)
    said: list[Event] = []
    forge.telemetry.subscribe(said.append)
    has_started = asyncio.Event()

    @forge.handler
    async def work() -> None:
        has_started.set()
        await asyncio.Event().wait()

    async with forge:
        job = await forge.enqueue("work")
    worker = Worker(forge, queues=["default"], heartbeat=timedelta(seconds=0.1), stale=timedelta(seconds=0.5))
    running = asyncio.create_task(worker.run())
    await has_started.wait()
    gate.refuse()
    await eventually(lambda: any(isinstance(event, WorkerStopped) for event in said))
    assert not any(isinstance(event, OutcomesUnwritten) for event in said)  # they may still be

    worker.stop()
    await running

    assert [list(event.job_ids) for event in said if isinstance(event, OutcomesUnwritten)] == [[job.id]]


@pytest.mark.parametrize("options", [(), ("--processes", "2")])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://guest:wrong@{host}/postgres", "password authentication failed"),
        ("postgresql://guest:right@{host}/nowhere", "run forge-jobs db create"),
        ("postgresql://guest:right@{host}/postgres", "permission denied for database"),
        ("postgresql://guest:right@{host}/postgres?sslmode=nonsense", "sslmode"),
    ],
)
async def test_what_waiting_does_not_cure_ends_a_worker_with_one_sentence(
    strict_server: LocalPostgres,
    ledger: Ledger,
    tmp_path: Path,
    url: str,
    said: str,
    options: tuple[str, ...],
) -> None:
    host = urlsplit(strict_server.url()).netloc.rpartition("@")[2]

    async with fleet(url.format(host=host), ledger, tmp_path) as workers:
        worker = await workers.start(*options)
        assert await worker.wait() in (1, 2)
        [sentence] = workers.log().splitlines()

    assert said in sentence
    assert "right" not in sentence and "wrong" not in sentence


async def test_a_database_that_may_only_be_read_ends_a_worker_that_begins(
    server: LocalPostgres, ledger: Ledger, tmp_path: Path
) -> None:
    url = server.create_database("only_read")
    async with Forge(url):
        pass
    connection = await asyncpg.connect(url)
    await connection.execute("ALTER DATABASE only_read SET default_transaction_read_only = on")
    await connection.close()

    async with fleet(url, ledger, tmp_path) as workers:
        worker = await workers.start(FORGE_AUTO_MIGRATE="false")
        assert await worker.wait() == 1
        assert "is read-only for this" in workers.log().splitlines()[-1]


@pytest.mark.parametrize("immediate", [False, True])
@pytest.mark.parametrize("port", [None, 0], ids=["socket", "address"])
async def test_handlers_go_on_in_an_outage_longer_than_the_stale_time(
    ledger: Ledger, tmp_path: Path, port: int | None, immediate: bool
) -> None:
    meanwhile, after = tmp_path / "meanwhile", tmp_path / "after"
    with CopiedPostgres(settings={"fsync": "off"}, port=port) as server:
        async with fleet(server.url(), ledger, tmp_path) as workers:
            async with Forge(server.url()) as forge:
                jobs = [await forge.enqueue("wait_for", {"path": str(path)}) for path in (meanwhile, after)]
                for _ in range(3):  # one of them leads, and may be the idle one
                    await workers.start("--concurrency", "1")
                await eventually(lambda: len(ledger.of("start")) == 2, within=60)
                for index in range(3):
                    await eventually(lambda index=index: "serves default" in workers.log(index), within=60)
                await forge.enqueue("nap")  # what is durable makes the claims so

            server.stop(immediate)
            for index in range(3):
                await eventually(lambda index=index: OUTLIVED in workers.log(index), within=60)
            meanwhile.touch()
            await eventually(lambda: [line for line in ledger.of("end") if line.job_id == jobs[0].id])
            server.start()

            async with Forge(server.url()) as forge:
                await forge.wait(await forge.enqueue("nap"), timeout=60)
                await eventually(lambda: _all_heard(forge, 3), within=60)
                after.touch()
                for job in jobs:
                    await forge.wait(job, timeout=60)
                    done = await forge.jobs.get(job.id)
                    assert (done.state, done.attempt, done.failures) == (State.DONE, 1, ())
            for index in range(3):
                assert "is cut off" not in workers.log(index) and "are lost" not in workers.log(index)
    ids = {job.id for job in jobs}
    for what in ("start", "end"):
        assert sorted(line.job_id for line in ledger.of(what) if line.job_id in ids) == sorted(ids)


OUTLIVED = "its running jobs go on: nobody can use the database"


async def _all_heard(forge: Forge, count: int) -> bool:
    beats = await forge.storage.workers.beats()
    return len(beats.at) == count and all(beats.now - at < timedelta(seconds=2) for at in beats.at.values())


async def test_a_server_that_takes_nobody_new_costs_no_worker_its_jobs_whoever_still_has_a_connection(
    server: LocalPostgres, workers: Fleet, ledger: Ledger, tmp_path: Path
) -> None:
    """A "smart" shutdown leaves the leader its connection, and gives the worker, which lost its own, no other."""
    go = tmp_path / "go"
    async with Forge(server.url()) as forge:
        job = await forge.enqueue("wait_for", {"path": str(go)})
    await workers.start(PGAPPNAME="first")
    await eventually(lambda: ledger.of("start"), within=60)
    await workers.start(PGAPPNAME="second")
    watching = await asyncpg.connect(server.url())
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'first'"
    if "leads" in workers.log(0):
        await watching.execute("UPDATE forge_jobs.leader SET worker_id = NULL, until = now()")
        await eventually(lambda: "leads no longer" in workers.log(0) or "leads" in workers.log(1))
    await eventually(lambda: "leads" in workers.log(1), within=60)

    os.kill(int((server.data_dir / "postmaster.pid").read_text().split()[0]), signal.SIGTERM)
    await watching.execute(cut)
    await eventually(lambda: OUTLIVED in workers.log(0), within=60)
    await eventually(lambda: "(reaping)" in workers.log(1), within=60)
    await eventually(lambda: _silent(watching, timedelta(seconds=9)), within=60)
    assert await watching.fetchval("SELECT count(*) FROM forge_jobs.worker") == 2
    await watching.close()
    server.restart()
    go.touch()

    async with Forge(server.url()) as forge:
        await forge.wait(job, timeout=60)
        assert (await forge.jobs.get(job.id)).attempt == 1
    assert len(ledger.of("start")) == 1


async def _silent(connection: asyncpg.Connection, duration: timedelta) -> bool:
    return bool(
        await connection.fetchval("SELECT max(now() - beat_at) > $1 FROM forge_jobs.worker", duration)
    )


@pytest.mark.parametrize("how", ["refuse", "swallow_all"])
async def test_a_worker_that_alone_is_cut_off_stops_its_handlers_before_another_has_its_jobs(
    server: LocalPostgres, workers: Fleet, ledger: Ledger, tmp_path: Path, how: str
) -> None:
    go, logs = tmp_path / "go", tmp_path / "alone"
    logs.mkdir()
    async with Forge(server.url()) as forge, Gate(server.url()) as gate, fleet(gate.url, ledger, logs) as one:
        await forge.queues.set("default", backoff_enabled=False)
        job = await forge.enqueue("wait_for", {"path": str(go)})
        await workers.start_leader()
        await one.start()
        await eventually(lambda: ledger.of("start"), within=60)
        await workers.start()

        getattr(gate, how)()
        await eventually(lambda: "is cut off" in one.log(), within=60)
        await eventually(lambda: len(ledger.of("start")) == 2, within=60)
        go.touch()
        await forge.wait(job, timeout=60)

        done = await forge.jobs.get(job.id)
        assert (done.attempt, [failure.error for failure in done.failures]) == (2, ["worker lost"])
        assert OUTLIVED not in one.log()
        if how == "refuse":  # so that the database was never asked before
            await gate.reopen()
            await eventually(lambda: f"Outcomes of jobs {job.id} were dropped" in one.log(), within=60)
            assert "was handed back" not in one.log()
    [stopped], [first, second] = ledger.of("stopped"), ledger.of("start")
    assert first.at < stopped.at < second.at
    assert [line.attempt for line in ledger.of("end")] == [2]


async def test_a_worker_told_to_stop_in_an_outage_stops_within_its_grace_time(
    server: LocalPostgres, workers: Fleet, ledger: Ledger, tmp_path: Path
) -> None:
    async with Forge(server.url()) as forge:
        await forge.queues.set("default", backoff_enabled=False)
        job = await forge.enqueue("wait_for", {"path": str(tmp_path / "go")})
    worker = await workers.start("--grace", "1")
    await eventually(lambda: ledger.of("start"), within=60)
    server.stop()
    await eventually(lambda: OUTLIVED in workers.log(), within=60)

    worker.terminate()
    assert await worker.wait() == 0

    assert len(ledger.of("stopped")) == 1
    assert f"{job.id}" in next(line for line in workers.log().splitlines() if "could not be written" in line)


async def test_a_wait_outlives_an_outage_and_gives_the_result(server: LocalPostgres) -> None:
    forge = Forge(server.url())

    @forge.handler
    async def work() -> str:
        return "fine"

    lost, events = asyncio.Event(), []

    def hear(event: Event) -> None:
        if isinstance(event, DatabaseLost | DatabaseBack) and event.doing == "waiting for a job":
            events.append(type(event))
            lost.set()

    async with forge:
        forge.telemetry.subscribe(hear)
        job = await work.enqueue()
        waiting = asyncio.create_task(forge.wait(job, timeout=60))
        server.stop()
        await asyncio.wait_for(lost.wait(), 60)
        server.start()
        await Worker(forge, queues=["default"]).run(until_empty=True)

        assert await waiting == "fine"
    assert (events[0], events[-1]) == (DatabaseLost, DatabaseBack)


async def test_a_wait_ends_at_its_time_though_the_database_is_away(server: LocalPostgres) -> None:
    async with Forge(server.url()) as forge:
        job = await forge.enqueue("work")
        server.stop()

        with pytest.raises(WaitTimeout, match=rf"^Job {job.id} did not end within 0.3 s\.$"):
            await forge.wait(job, timeout=0.3)


async def test_a_wait_on_a_forge_that_is_not_open_is_no_outage(server: LocalPostgres) -> None:
    async with Forge(server.url()) as forge:
        job = await forge.enqueue("work")

    with pytest.raises(StorageUnavailable, match="is not open"):
        await forge.wait(job)


@pytest.mark.parametrize("name", ["beat", "register"])
async def test_a_worker_that_could_not_begin_is_not_missed_by_anybody_later(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It may be registered though it did not hear so: the next try is of the same worker."""
    answers = 0
    call = getattr(forge.storage.workers, name)

    async def lost(*given: Any, **said: Any) -> Any:
        nonlocal answers
        answered = await call(*given, **said)
        answers += 1
        if answers <= 3:
            raise StorageUnavailable("connection was closed in the middle of operation")
        return answered

    monkeypatch.setattr(forge.storage.workers, name, lost)
    async with working(forge):
        assert [each.label for each in await forge.storage.workers.all()] == [
            each.label for each in events.of(WorkerStarted)
        ]
        assert [each.doing for each in events.of(DatabaseBack)] == ["registering"]
