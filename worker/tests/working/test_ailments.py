"""A worker that is kept from its work says so, with the reason: to probes, in the list of workers, and of jobs that wait for it."""

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.errors import StorageDown, StorageUnusable
from forge_jobs.worker import claimer, session
from tests.storage.databases import Database
from tests.working.eventually import eventually
from tests.working.running import working

Refused = Callable[[str], AbstractContextManager[None]]


def ready(port: int | None) -> tuple[int, str | None]:
    """Ask a worker whether it is ready; return the status, and why not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status, json.load(answer)["why"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["why"]


async def test_a_worker_without_all_its_runners_is_not_ready_and_jobs_say_so(forge: Forge) -> None:
    over = asyncio.Event()

    @forge.handler
    async def hold() -> None:
        await over.wait()

    async with working(
        forge, concurrency=3, metrics_port=0, metrics_host="127.0.0.1", heartbeat=timedelta(seconds=0.1)
    ) as worker:
        assert await asyncio.to_thread(ready, worker.metrics_port) == (200, None)
        assert worker.session is not None
        worker.session.runners.count += 1
        answer = await asyncio.to_thread(ready, worker.metrics_port)
        assert answer == (503, "Only 3 of 4 runners are alive.")

        job = await hold.enqueue()

        async def is_the_reason() -> bool:
            return "It reports: Only 3 of 4 runners are alive." in (await forge.jobs.why(job)).reasons

        await eventually(is_the_reason)
        over.set()


REFUSAL = "The database cannot be used: permission denied for a table."


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers know at once what ails them."""
    monkeypatch.setattr(session, "UNWELL_AFTER", 0.3)
    monkeypatch.setattr(claimer, "LONGEST_POLL", 0.1)


@pytest.fixture
def refused(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Makes the database refuse a call meanwhile."""

    async def refuses(*given: Any, **named: Any) -> None:
        raise StorageUnusable(REFUSAL)

    @contextmanager
    def refused(call: str) -> Iterator[None]:
        noun, name = call.split(".")
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(getattr(forge.storage, noun), name, refuses)
            yield

    return refused


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("claims.claim", "It could not look for jobs for"),
        ("claims.finish", "It could not record outcomes for"),
        ("schedule.make_pending", "It could not make scheduled jobs pending for"),
    ],
)
async def test_a_worker_that_the_database_lets_do_nothing_says_so_to_all_who_ask(
    forge: Forge, refused: Refused, call: str, says: str
) -> None:
    @forge.handler
    async def works() -> None:
        pass

    async with working(
        forge, metrics_port=0, metrics_host="127.0.0.1", heartbeat=timedelta(seconds=0.1)
    ) as worker:
        with refused(call):
            at_once = await works.enqueue()
            later = await works.options(delay=0.01).enqueue()

            async def is_said() -> bool:
                status, why = await asyncio.to_thread(ready, worker.metrics_port)
                if status == 503:
                    assert REFUSAL not in (why or "")  # which may name hosts and users
                return status == 503 and says in (why or "")

            async def is_listed() -> bool:
                [each] = await forge.workers.list()
                return each.ailment is not None and says in each.ailment and REFUSAL in each.ailment

            async def is_the_reason() -> bool:
                reasons = [
                    *(await forge.jobs.why(at_once.id)).reasons,
                    *(await forge.jobs.why(later.id)).reasons,
                ]
                return any(says in reason and REFUSAL in reason for reason in reasons)

            for is_known in (is_said, is_listed, is_the_reason):
                await eventually(is_known)
        for job in (at_once, later):
            await forge.wait(job.id, timeout=30)

        async def is_well() -> bool:
            [each] = await forge.workers.list()
            return each.ailment is None and (await asyncio.to_thread(ready, worker.metrics_port))[0] == 200

        await eventually(is_well)


async def test_a_worker_of_which_no_outcome_is_taken_is_not_well(forge: Forge, database: Database) -> None:
    @forge.handler
    async def works() -> None:
        pass

    await database.refuse("finished", "true")
    async with working(forge, heartbeat=timedelta(seconds=0.1)):
        jobs = await works.enqueue_many([{}] * 3)

        async def is_listed() -> bool:
            [each] = await forge.workers.list()
            return "the trigger says no" in (each.ailment or "")

        await eventually(is_listed)
        assert "the trigger says no" in (await forge.jobs.why(jobs[0].id)).reasons[-1]
        await database.accept()
        for job in jobs:
            await forge.wait(job.id, timeout=30)


async def test_an_ailment_that_no_database_can_hold_keeps_no_worker_from_beating(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(*given: Any, **named: Any) -> None:
        raise ValueError("nul \0, wide ☂, and long " + "x" * 100_000)

    monkeypatch.setattr(forge.storage.claims, "claim", refuses)
    async with working(forge, heartbeat=timedelta(seconds=0.1)):

        async def is_listed() -> bool:
            [each] = await forge.workers.list()
            return "wide \\u2602" in (each.ailment or "")

        await eventually(is_listed)


async def test_a_worker_that_outlives_an_outage_says_so_to_probes_and_never_by_a_beat(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who hears a beat knows by it that the database is there."""
    told: list[str | None] = []
    beat = forge.storage.workers.beat

    async def beaten(*given: Any, **said: Any) -> Any:
        told.append(said.get("ailment"))
        return await beat(*given, **said)

    async def down(*given: Any, **said: Any) -> Any:
        raise StorageDown("connection refused")

    monkeypatch.setattr(forge.storage.workers, "beat", beaten)
    options = {"heartbeat": timedelta(seconds=0.1), "stale": timedelta(seconds=0.5)}
    async with working(forge, metrics_port=0, metrics_host="127.0.0.1", **options) as worker:
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(forge.storage.workers, "beat", down)
            meanwhile.setattr(forge.storage, "ping", down)

            async def is_said() -> bool:
                status, why = await asyncio.to_thread(ready, worker.metrics_port)
                return (
                    status == 503
                    and why is not None
                    and re.fullmatch(
                        r"The database cannot be reached\. It could not beat for \d s, and its jobs go on, "
                        r"since nobody can use the database\.",
                        why,
                    )
                    is not None
                )

            await eventually(is_said)
            told.clear()
        await eventually(lambda: len(told) > 1)

    assert set(told) == {None}
