"""What a program without an event loop sees of a PostgreSQL that goes away and comes back."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from forge_jobs import Forge, InvalidInput, State
from forge_jobs.errors import StorageBusy, StorageUnavailable, StorageUnusable
from forge_jobs.handlers.sync_connection import at_once
from forge_jobs.model.job import NewJob
from forge_jobs.storage.postgres import PostgresStorage, psycopg_connect, psycopg_pool
from tests.storage.databases import PostgresDatabase
from tests.storage_postgres.gate import Gate


@pytest.fixture
def database(postgres: PostgresDatabase) -> PostgresDatabase:
    return postgres


def ended_by_the_server(url: str) -> int:
    """The server has ended all connections of forge-jobs; return how many."""
    with psycopg.connect(url, autocommit=True) as connection:
        return len(
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE application_name = 'forge-jobs' AND datname = current_database()"
            ).fetchall()
        )


def test_a_connection_that_was_ended_while_nobody_used_it_is_not_used(
    forge: Forge, postgres: PostgresDatabase
) -> None:
    forge.sync.enqueue("send")
    assert ended_by_the_server(postgres.url) == 1

    forge.sync.enqueue("send")

    assert forge.sync.jobs.count(state=State.PENDING) == 2


def test_a_call_that_is_cut_off_says_so_and_the_next_one_works(
    forge: Forge, postgres: PostgresDatabase
) -> None:
    forge.sync.enqueue("send")
    with psycopg.connect(postgres.url) as locking, ThreadPoolExecutor(1) as thread:
        locking.execute("LOCK TABLE forge_jobs.job IN ACCESS EXCLUSIVE MODE")
        held_up = thread.submit(forge.sync.enqueue, "send")
        waiting = (
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'forge-jobs'"
        )
        while not locking.execute(waiting).fetchall():
            pass
        ended_by_the_server(postgres.url)
        with pytest.raises(StorageUnavailable):
            held_up.result(30)

    assert forge.sync.enqueue("send").id
    assert forge.sync.jobs.count(state=State.PENDING) == 2


def test_no_more_connections_are_made_than_allowed_and_threads_wait_for_them(
    forge: Forge, postgres: PostgresDatabase
) -> None:
    barrier = threading.Barrier(16)

    def enqueue(_: int) -> None:
        barrier.wait(30)
        for _ in range(5):
            forge.sync.enqueue("send")

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(enqueue, range(16)))

    assert forge.sync.jobs.count(state=State.PENDING) == 80
    assert 1 <= ended_by_the_server(postgres.url) <= 4


def opened(url: str, **options: Any) -> Any:
    storage = PostgresStorage(url, is_sync=True, **options)
    at_once(storage.open())
    return storage


def test_who_gets_no_connection_in_time_is_told_that_others_use_them(postgres: PostgresDatabase) -> None:
    storage = opened(postgres.url, pool_size=1, command_timeout=timedelta(seconds=0.3))
    try:
        with (
            storage._database._connections.lent(),
            pytest.raises(StorageBusy, match=r"^Other threads use all 1"),
        ):
            at_once(storage.jobs.counts())
        assert at_once(storage.jobs.counts())
    finally:
        at_once(storage.close())


async def test_a_server_that_falls_silent_is_given_up_and_found_again(
    postgres: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg_connect, "ANSWER_LATE", 0.2)

    async def in_a_thread(call: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(lambda: at_once(call()))

    async with Gate(postgres.server.replace("/postgres?", f"/{postgres.name}?")) as gate:
        storage = await asyncio.to_thread(
            opened, f"{gate.url}?{'options=-csearch_path%3Dtest_clock'}", command_timeout=timedelta(seconds=1)
        )
        gate.swallow()
        with pytest.raises(StorageUnavailable, match="did not answer in time"):
            await in_a_thread(lambda: storage.jobs.enqueue(NewJob("send")))
        assert (await in_a_thread(lambda: storage.jobs.enqueue(NewJob("send")))).id
        gate.refuse()
        with pytest.raises(StorageUnavailable):
            await in_a_thread(lambda: storage.jobs.enqueue(NewJob("send")))
        await gate.reopen()
        assert (await in_a_thread(lambda: storage.jobs.enqueue(NewJob("send")))).id
        await in_a_thread(storage.close)


async def test_of_connections_that_fell_silent_one_call_learns_for_all(
    postgres: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg_connect, "ANSWER_LATE", 0.2)

    async def in_a_thread(call: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(lambda: at_once(call()))

    def four_at_once() -> None:
        with ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(storage._database._connections.lent())

    async with Gate(postgres.server.replace("/postgres?", f"/{postgres.name}?")) as gate:
        storage = await asyncio.to_thread(
            opened, f"{gate.url}?{'options=-csearch_path%3Dtest_clock'}", command_timeout=timedelta(seconds=1)
        )
        await asyncio.to_thread(four_at_once)
        gate.swallow()
        with pytest.raises(StorageUnavailable, match="did not answer in time"):
            await in_a_thread(lambda: storage.jobs.enqueue(NewJob("send")))

        assert not storage._database._connections._idle
        await in_a_thread(storage.close)


async def test_of_threads_that_wait_one_at_a_time_tries_to_listen_and_holds_up_no_other(
    postgres: PostgresDatabase,
) -> None:
    async with Gate(postgres.server.replace("/postgres?", f"/{postgres.name}?")) as gate:
        storage = await asyncio.to_thread(
            opened, f"{gate.url}?connect_timeout=2&options=-csearch_path%3Dtest_clock"
        )
        ear = storage.ends.ear
        gate.swallow_all()
        began = time.monotonic()

        with ear:
            assert await asyncio.gather(*(asyncio.to_thread(ear.opens) for _ in range(4))) == [False] * 4

        assert time.monotonic() - began < 4  # one after another they would need 8
        await gate.__aexit__()
        await gate.reopen()
        with ear:
            while not await asyncio.to_thread(ear.opens):
                assert time.monotonic() - began < 30
        await asyncio.to_thread(lambda: at_once(storage.close()))


def test_a_connection_that_nobody_used_for_long_is_made_anew(
    forge: Forge, postgres: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    with forge.sync, psycopg.connect(postgres.url, autocommit=True) as looking:

        def server() -> int:
            forge.sync.jobs.counts()
            [[pid]] = looking.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'forge-jobs' AND datname = current_database() "
                "ORDER BY query_start DESC LIMIT 1"
            ).fetchall()
            return int(pid)

        first = server()
        assert server() == first
        monkeypatch.setattr(psycopg_pool, "LONGEST_IDLE", 0.0)
        assert server() != first


def test_what_waiting_does_not_cure_is_told_apart(postgres: PostgresDatabase) -> None:
    nobody = postgres.url.replace("postgres@", "nobody_at_all@").replace(
        "user=postgres", "user=nobody_at_all"
    )
    if nobody == postgres.url:
        nobody += "&user=nobody_at_all"

    with pytest.raises(StorageUnusable, match='role "nobody_at_all" does not exist'):
        Forge(nobody).sync.enqueue("send")
    with pytest.raises(InvalidInput, match=r"is not valid|allowed is"):
        Forge("postgresql://host:port/db").sync.enqueue("send")
