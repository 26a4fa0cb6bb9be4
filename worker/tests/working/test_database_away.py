"""The database goes away and comes back: workers go on by themselves, and nothing is lost."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from forge_jobs import Forge, State
from forge_jobs.local_postgres import LocalPostgres
from tests.working.eventually import eventually
from tests.working.ledger import Ledger
from tests.working.processes import Fleet, fleet


@pytest.fixture
def server() -> Iterator[LocalPostgres]:
    """A server of the test's own, which it may stop."""
    with LocalPostgres(settings={"fsync": "off"}) as server:
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


async def test_a_worker_outlives_an_outage_longer_than_its_stale_time(
    server: LocalPostgres, workers: Fleet, ledger: Ledger
) -> None:
    async with Forge(server.url()) as forge:
        await forge.queues.set("default", backoff_enabled=False)
        job = await forge.enqueue("sleep_once", {"seconds": 300})
        worker = await workers.start()
        await eventually(lambda: ledger.of("start"))

    server.stop()
    await eventually(lambda: "not heard of for too long" in workers.log(), within=60)
    server.start()

    async with Forge(server.url()) as forge:
        after = await forge.enqueue("nap")
        await forge.wait(after.id, timeout=60)
        # its first run was stopped by the worker itself; the job was run again and ended
        await eventually(lambda: _has_started(ledger, job.id, 2), within=60)
    assert worker.returncode is None


def _has_started(ledger: Ledger, job_id: int, times: int) -> bool:
    return len([line for line in ledger.of("start") if line.job_id == job_id]) >= times
