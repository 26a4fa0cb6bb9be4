"""A thread that waits for a job hears of its end where PostgreSQL tells, on one connection that all such threads share."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from forge_jobs import Flow, Forge
from forge_jobs.errors import StorageUnavailable
from forge_jobs.sync import sync_waits
from tests.storage.databases import PostgresDatabase
from tests.without_loop.test_outages import ended_by_the_server
from tests.without_loop.working import a_worker_of


@pytest.fixture
def database(postgres: PostgresDatabase) -> PostgresDatabase:
    return postgres


@pytest.fixture
def only_hearing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits listen from the first look on, and look a second time only when they were told, or after a minute."""
    monkeypatch.setattr(sync_waits, "YOUNG", -1.0)
    monkeypatch.setattr(sync_waits, "FIRST_PAUSE", 60.0)
    monkeypatch.setattr(sync_waits, "LONGEST_PAUSE", 60.0)


def held_up(forge: Forge) -> threading.Event:
    """Declare a handler whose jobs end once the event is set."""
    may_end = threading.Event()

    @forge.handler
    def held(number: int) -> int:
        assert may_end.wait(60)
        return number

    return may_end


def ear_of(forge: Forge) -> Any:
    """Return what hears for the threads of the forge."""
    return forge.sync.storage.ends.ear


def listeners(url: str) -> int:
    """Return how many connections of programs without an event loop listen."""
    with psycopg.connect(url) as connection:
        [count] = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN \"forge_jobs\"' "
            "AND application_name = 'forge-jobs' AND datname = current_database()"
        ).fetchone() or (0,)
        return int(count)


@pytest.mark.usefixtures("only_hearing")
def test_threads_hear_of_the_ends_of_their_jobs_on_one_connection(
    new_forge: Callable[[], Forge], forge: Forge, postgres: PostgresDatabase
) -> None:
    theirs = new_forge()
    may_end = held_up(theirs)
    forge.sync.open()

    with a_worker_of(theirs), ThreadPoolExecutor(8) as threads:
        while not (before := listeners(postgres.url)):  # the worker's own
            pass
        jobs = forge.sync.enqueue_many("held", [{"number": number % 4} for number in range(8)])
        waits = [
            threads.submit(forge.sync.wait, jobs[number % 4], timeout=40) for number in range(8)
        ]  # two for each of four
        ear = ear_of(forge)
        while ear._waiting < 8 or not ear._is_read:
            assert not any(wait.done() for wait in waits)
        during = listeners(postgres.url)
        may_end.set()
        assert [wait.result(30) for wait in waits] == [0, 1, 2, 3, 0, 1, 2, 3]
        assert during - before <= 1

    assert ear_of(forge)._connection is None


def test_a_wait_whose_ear_is_lost_goes_on_by_looking(
    new_forge: Callable[[], Forge], forge: Forge, postgres: PostgresDatabase
) -> None:
    theirs = new_forge()
    may_end = held_up(theirs)
    forge.sync.open()

    with a_worker_of(theirs), ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(forge.sync.wait, forge.sync.enqueue("held", {"number": 7}), timeout=60)
        ear = ear_of(forge)
        while not ear._is_read:
            assert not waiting.done()
        assert ended_by_the_server(postgres.url) >= 1
        may_end.set()
        assert waiting.result(60) == 7


@pytest.mark.usefixtures("only_hearing")
def test_a_thread_hears_of_the_end_of_its_flow(new_forge: Callable[[], Forge], forge: Forge) -> None:
    theirs = new_forge()
    may_end = held_up(theirs)
    held_up(forge)
    forge.sync.open()

    with a_worker_of(theirs), ThreadPoolExecutor(1) as thread:
        flow = Flow("f").and_then(forge.handlers.by_kind["held"])
        waiting = thread.submit(forge.sync.flows.wait, forge.sync.flows.start(flow, 7), timeout=40)
        while not ear_of(forge)._is_read:
            assert not waiting.done()
        may_end.set()
        assert waiting.result(30) == {"held": 7}


def test_a_wait_that_cannot_be_announced_ends_by_looking(
    new_forge: Callable[[], Forge], forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = new_forge()
    may_end, refused = held_up(theirs), threading.Event()

    async def refuse(job_ids: Sequence[int]) -> Sequence[int]:
        refused.set()
        raise StorageUnavailable("The server takes no notices.")

    forge.sync.open()
    monkeypatch.setattr(sync_waits, "YOUNG", -1.0)
    monkeypatch.setattr(forge.sync.storage.ends, "announce", refuse)
    with a_worker_of(theirs), ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(forge.sync.wait, forge.sync.enqueue("held", {"number": 7}), timeout=10)
        assert refused.wait(30)
        may_end.set()
        assert waiting.result(30) == 7
