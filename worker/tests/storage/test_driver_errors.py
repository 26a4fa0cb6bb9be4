"""No error of a driver leaves the storage: whatever it says, callers get one of ours, in one sentence."""

import inspect
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints

import asyncpg
import pytest
from asyncpg.exceptions import InternalClientError, ProtocolError

from forge_jobs.errors import ForgeError, StorageBusy, StorageContended, StorageRefused, StorageUnavailable
from forge_jobs.job import State
from forge_jobs.kind import Kind
from forge_jobs.storage import interface
from forge_jobs.storage.interface import Storage
from forge_jobs.storage.postgres.driver_errors import translated as postgres_error
from forge_jobs.storage.sqlite.transaction import translated as sqlite_error
from forge_jobs.version import Version, VersionState
from forge_jobs.worker_info import WorkerInfo
from tests.storage.databases import Database, PostgresDatabase
from tests.storage.factories import cron, dead, done, enqueue, failed, job, leader, worker
from tests.storage.faults import Fault, of_asyncpg, of_sqlite3

AT = datetime(2026, 1, 1, tzinfo=UTC)
ME = WorkerInfo(7, "w-1-7", "host", 1, "1", ("default",), ("work",), 5)
VERSION = Version("pool", "v1", "1", "deployment", VersionState.PENDING, 0, 1, "hash", AT, AT)

Call = Callable[[Storage, "Stage"], Awaitable[Any]]


class Stage:
    """What the calls are about."""

    def __init__(self, job_id: int, claim: Any, epoch: int) -> None:
        self.job_id, self.claim, self.epoch = job_id, claim, epoch


async def walked(walk: AsyncIterator[Any]) -> list[Any]:
    return [step async for step in walk]


async def heard(storage: Storage, _: Stage) -> None:
    """Listen until that is over: for ever, unless what went wrong is not ours."""
    await storage.ping()  # listening itself waits for a database that is away


CALLS: dict[str, Call] = {
    "schema.create": lambda s, _: s.schema.create(),
    "schema.migrate": lambda s, _: s.schema.migrate(),
    "schema.status": lambda s, _: s.schema.status(),
    "schema.drop": lambda s, _: s.schema.drop(),
    "jobs.enqueue": lambda s, _: s.jobs.enqueue(job()),
    "jobs.enqueue with a key": lambda s, _: s.jobs.enqueue(job(key="k")),
    "jobs.enqueue_many": lambda s, _: s.jobs.enqueue_many([job()] * 3),
    "jobs.enqueue_many of many": lambda s, _: s.jobs.enqueue_many([job(key="m")] * 300),
    "jobs.get": lambda s, on: s.jobs.get(on.job_id),
    "jobs.find": lambda s, _: s.jobs.find(),
    "jobs.cancel": lambda s, on: s.jobs.cancel(on.job_id),
    "jobs.retry": lambda s, on: s.jobs.retry(on.job_id),
    "jobs.run_now": lambda s, on: s.jobs.run_now(on.job_id),
    "jobs.delete": lambda s, on: s.jobs.delete(on.job_id),
    "jobs.cancel_all": lambda s, _: walked(s.jobs.cancel_all(State.PENDING, last=10**9)),
    "jobs.retry_all": lambda s, _: walked(s.jobs.retry_all(State.DEAD, last=10**9)),
    "jobs.delete_all": lambda s, _: walked(s.jobs.delete_all(State.DONE, last=10**9)),
    "jobs.newest": lambda s, _: s.jobs.newest(),
    "jobs.counts": lambda s, _: s.jobs.counts(),
    "jobs.waiting": lambda s, on: s.jobs.waiting(on.job_id),
    "jobs.fold": lambda s, _: s.jobs.fold(),
    "claims.claim": lambda s, on: s.claims.claim(on.claim.queue_id, ME.id, limit=1),
    "claims.front": lambda s, on: s.claims.front(on.claim.queue_id),
    "claims.finish": lambda s, on: s.claims.finish([done(on.claim)]),
    "claims.finish of a dead one": lambda s, on: s.claims.finish([dead(on.claim)]),
    "claims.postpone": lambda s, on: s.claims.postpone([failed(on.claim)]),
    "claims.release": lambda s, on: s.claims.release([on.claim]),
    "claims.held": lambda s, _: s.claims.held(ME.id),
    "claims.lost": lambda s, on: s.claims.lost(epoch=on.epoch),
    "schedule.upcoming": lambda s, _: s.schedule.upcoming(timedelta(days=1)),
    "schedule.promote": lambda s, _: s.schedule.promote(),
    "queues.ensure": lambda s, _: s.queues.ensure(["default", "other"]),
    "queues.set": lambda s, _: s.queues.set("default", {"max_attempts": 3}),
    "queues.manage": lambda s, _: s.queues.manage("default", None),
    "queues.all": lambda s, _: s.queues.all(),
    "queues.take_slots": lambda s, on: s.queues.take_slots(on.claim.queue_id, ME.id, 1),
    "queues.give_back_slots": lambda s, on: s.queues.give_back_slots(on.claim.queue_id, ME.id, 0),
    "queues.cool_down": lambda s, on: s.queues.cool_down(on.claim.queue_id, timedelta(seconds=1), 1),
    "kinds.declare": lambda s, _: s.kinds.declare([Kind("work")], by="me"),
    "kinds.all": lambda s, _: s.kinds.all(),
    "kinds.forget": lambda s, _: s.kinds.forget("work"),
    "limits.set": lambda s, _: s.limits.set("smtp", capacity=5, refill=1),
    "limits.ensure": lambda s, _: s.limits.ensure("smtp", capacity=5, refill=1),
    "limits.all": lambda s, _: s.limits.all(),
    "limits.delete": lambda s, _: s.limits.delete("smtp"),
    "limits.lease": lambda s, _: s.limits.lease("smtp", 1),
    "limits.give_back": lambda s, _: s.limits.give_back("smtp", 1, 0),
    "limits.drain": lambda s, _: s.limits.drain("smtp"),
    "crons.set": lambda s, _: s.crons.set(cron()),
    "crons.ensure": lambda s, _: s.crons.ensure(cron()),
    "crons.get": lambda s, _: s.crons.get("nightly"),
    "crons.all": lambda s, _: s.crons.all(),
    "crons.delete": lambda s, _: s.crons.delete("nightly"),
    "crons.seed": lambda s, on: s.crons.seed("nightly", AT, epoch=on.epoch),
    "crons.fire": lambda s, on: s.crons.fire(cron(next_fire_at=AT), [AT], None, epoch=on.epoch),
    "crons.disable": lambda s, on: s.crons.disable("nightly", "it broke", epoch=on.epoch),
    "crons.trigger": lambda s, _: s.crons.trigger("nightly"),
    "owners.all": lambda s, _: s.owners.all(),
    "owners.release": lambda s, _: s.owners.release("somebody"),
    "workers.register": lambda s, _: s.workers.register(ME),
    "workers.beat": lambda s, _: s.workers.beat(ME.id),
    "workers.drain": lambda s, _: s.workers.drain(ME.id),
    "workers.deregister": lambda s, _: s.workers.deregister(ME.id),
    "workers.beats": lambda s, _: s.workers.beats(),
    "workers.strike_off": lambda s, on: s.workers.strike_off({ME.id: AT}, epoch=on.epoch),
    "workers.all": lambda s, _: s.workers.all(),
    "versions.take_over": lambda s, _: s.versions.take_over("me"),
    "versions.put": lambda s, _: s.versions.put(VERSION, epoch=1),
    "versions.promote": lambda s, _: s.versions.promote("pool", "v1", epoch=1),
    "versions.move": lambda s, _: s.versions.move("pool", "v1", VersionState.DRAINING, epoch=1),
    "versions.all": lambda s, _: s.versions.all(),
    "versions.delete": lambda s, _: s.versions.delete("pool", "v1", epoch=1),
    "versions.forget": lambda s, _: s.versions.forget("pool", epoch=1),
    "versions.retire": lambda s, _: s.versions.retire([ME.id], False, epoch=1),
    "leadership.lead": lambda s, _: s.leadership.lead(ME.id, timedelta(seconds=15)),
    "leadership.resign": lambda s, _: s.leadership.resign(ME.id),
    "leadership.get": lambda s, _: s.leadership.get(),
    "history.sweep": lambda s, on: s.history.sweep(epoch=on.epoch),
    "wakeups.listen": heard,
    "wakeups.mark_idle": lambda s, on: s.wakeups.mark_idle(ME.id, [on.claim.queue_id]),
    "wakeups.unmark_idle": lambda s, _: s.wakeups.unmark_idle(ME.id),
    "ping": lambda s, _: s.ping(),
    "now": lambda s, _: s.now(),
    "connections_left": lambda s, _: s.connections_left(),
}

NOT_CALLED = {"open", "close"}  # the one is `schema.create` of a file or a server, the other raises nothing


def public_methods() -> set[str]:
    """Return the names of everything that a storage can be asked."""
    methods = {name for name, _ in inspect.getmembers(Storage, inspect.isfunction)}
    for noun, protocol in get_type_hints(Storage, vars(interface)).items():
        if inspect.isclass(protocol) and protocol.__module__ == interface.__name__:
            methods |= {f"{noun}.{name}" for name, _ in inspect.getmembers(protocol, inspect.isfunction)}
    return {name for name in methods if not name.rpartition(".")[2].startswith("_")} - NOT_CALLED


def test_every_method_of_a_storage_is_tried_here() -> None:
    assert {name.partition(" ")[0] for name in CALLS} == public_methods()


@asynccontextmanager
async def staged(database: Database) -> AsyncIterator[tuple[Storage, Stage]]:
    """An open storage with something in each table."""
    storage = database.storage()
    await storage.open()
    try:
        await storage.workers.register(ME)
        epoch = await leader(storage)
        job_id = await enqueue(storage)
        [claim] = await storage.claims.claim((await storage.queues.all())[0].id, ME.id, limit=1)
        await storage.crons.set(cron())
        await storage.limits.set("smtp", capacity=5, refill=1)
        await worker(storage)
        yield storage, Stage(job_id, claim, epoch)
    finally:
        await storage.close()


def states() -> list[str]:
    """Return every SQLSTATE that asyncpg has a class for, and some that nobody has."""
    known = {
        error.sqlstate
        for error in vars(asyncpg.exceptions).values()
        if inspect.isclass(error) and issubclass(error, asyncpg.PostgresError) and error.sqlstate
    }
    return [*sorted(known), "ZZ999", "P0001", "XX001"]


def by_state(state: str) -> Callable[[], Exception]:
    return lambda: asyncpg.PostgresError.new({"C": state, "M": "it says why.", "S": "ERROR", "D": "secret"})


POSTGRES: dict[str, Callable[[], Exception]] = {
    **{state: by_state(state) for state in ("08006", "23514", "40001", "40P01", "55000", "57014", "P0001")},
    "interface": lambda: asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
    "value": lambda: asyncpg.DataError("invalid input"),
    "internal": lambda: InternalClientError("got result for unknown protocol state 3"),
    "protocol": lambda: ProtocolError("unexpected message"),
    "os": lambda: ConnectionResetError(104, "Connection reset by peer"),
    "timeout": TimeoutError,
}

SQLITE: dict[str, Callable[[], Exception]] = {
    **{
        name: lambda name=name: getattr(sqlite3, name)("it says why")  # type: ignore[misc]
        for name in (
            *("Error", "DatabaseError", "DataError", "IntegrityError", "InterfaceError", "InternalError"),
            *("NotSupportedError", "OperationalError", "ProgrammingError"),
        )
    },
    **{
        text: lambda text=text: sqlite3.OperationalError(text)  # type: ignore[misc]
        for text in ("database is locked", "disk I/O error", "database or disk is full", "no such table: job")
    },
    "os": lambda: OSError(5, "Input/output error"),
    "overflow": lambda: OverflowError("Python int too large to convert to SQLite INTEGER"),
}

FEW = {"55000", "40P01", "interface", "os", "OperationalError", "IntegrityError"}
"""Errors that each statement of a call gets in its turn; all others come with the first."""


@pytest.fixture
def fault(database: Database, monkeypatch: pytest.MonkeyPatch) -> Fault:
    monkeypatch.setattr("forge_jobs.storage.postgres.contention.FIRST_PAUSE", 0.0)
    return (of_asyncpg if isinstance(database, PostgresDatabase) else of_sqlite3)(monkeypatch)


async def test_no_error_of_a_driver_leaves_the_storage(database: Database, fault: Fault) -> None:
    errors = POSTGRES if isinstance(database, PostgresDatabase) else SQLITE
    let_out: dict[str, str] = {}
    async with staged(database) as (storage, stage):
        for kind, error in errors.items():
            for name, call in CALLS.items():
                for passing in range(20 if kind in FEW else 1):
                    if name == "schema.drop" and passing:
                        break  # what drops the tables must not come to its end
                    fault.set(error, passing)
                    try:
                        await call(storage, stage)
                    except ForgeError as raised:
                        said = str(raised)
                        if "\n" in said or "secret" in said or not said.endswith("."):
                            let_out[f"{name}: {kind}"] = said
                    except Exception as raised:
                        let_out[f"{name}: {kind}"] = repr(raised)
                    if not fault.met:
                        break
        fault.set(None)
    assert let_out == {}


def test_every_error_of_the_drivers_has_one_of_ours() -> None:
    for error in (*map(by_state, states()), *POSTGRES.values()):
        for is_callers in (False, True):
            ours = postgres_error(
                error(), url="postgresql://db/shop", schema="forge_jobs", is_callers=is_callers
            )
            assert isinstance(ours, ForgeError)
            assert "secret" not in str(ours)
    for error in SQLITE.values():
        assert isinstance(sqlite_error(error(), "/queue.sqlite"), ForgeError)


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_what_a_later_attempt_may_find_better_is_told_from_what_is_refused_for_ever(
    database: Database, fault: Fault
) -> None:
    async def raised(state: str) -> type[BaseException]:
        fault.set(by_state(state))
        with pytest.raises(ForgeError) as caught:
            await storage.jobs.enqueue(job())
        fault.set(None)
        return caught.type

    async with staged(database) as (storage, _):
        for state in ("08006", "25006", "53100", "53300", "57P01", "57P03", "58030"):
            assert await raised(state) is StorageUnavailable
        for state in ("55P03", "57014"):
            assert await raised(state) is StorageBusy
        for state in ("40001", "40P01"):
            assert await raised(state) is StorageContended
        for state in ("23514", "54000", "55000", "P0001", "42P10", "0A000", "XX000", "ZZ999"):
            assert await raised(state) is StorageRefused


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_rule_that_somebody_gave_a_table_refuses_in_a_sentence(database: Database) -> None:
    async with staged(database) as (storage, _), aclosing(_rule(database)) as rule:
        await anext(rule)
        with pytest.raises(StorageRefused, match=r"refuses this: not on a Sunday \(SQLSTATE P0001\)\.$"):
            await storage.jobs.enqueue(job())


async def _rule(database: Database) -> Any:
    await database.rows(
        "CREATE FUNCTION forge_jobs.sunday() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'not on a Sunday' USING DETAIL = 'secret'; END $$"
    )
    await database.rows(
        "CREATE TRIGGER sunday BEFORE INSERT ON forge_jobs.job EXECUTE FUNCTION forge_jobs.sunday()"
    )
    try:
        yield
    finally:
        await database.rows("DROP FUNCTION forge_jobs.sunday CASCADE")
