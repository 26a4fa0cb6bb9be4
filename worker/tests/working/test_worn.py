"""Processes that have run many jobs, or hold much memory, are replaced, one after the other."""

import asyncio
import re
from pathlib import Path

import pytest

from forge_jobs import Forge, State
from forge_jobs.cli import values
from forge_jobs.errors import InvalidInput
from forge_jobs.model.run import Outcome
from forge_jobs.system.memory import resident
from forge_jobs.telemetry.events import JobsEnded
from forge_jobs.worker.wear import MEBIBYTE, Wear, WearLimits
from tests.test_logs import run
from tests.working.eventually import eventually
from tests.working.ledger import Ledger
from tests.working.processes import Fleet


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_processes_that_have_run_their_jobs_are_replaced_one_after_the_other(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    parent = await workers.start("--processes", "2", "--concurrency", "1", "--max-jobs", "5")
    before = await eventually(lambda: _pids(forge, 2), within=60)
    fewest = [2]

    async def watch() -> None:
        while True:
            fewest.append(len(await forge.workers.list()))
            await asyncio.sleep(0.02)

    watching = asyncio.ensure_future(watch())
    await forge.enqueue_many("nap", [{"seconds": 0.02}] * 60)
    await eventually(lambda: len(ledger.of("end")) == 60, within=100)
    replaced = [f"Worker process {index} is replaced: it has run" for index in (0, 1)]
    await eventually(lambda: all(one in workers.log() for one in replaced), within=60)
    await eventually(lambda: _new(forge, before), within=60)
    watching.cancel()

    assert len(ledger.of("start")) == len(ledger.of("end")) == 60  # what ran was finished first
    assert min(fewest) >= 1
    parent.terminate()
    assert await parent.wait() == 0


async def test_one_process_is_replaced_as_well(forge: Forge, workers: Fleet, ledger: Ledger) -> None:
    parent = await workers.start("--concurrency", "1", "--max-jobs", "3")
    await forge.enqueue_many("nap", [{"seconds": 0.02}] * 10)

    await eventually(lambda: len(ledger.of("end")) == 10, within=100)

    assert len({line.process for line in ledger}) >= 2
    parent.terminate()
    assert await parent.wait() == 0


async def test_a_process_that_holds_too_much_memory_is_replaced(forge: Forge, workers: Fleet) -> None:
    parent = await workers.start("--max-rss", "1MiB", "--concurrency", "1")  # which no process keeps
    jobs = [await forge.enqueue("nap")]
    said = r"is replaced: it holds \d+ MiB of 1 MiB, and held \d+ MiB before its first job"

    await eventually(lambda: len(re.findall(said, workers.log())) >= 1, within=100)
    jobs.append(await forge.enqueue("nap"))
    await forge.wait_all(jobs, timeout=60)  # each process does one at least

    parent.terminate()
    assert await parent.wait() == 0


async def _pids(forge: Forge, count: int) -> set[int] | None:
    pids = {worker.pid for worker in await forge.workers.list()}
    return pids if len(pids) == count else None


async def _new(forge: Forge, before: set[int]) -> bool:
    pids = await _pids(forge, 2)
    return pids is not None and pids.isdisjoint(before)


@pytest.mark.parametrize(
    ("text", "size"), [("512MiB", 2**29), ("1.5 gib", 3 * 2**29), ("2GB", 2 * 10**9), ("1048576", 2**20)]
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert values.size("--max-rss")(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "1", "5 apples", "1e3MiB", "512K"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="allowed is 1MiB or more, like 512MiB or 2GiB"):
        values.size("--max-rss")(text)


async def test_a_process_without_limits_is_never_worn() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await Wear(WearLimits()).worn()


async def test_memory_is_looked_at_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge_jobs.worker.wear.LOOK_EVERY", 0.001)
    held = iter([1, 1, 2, 3 * MEBIBYTE])
    wear = Wear(WearLimits(memory=2 * MEBIBYTE), lambda: next(held))
    wear.hear(JobsEnded([run(Outcome.DONE)]))

    assert await wear.worn() == "it holds 3 MiB of 2 MiB"


async def test_a_process_is_not_worn_before_its_first_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge_jobs.worker.wear.LOOK_EVERY", 0.001)
    wear = Wear(WearLimits(memory=MEBIBYTE), lambda: 3 * MEBIBYTE)
    worn = asyncio.ensure_future(wear.worn())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await asyncio.shield(worn)

    wear.hear(JobsEnded([run(Outcome.DONE)]))

    assert await worn == "it holds 3 MiB of 1 MiB, and held 3 MiB before its first job"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_stop_leaves_a_process_that_is_replaced_its_grace(
    forge: Forge, workers: Fleet, ledger: Ledger, tmp_path: Path
) -> None:
    parent = await workers.start("--concurrency", "2", "--max-jobs", "1")
    job = await forge.enqueue("wait_for", {"path": str(tmp_path / "now")})
    await eventually(lambda: ledger.of("start"))
    await forge.enqueue("nap")
    await eventually(lambda: "is replaced" in workers.log() and " stops (" in workers.log(), within=60)
    await asyncio.sleep(1.2)  # what is heard within a second is taken for an echo

    parent.terminate()
    await asyncio.sleep(0.3)
    (tmp_path / "now").touch()

    assert await parent.wait() == 0
    assert (await forge.jobs.get(job)).state is State.DONE


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_process_that_is_replaced_lets_its_jobs_finish_however_short_its_grace_is(
    forge: Forge, workers: Fleet, ledger: Ledger, tmp_path: Path
) -> None:
    await workers.start("--concurrency", "2", "--max-jobs", "1", "--grace", "0.1s")
    job = await forge.enqueue("wait_for", {"path": str(tmp_path / "now")})
    await eventually(lambda: ledger.of("start"))
    await forge.enqueue("nap")
    await eventually(lambda: "(it is replaced): 1 jobs may run for 3600" in workers.log(), within=60)
    waits = await forge.enqueue("nap")
    await asyncio.sleep(0.5)  # five times the grace

    there = await forge.jobs.get(job)
    assert (there.state, there.attempt) == (State.IN_PROGRESS, 1)
    assert (await forge.jobs.get(waits)).state is State.PENDING
    (tmp_path / "now").touch()
    await forge.wait(job, timeout=60)
    await forge.wait(waits, timeout=60)
    assert (await forge.jobs.get(job)).attempt == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_stop_does_not_wait_for_the_jobs_of_a_process_that_is_replaced(
    forge: Forge, workers: Fleet, ledger: Ledger, tmp_path: Path
) -> None:
    parent = await workers.start("--concurrency", "2", "--max-jobs", "1", "--grace", "0.1s")
    job = await forge.enqueue("wait_for", {"path": str(tmp_path / "now")})
    await eventually(lambda: ledger.of("start"))
    await forge.enqueue("nap")
    await eventually(lambda: "(it is replaced)" in workers.log(), within=60)

    parent.terminate()

    assert await parent.wait() == 0
    there = await forge.jobs.get(job)
    assert (there.state, there.attempt) == (State.PENDING, 0)


def test_the_memory_of_this_process_is_known() -> None:
    assert 10 * MEBIBYTE < resident() < 10_000 * MEBIBYTE
