"""Signals, to a worker alone and to all its processes, from the first moment of its life on."""

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from forge_jobs import Forge, JobDead, State
from forge_jobs.system import stop_signals
from tests.builtin.family import Family, lives
from tests.working.eventually import eventually
from tests.working.ledger import Ledger
from tests.working.processes import Fleet, below, tell_all, told_again

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)

STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("options", [(), ("--processes", "2")])
async def test_a_signal_to_all_processes_gives_each_job_its_grace(
    forge: Forge, workers: Fleet, ledger: Ledger, options: tuple[str, ...], number: signal.Signals
) -> None:
    ids = [each.id for each in await forge.enqueue_many("nap", [{"seconds": 2}] * 2)]
    worker = await workers.start("--concurrency", "1" if options else "2", *options)
    await eventually(lambda: len(ledger.of("start")) == 2)

    tell_all(worker.pid, number)
    assert await worker.wait() == 0

    assert {(await forge.jobs.get(id)).state for id in ids} == {State.DONE}
    assert {line.attempt for line in ledger.of("end")} == {1}


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("options", [(), ("--processes", "2")])
async def test_a_signal_to_all_processes_gives_a_handler_in_a_process_its_grace(
    forge: Forge, workers: Fleet, ledger: Ledger, options: tuple[str, ...], number: signal.Signals
) -> None:
    job = await forge.enqueue("compute", {"seconds": 2})
    worker = await workers.start(*options)
    await eventually(lambda: ledger.of("start"))

    tell_all(worker.pid, number)
    assert await worker.wait() == 0

    ended = await forge.jobs.get(job.id)
    assert (ended.state, ended.attempt) == (State.DONE, 1)


async def test_a_signal_that_comes_while_a_process_is_started_for_a_handler_does_not_end_it(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    worker = await workers.start()
    await eventually(lambda: "serves" in workers.log())
    job = await forge.enqueue("compute", {"seconds": 0.1})
    await eventually(lambda: len(below(worker.pid)) == 2)  # the guard, and the handler's

    tell_all(worker.pid, signal.SIGTERM)
    assert await worker.wait() == 0

    ended = await forge.jobs.get(job.id)
    assert (ended.state, ended.attempt) == (State.DONE, 1)


@pytest.mark.parametrize("number", STOPS)
async def test_a_signal_to_the_workers_group_gives_a_command_its_grace(
    forge: Forge, workers: Fleet, tmp_path: Path, number: signal.Signals
) -> None:
    family = Family(tmp_path / "family")
    job = await forge.enqueue("command", {"argv": family.script("note parent $$; sleep 2")})
    worker = await workers.start()
    await family.pids(1)

    os.killpg(worker.pid, number)
    assert await worker.wait() == 0

    assert (await forge.jobs.get(job.id)).state is State.DONE


@pytest.mark.parametrize("number", STOPS)
async def test_a_command_that_hears_the_signal_itself_and_ends_of_it_is_handed_back(
    forge: Forge, workers: Fleet, tmp_path: Path, number: signal.Signals
) -> None:
    family = Family(tmp_path / "family")
    job = await forge.enqueue("command", {"argv": family.three_generations()}, max_attempts=1)
    worker = await workers.start()
    await family.pids(3)

    tell_all(worker.pid, number)
    assert await worker.wait() == 0

    handed_back = await forge.jobs.get(job.id)
    assert (handed_back.state, handed_back.attempt) == (State.PENDING, 0)


FAILS_BY_SIGTERM = {
    "by an exit code": "trap 'exit 1' TERM; note parent $$; while :; do sleep 0.1; done",
    "late": "trap 'sleep 3; exit 255' TERM; note parent $$; while :; do sleep 0.1; done",
    "by the signal": "trap 'trap - TERM; kill $$' TERM; note parent $$; while :; do sleep 0.1; done",
    "and leaves somebody": "(trap '' TERM; while :; do sleep 0.1; done) & note parent $$; wait",
}


@pytest.mark.parametrize("how", FAILS_BY_SIGTERM)
async def test_a_command_that_answers_a_signal_to_all_by_a_failure_is_handed_back(
    forge: Forge, workers: Fleet, tmp_path: Path, how: str
) -> None:
    family = Family(tmp_path / "family")
    argv = family.script(FAILS_BY_SIGTERM[how])
    job = await forge.enqueue("command", {"argv": argv}, max_attempts=1)
    worker = await workers.start()
    await family.pids(1)

    tell_all(worker.pid, signal.SIGTERM)
    assert await worker.wait() == 0

    handed_back = await forge.jobs.get(job.id)
    assert (handed_back.state, handed_back.attempt) == (State.PENDING, 0)


async def test_a_command_that_fails_while_its_worker_stops_and_heard_no_signal_has_failed(
    forge: Forge, workers: Fleet, tmp_path: Path
) -> None:
    family = Family(tmp_path / "family")
    argv = family.script("note parent $$; sleep 1; exit 3")
    job = await forge.enqueue("command", {"argv": argv}, max_attempts=1)
    worker = await workers.start()
    await family.pids(1)

    os.killpg(worker.pid, signal.SIGTERM)
    assert await worker.wait() == 0

    failed = await forge.jobs.get(job.id)
    assert (failed.state, failed.error) == (State.DEAD, "exit 3")


async def test_a_handler_in_a_process_whose_program_heard_the_signal_itself_is_handed_back(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    job = await forge.enqueue("run_program", {"argv": ["sleep", "300"]}, max_attempts=1)
    worker = await workers.start()
    await eventually(lambda: ledger.of("start"))
    await eventually(lambda: len(below(worker.pid)) == 3)  # the guard, the handler's, and its program

    tell_all(worker.pid, signal.SIGTERM)
    assert await worker.wait() == 0

    handed_back = await forge.jobs.get(job.id)
    assert (handed_back.state, handed_back.attempt) == (State.PENDING, 0)
    assert "KillMode=mixed" in workers.log()


@pytest.mark.parametrize("how", ["ignore_children", "wait_for_all_children"])
async def test_a_command_whose_exit_code_somebody_else_took_is_not_done(
    forge: Forge, workers: Fleet, how: str
) -> None:
    await workers.start()
    await forge.wait(await forge.enqueue(how), timeout=30)
    job = await forge.enqueue("command", {"argv": ["sh", "-c", "exit 3"]}, max_attempts=1)

    with pytest.raises(JobDead, match=r"exit (code unknown: .* SIGCHLD|3)"):
        await forge.wait(job.id, timeout=30)


async def test_a_worker_that_was_started_to_ignore_its_children_knows_exit_codes(
    forge: Forge, workers: Fleet
) -> None:
    await workers.start(before=["sh", "-c", "trap '' CHLD; exec \"$@\"", "sh"])
    job = await forge.enqueue("command", {"argv": ["sh", "-c", "exit 3"]}, max_attempts=1)

    with pytest.raises(JobDead, match="exit 3"):
        await forge.wait(job.id, timeout=30)


async def test_the_log_says_once_how_commands_have_their_grace(
    forge: Forge, workers: Fleet, tmp_path: Path
) -> None:
    families = [Family(tmp_path / name) for name in ("one", "other")]
    for family in families:
        argv = family.script("note parent $$; sleep 300")
        await forge.enqueue("command", {"argv": argv})
    worker = await workers.start()
    for family in families:
        await family.pids(1)

    tell_all(worker.pid, signal.SIGTERM)
    assert await worker.wait() == 0

    [line] = [line for line in workers.log().splitlines() if "KillMode=mixed" in line]
    assert "WARNING" in line and "so it had no grace" in line


async def test_nothing_that_a_worker_started_outlives_it(
    forge: Forge, workers: Fleet, ledger: Ledger, tmp_path: Path
) -> None:
    family = Family(tmp_path / "family")
    worker = await workers.start()
    await forge.enqueue("command", {"argv": family.three_generations()})
    await forge.enqueue("compute", {"seconds": 300})
    await family.pids(3)
    await eventually(lambda: ledger.of("start"))
    everybody = below(worker.pid)
    assert len(everybody) >= 6

    worker.kill()

    await eventually(lambda: not any(lives(pid) for pid in everybody))


async def test_what_a_handler_in_a_process_started_ends_with_it_when_it_is_cancelled(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    worker = await workers.start()
    job = await forge.enqueue("compute", {"seconds": 300})
    await eventually(lambda: ledger.of("start"))
    [child] = [int(line.what.removeprefix("child-")) for line in ledger if line.what.startswith("child-")]
    assert lives(child)

    await forge.jobs.cancel(job.id)

    await eventually(lambda: not lives(child))
    assert worker.returncode is None


async def test_the_echo_of_a_signal_is_not_a_second_one(forge: Forge, workers: Fleet, ledger: Ledger) -> None:
    job = await forge.enqueue("nap", {"seconds": 2})
    worker = await workers.start()
    await eventually(lambda: ledger.of("start"))

    for number in STOPS:
        worker.send_signal(number)
    assert await worker.wait() == 0

    assert (await forge.jobs.get(job.id)).state is State.DONE


async def test_a_second_signal_ends_all_processes_at_once(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    await forge.enqueue_many("stubborn", [{"seconds": 300}] * 2)
    parent = await workers.start("--processes", "2", "--concurrency", "1", "--grace", "300")
    await eventually(lambda: len(ledger.of("start")) == 2)
    everybody = below(parent.pid)

    await eventually(lambda: told_again(parent))

    assert parent.returncode != 0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in everybody)


async def test_a_second_signal_is_heard_while_the_loop_is_blocked(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    await forge.enqueue("block", {"seconds": 300})
    worker = await workers.start()
    await eventually(lambda: ledger.of("start"))

    await eventually(lambda: told_again(worker))

    assert worker.returncode == 128 + signal.SIGTERM


SLOW = """
import pathlib, time
pathlib.Path("{folder}/reached").touch()
time.sleep(300)
"""


@pytest.mark.parametrize("how", ["loop", "process"])
async def test_a_signal_that_a_handler_took_for_itself_stops_the_worker_again(
    forge: Forge, workers: Fleet, how: str
) -> None:
    worker = await workers.start()
    await forge.wait(await forge.enqueue("take_signals", {"how": how}), timeout=30)
    await eventually(lambda: "replaced the worker's handler for SIGTERM" in workers.log())

    worker.terminate()

    assert await worker.wait() == 0


@pytest.mark.parametrize("options", [(), ("--processes", "2")])
async def test_an_echo_that_comes_while_the_process_ends_does_no_harm(
    forge: Forge, workers: Fleet, options: tuple[str, ...]
) -> None:
    worker = await workers.start(*options)
    await eventually(lambda: workers.log().count(" serves ") == (2 if options else 1))

    until = time.monotonic() + stop_signals.ECHO / 2
    while worker.returncode is None and time.monotonic() < until:
        tell_all(worker.pid, signal.SIGTERM)
        await asyncio.sleep(0.001)

    assert await worker.wait() == 0


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("module", ["shop", "msgspec"])  # the user's, and one that is imported before
@pytest.mark.parametrize("options", [(), ("--processes", "2")])
async def test_a_worker_that_still_imports_ends_at_once_and_quietly(
    workers: Fleet, tmp_path: Path, number: signal.Signals, module: str, options: tuple[str, ...]
) -> None:
    (tmp_path / f"{module}.py").write_text(SLOW.format(folder=tmp_path))
    worker = await workers.start(*options, app="shop:forge", PYTHONPATH=str(tmp_path))
    await eventually((tmp_path / "reached").exists)

    worker.send_signal(number)

    assert await worker.wait() == 0
    assert workers.log() == ""


async def test_a_hangup_that_the_worker_was_started_to_ignore_is_ignored(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    worker = await workers.start(before=["nohup"])
    await forge.enqueue("nap", {"seconds": 1})
    await eventually(lambda: ledger.of("start"))

    worker.send_signal(signal.SIGHUP)
    await eventually(lambda: ledger.of("end"))

    after = await forge.enqueue("nap")
    await forge.wait(after.id, timeout=30)
    assert worker.returncode is None


def _has_namespaces() -> bool:
    try:
        return subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _has_namespaces(), reason="process 1 needs a namespace of its own")
async def test_process_1_hears_signals_while_it_imports(workers: Fleet, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SLOW.format(folder=tmp_path))
    namespace = await workers.start(
        app="shop:forge", before=["unshare", "--pid", "--fork", "--kill-child"], PYTHONPATH=str(tmp_path)
    )
    await eventually((tmp_path / "reached").exists)

    [worker] = below(namespace.pid)
    os.kill(worker, signal.SIGTERM)

    assert await namespace.wait() == 0
