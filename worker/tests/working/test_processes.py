"""`--processes N`: several workers under one parent."""

import json
import os
import signal

import pytest

from forge_jobs import Forge
from tests.working.eventually import eventually
from tests.working.ledger import Ledger
from tests.working.processes import Fleet

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)


async def test_several_processes_share_the_work_and_stop_together(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    parent = await workers.start("--processes", "2", "--concurrency", "1")
    await eventually(lambda: _live(forge, 2), within=60)
    await forge.enqueue_many("nap", [{"seconds": 0.05}] * 40)
    await eventually(lambda: len(ledger.of("end")) == 40)
    assert len({line.process for line in ledger}) == 2

    parent.terminate()
    assert await parent.wait() == 0
    assert await forge.workers.list() == []


async def _live(forge: Forge, count: int) -> bool:
    return len(await forge.workers.list()) == count


async def test_a_process_that_crashed_is_started_again(forge: Forge, workers: Fleet, ledger: Ledger) -> None:
    await workers.start("--processes", "2", "--concurrency", "1")
    before = {worker.pid for worker in await eventually(lambda: _workers(forge, 2), within=60)}

    os.kill(min(before), signal.SIGKILL)

    await eventually(lambda: _new(forge, before), within=60)


async def _workers(forge: Forge, count: int) -> list[object] | None:
    workers = await forge.workers.list()
    return list(workers) if len(workers) == count else None


async def _new(forge: Forge, before: set[int]) -> bool:
    return bool({worker.pid for worker in await forge.workers.list()} - before)


async def test_processes_end_when_their_parent_was_killed(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    parent = await workers.start("--processes", "2", "--concurrency", "1")
    await eventually(lambda: _live(forge, 2), within=60)

    parent.kill()

    await eventually(lambda: _live(forge, 0), within=30)


async def test_wrong_use_ends_all_processes_with_2(workers: Fleet) -> None:
    parent = await workers.start("--processes", "2", "--queues", "a b")
    assert await parent.wait() == 2


async def test_lines_of_a_handler_in_a_process_of_its_own_are_written_as_the_workers(
    forge: Forge, workers: Fleet
) -> None:
    await workers.start("--log-format", "json")
    job = await forge.enqueue("talk")
    await forge.wait(job.id, timeout=30)

    printed = [line for line in workers.log().splitlines() if not line.startswith("{")]
    assert printed == ["printed", "x" * 1_000_000]
    lines = [json.loads(line) for line in workers.log().splitlines() if line not in printed]
    [said] = [line for line in lines if line["logger"] == "talk"]
    assert said["message"] == "hello"
    assert (said["job_id"], said["kind"], said["queue"], said["attempt"]) == (job.id, "talk", "default", 1)
