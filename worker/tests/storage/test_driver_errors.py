"""No error of a driver leaves the storage: whatever it says, callers get one of ours, in one sentence."""

import inspect
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, get_type_hints

import asyncpg
import pytest
from asyncpg.exceptions import InternalClientError, ProtocolError

from forge_jobs.errors import (
    ForgeError,
    StorageBusy,
    StorageContended,
    StorageDown,
    StorageRefused,
    StorageUnavailable,
)
from forge_jobs.model.completion import Completion
from forge_jobs.model.correction import Correction
from forge_jobs.model.flow import NewFlow, NewNode
from forge_jobs.model.foreign_job import ImportedJob
from forge_jobs.model.job import State
from forge_jobs.model.kind import Kind
from forge_jobs.model.match import Move
from forge_jobs.model.operation import NewOperation
from forge_jobs.model.permit import Permit, PermitRequest
from forge_jobs.model.progress import ProgressReport
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.rate_limit import Lease
from forge_jobs.model.run import Outcome
from forge_jobs.model.signal import NewSignal, NewWait, Recipient
from forge_jobs.model.statistics import Minute
from forge_jobs.model.step import NewStep
from forge_jobs.model.version import Version, VersionState
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.interface import storage as interface
from forge_jobs.storage.interface.claims import AskedQueue
from forge_jobs.storage.interface.schema import Purpose
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.postgres.driver_errors import translated as postgres_error
from forge_jobs.storage.sqlite.transaction import translated as sqlite_error
from tests.storage.databases import Database, PostgresDatabase
from tests.storage.factories import cron, dead, done, enqueue, failed, job, leader
from tests.storage.faults import Fault, of_asyncpg, of_sqlite3

AT = datetime(2026, 1, 1, tzinfo=UTC)
ME = WorkerInfo(7, "w-1-7", "host", 1, "1", ("default",), ("work",), 5)
OPERATIONS = {
    move: NewOperation(
        move,
        [State.DEAD if move is Move.RETRY else State.PENDING],
        "me",
        into="mail" if move is Move.TRANSFER else None,
        priority=3 if move is Move.REPRIORITISE else None,
    )
    for move in Move
}
PERMIT = Permit("smtp", "k", 1.0, AT, timedelta(0), full_at=1.0)
VERSION = Version("pool", "v1", "1", "deployment", VersionState.PENDING, 0, 1, "hash", AT, AT)


class Stage:
    """What the calls are about."""

    def __init__(self, job_id: int, claim: Any, epoch: int, operation_ids: Mapping[Move, int]) -> None:
        self.job_id, self.claim, self.epoch, self.operation_ids = job_id, claim, epoch, operation_ids


@cache
def known(on: Stage) -> tuple[dict[str, Any], dict[tuple[str, str], Any]]:
    """Return what methods are called with, by the name of a parameter, and by that of a method, or its noun, and a parameter."""
    values: dict[str, Any] = {
        **{
            "job_id": on.job_id,
            "job_ids": [on.job_id],
            "ids": [1],
            "last": 10**9,
            "state": State.PENDING,
            "count": 1,
        },
        **{
            "queue_id": on.claim.queue_id,
            "queue_ids": [on.claim.queue_id],
            "queue": "default",
            "queues": [AskedQueue(on.claim.queue_id, 1)],
            "into": "mail",
        },
        **{"worker_id": ME.id, "worker": ME, "worker_ids": [ME.id], "cordoned": False, "silent": {ME.id: AT}},
        "seen": {ME.id: AT},
        **{"claim": on.claim, "claims": [on.claim], "ends": [done(on.claim), dead(on.claim)]},
        **{
            "postponements": [failed(on.claim)],
            "limit": 1,
            "kinds": [Kind("work")],
            "kind": "work",
            "by": "me",
        },
        **{"names": ["default", "mail"], "changes": {"max_attempts": 3}, "owner": None, "throttles": 1},
        **{
            "key": "k",
            "until": AT,
            "reason": "why",
            "wanted": [PermitRequest("smtp", "k")],
            "granted": [(PermitRequest("smtp", "k", job_id=on.job_id), PERMIT)],
            "permit": PERMIT,
            "more": 1.0,
            "lease": Lease("smtp", 1, 0, 0.0, 5.0, 1.0),
            "cost": 1.0,
            "correction": Correction(priority=1),
            "paused": True,
            "completion": Completion(on.job_id, ME.id, 1, 1, Outcome.DONE),
        },
        **{"flow": NewFlow("f", [NewNode("a", job())]), "flow_id": 1},
        **{"tenant": "ada", "weight": 2.0, "weights": {"ada": 2.0}, "last_declared": None},
        **{"scope": "smtp", "capacity": 5, "refill": 1, "tokens": 1, "keep": 0},
        **{"cron": cron(next_fire_at=AT), "fires": [AT], "next_fire_at": AT, "error": "it broke"},
        **{"version": VERSION, "pool": "pool", "version_id": "v1", "holder": "me", "epoch": on.epoch},
        **{"within": timedelta(days=1), "delay": timedelta(days=1), "duration": timedelta(days=1)},
        **{"job": job(key="k"), "jobs": [job(key="m"), job()], "name": "nightly"},
        **{
            "minute": Minute(1, 1, timedelta(0), {("default", "work"): {"done": 1}}),
            "since": timedelta(hours=1),
        },
        **{"purpose": Purpose.WORKER, "result": b"1", "reports": [ProgressReport(on.claim, 0.5)]},
        **{"operation": OPERATIONS[Move.CANCEL], "operation_id": on.operation_ids[Move.CANCEL]},
        **{"stuck": [on.job_id], "adrift": [], "after": 0, "at": AT, "moment": AT, "ids": [on.job_id]},
        "of_pools": True,
    }
    by_noun: dict[tuple[str, str], Any] = {
        **{("queues", "name"): "default", ("removals", "name"): "default"},
        **{("removals.open", "queue"): QueueConfig("default", on.claim.queue_id)},
        ("corrections.end", "state"): State.DONE,
        **{
            ("permits.spend", "keys"): [str(key) for key in range(60)],
            ("permits.spend", "job_ids"): range(1, 61),
        },
        ("imports.forget", "tokens"): ["token"],
        ("imports.add", "jobs"): [ImportedJob(job(), 1)],
        ("versions", "state"): VersionState.DRAINING,
        ("saved_states", "state"): b"1",
        **{("steps", "step"): NewStep(1, "charge"), ("steps", "before"): 1},
        **{("tenants.take_up", "kinds"): ["work"], ("tenants.take_up", "queues"): ["default"]},
        ("steps", "job"): job(rerun_of=on.job_id),
        **{
            ("signals", "wait"): NewWait(1, "approval", ("approved",)),
            ("signals", "to"): Recipient(on.job_id),
        },
        ("signals", "signal"): NewSignal("approved"),
        **{(f"operations.step {move.name}", "operation_id"): on.operation_ids[move] for move in Move},
    }
    return values, by_noun


def given(name: str, parameter: str, on: Stage) -> Any:
    """Return what a method is called with for a parameter that it requires."""
    values, by_noun = known(on)
    for said in (name, name.partition(".")[0]):
        if (said, parameter) in by_noun:
            return by_noun[said, parameter]
    return values[parameter]


@cache
def required_by(method: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a method that have no default."""
    parameters = inspect.signature(method).parameters.values()
    return [parameter for parameter in parameters if parameter.default is parameter.empty]


async def called(storage: Storage, name: str, on: Stage) -> None:
    """Call a method with all that it requires; of a walk, take every step."""
    *nouns, verb = name.partition(" ")[0].split(".")
    method = getattr(getattr(storage, nouns[0]) if nouns else storage, verb)
    required = required_by(method)
    plain = [given(name, one.name, on) for one in required if one.kind is not one.KEYWORD_ONLY]
    named = {one.name: given(name, one.name, on) for one in required if one.kind is one.KEYWORD_ONLY}
    answer = method(*plain, **named)
    if hasattr(answer, "__aiter__"):
        async with aclosing(answer) as steps:
            async for _ in steps:
                pass
    else:
        await answer


# `open` and `close` are tried with databases that are away; whoever listens waits for one that is;
# which rights are needed, and what was met, is known without one; and a completion is part of a transaction of the caller's.
NOT_CALLED = {
    "open",
    "close",
    "met_down",
    "imports.here",
    "wakeups.listen",
    "schema.grants",
    "completions.complete",
    "completions.reschedule",
    "completions.stands",
}


def public_methods() -> list[str]:
    """Return the names of everything that a storage can be asked."""
    methods = {name for name, _ in inspect.getmembers(Storage, inspect.isfunction)}
    for noun, protocol in get_type_hints(Storage, vars(interface)).items():
        if inspect.isclass(protocol) and protocol.__module__.startswith("forge_jobs.storage.interface."):
            methods |= {f"{noun}.{name}" for name, _ in inspect.getmembers(protocol, inspect.isfunction)}
    assert {"ping", "jobs.enqueue", "operations.step", "wakeups.mark_idle"} <= methods
    methods = methods - {"operations.step"} | {f"operations.step {move.name}" for move in Move}
    return sorted({name for name in methods if not name.rpartition(".")[2].startswith("_")} - NOT_CALLED)


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
        await storage.queues.ensure(["mail"])
        operations = {move: await storage.operations.add(one) for move, one in OPERATIONS.items()}
        yield storage, Stage(job_id, claim, epoch, {move: one.id for move, one in operations.items()})
    finally:
        await storage.close()


def states() -> list[str]:
    """Return every SQLSTATE that asyncpg has a class for, and some that nobody has."""
    known: set[str] = set()
    for error in vars(asyncpg.exceptions).values():
        if inspect.isclass(error) and issubclass(error, asyncpg.PostgresError):
            known |= {state for state in [getattr(error, "sqlstate", None)] if state}
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
    methods = public_methods()
    let_out: dict[str, str] = {}
    async with staged(database) as (storage, stage):
        for kind, error in errors.items():
            for name in methods:
                for passing in range(20 if kind in FEW else 1):
                    if passing and name in ("schema.drop", "removals.close", "removals.erase"):
                        break  # what takes things away must not come to its end
                    fault.set(error, passing)
                    try:
                        await called(storage, name, stage)
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


def test_a_connection_that_is_lost_in_the_midst_of_a_call_is_said_without_the_drivers_states() -> None:
    error = InternalClientError("cannot switch to state 15; another operation (2) is in progress")
    ours = postgres_error(error, url="here", schema="s")
    assert isinstance(ours, StorageUnavailable)
    assert str(ours) == "The database here went away in the middle of a call."


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
        await storage.jobs.enqueue(
            job()
        )  # so that there is a connection: who is not let in was refused nothing
        fault.set(by_state(state))
        with pytest.raises(ForgeError) as caught:
            await storage.jobs.enqueue(job())
        fault.set(None)
        return caught.type

    async with staged(database) as (storage, _):
        for state in ("08006", "25006", "53100", "53300", "57P01", "57P03", "58030"):
            assert await raised(state) in (StorageUnavailable, StorageDown)
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
