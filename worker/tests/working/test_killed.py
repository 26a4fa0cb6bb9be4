"""Workers that die, freeze or are cut off: nothing is lost, and a stale worker does no harm."""

import asyncio
import signal
from datetime import timedelta

import pytest

from forge_jobs import Forge, State
from tests.builtin.family import lives
from tests.working.eventually import eventually
from tests.working.ledger import Ledger
from tests.working.processes import Fleet, below, told_again

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)


async def states(forge: Forge, ids: list[int]) -> set[State]:
    return {(await forge.jobs.get(job_id)).state for job_id in ids}


async def test_jobs_of_a_killed_worker_end_done_and_each_attempt_is_counted(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    await forge.queues.set("default", backoff_enabled=False)
    ids = [each.id for each in await forge.enqueue_many("sleep_once", [{"seconds": 300}] * 50)]
    first = await workers.start("--concurrency", "50")
    await eventually(lambda: len(ledger.of("start")) == 50)

    first.kill()
    await workers.start("--concurrency", "50")

    await eventually(lambda: len(ledger.of("end")) == 50, within=60)
    await eventually(lambda: _all_done(forge, ids))
    for job_id in ids:
        job = await forge.jobs.get(job_id)
        assert job.attempt == 2
        assert [failure.error for failure in job.failures] == ["worker lost"]
    assert sorted(line.attempt for line in ledger.of("start")) == [1] * 50 + [2] * 50


async def test_jobs_of_a_killed_worker_go_on_from_what_they_had_saved(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    await forge.queues.set("default", backoff_enabled=False)
    jobs = await forge.enqueue_many("count_up", [{"to": 10}] * 20)
    first = await workers.start("--concurrency", "20")
    await eventually(lambda: len(ledger.of("half")) == 20)

    first.kill()
    await workers.start("--concurrency", "20")
    await forge.wait_all(jobs, timeout=60)

    assert sorted(line.attempt for line in ledger.of("row")) == [1] * 100 + [2] * 100
    shares = {job.progress and job.progress.share for job in await forge.jobs.list(kind="count_up")}
    assert shares == {1.0}


async def _all_done(forge: Forge, ids: list[int]) -> bool:
    return await states(forge, ids) == {State.DONE}


async def test_a_job_that_kills_its_process_every_time_ends_dead(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    await forge.queues.set("default", backoff_enabled=False)
    job = await forge.enqueue("die", max_attempts=3)
    await workers.start_leader()

    for attempt in (1, 2, 3):
        worker = await workers.start()
        await eventually(lambda attempt=attempt: len(ledger.of("start")) == attempt, within=60)
        await worker.wait()
    await workers.start()

    await eventually(lambda: _is(forge, job.id, State.DEAD))
    dead = await forge.jobs.get(job.id)
    assert dead.attempt == 3
    assert [failure.error for failure in dead.failures] == ["worker lost"] * 3
    assert len(ledger.of("start")) == 3


async def _is(forge: Forge, job_id: int, state: State) -> bool:
    return (await forge.jobs.get(job_id)).state is state


async def test_a_worker_frozen_past_its_stale_time_cannot_finish_what_another_has_taken(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    await forge.queues.set("default", backoff_enabled=False)
    await workers.start_leader()
    frozen = await workers.start()
    job = await forge.enqueue("nap", {"seconds": 6})
    await eventually(lambda: ledger.of("start"))

    frozen.send_signal(signal.SIGSTOP)
    await workers.start()
    await eventually(lambda: len(ledger.of("start")) == 2)
    second = await forge.jobs.get(job.id)
    frozen.send_signal(signal.SIGCONT)

    await eventually(lambda: "is cut off" in workers.log(1))
    await eventually(lambda: _is(forge, job.id, State.DONE))
    finished = await forge.jobs.get(job.id)
    assert (finished.attempt, finished.worker_id) == (2, second.worker_id)
    assert frozen.returncode is None  # it goes on under a new id
    await eventually(lambda: _live_workers(forge, 3))


async def test_a_worker_frozen_past_its_stale_time_goes_on_when_nobody_has_its_jobs(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    frozen = await workers.start()
    job = await forge.enqueue("nap", {"seconds": 8})
    await eventually(lambda: ledger.of("start"))

    frozen.send_signal(signal.SIGSTOP)
    await eventually(lambda: _silent_for(forge, timedelta(seconds=4)))
    frozen.send_signal(signal.SIGCONT)

    await eventually(lambda: _is(forge, job.id, State.DONE))
    assert (await forge.jobs.get(job.id)).attempt == 1
    assert len(ledger.of("start")) == 1
    assert "is cut off" not in workers.log(0)


async def _silent_for(forge: Forge, duration: timedelta) -> bool:
    beats = await forge.storage.workers.beats()
    return all(beats.now - beat_at > duration for beat_at in beats.at.values())


async def _live_workers(forge: Forge, count: int) -> bool:
    return len(await forge.workers.list()) == count


async def test_sigterm_lets_running_jobs_finish_and_hands_back_the_rest(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    quick = await forge.enqueue("nap", {"seconds": 1})
    slow = await forge.enqueue("nap", {"seconds": 300})
    worker = await workers.start("--concurrency", "2", "--grace", "2")
    await eventually(lambda: len(ledger.of("start")) == 2)
    waiting = await forge.enqueue("nap")

    worker.terminate()
    assert await worker.wait() == 0

    assert (await forge.jobs.get(quick.id)).state is State.DONE
    handed_back = await forge.jobs.get(slow.id)
    assert (handed_back.state, handed_back.attempt) == (State.PENDING, 0)
    assert (await forge.jobs.get(waiting.id)).state is State.PENDING
    assert await forge.workers.list() == []


@pytest.mark.parametrize("kind", ["stubborn", "stubborn_thread"])
async def test_a_handler_that_ignores_being_stopped_does_not_keep_the_process(
    forge: Forge, workers: Fleet, ledger: Ledger, kind: str
) -> None:
    job = await forge.enqueue(kind, {"seconds": 300})
    worker = await workers.start("--grace", "1")
    await eventually(lambda: ledger.of("start"))

    worker.terminate()
    async with asyncio.timeout(30):
        assert await worker.wait() == 0

    handed_back = await forge.jobs.get(job.id)
    assert (handed_back.state, handed_back.attempt) == (State.PENDING, 0)
    assert "did not stop when told to" in workers.log()


@pytest.mark.parametrize("what", ["thread", "executor", "task", "process"])
async def test_what_a_handler_left_behind_does_not_keep_the_process(
    forge: Forge, workers: Fleet, what: str
) -> None:
    worker = await workers.start()
    await forge.wait(await forge.enqueue("leave_behind", {"what": what}), timeout=30)
    everybody = below(worker.pid)

    worker.terminate()
    assert await worker.wait() == 0

    name = "uvloop_0" if what == "executor" else "left"
    assert "What handlers started still runs (" in workers.log() and name in workers.log()
    await eventually(lambda: not any(lives(pid) for pid in everybody))


async def test_a_second_signal_ends_the_worker_at_once(forge: Forge, workers: Fleet, ledger: Ledger) -> None:
    await forge.enqueue("stubborn", {"seconds": 300})
    worker = await workers.start("--grace", "300")
    await eventually(lambda: ledger.of("start"))

    worker.terminate()
    await eventually(lambda: "stops" in workers.log())
    await eventually(lambda: told_again(worker))

    assert await worker.wait() == 128 + signal.SIGTERM


async def test_ten_workers_never_run_more_jobs_than_the_queues_concurrency(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    await forge.queues.set("default", concurrency=3)
    for _ in range(10):
        await workers.start("--concurrency", "2")
    await eventually(lambda: _live_workers(forge, 10), within=60)

    # in bursts, so that all race for the slots again and again
    for burst in range(1, 11):
        await forge.enqueue_many("nap", [{"seconds": 0.01}] * 12)
        await eventually(lambda burst=burst: len(ledger.of("end")) == 12 * burst)

    assert ledger.most_at_once() == 3
    assert len(ledger.of("start")) == 120
    assert len({line.process for line in ledger}) > 1
