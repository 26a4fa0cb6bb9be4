"""Warm programs, with real processes: they stay while they keep to the protocol, and are replaced when they do not."""

import asyncio
import os
import sys
import textwrap
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Forge, Job, State, builtin
from forge_jobs.builtin.warm import WarmProcess
from forge_jobs.errors import InvalidInput
from tests.builtin.family import lives
from tests.working.eventually import eventually
from tests.working.running import working

PROGRAM = textwrap.dedent("""
    import json, os, sys, time
    for line in sys.stdin:
        job = json.loads(line)
        say = job["payload"].get("say", {"status": "ok", "result": {"pid": os.getpid()}})
        if isinstance(say, str):
            if say == "crash":
                os._exit(7)
            if say == "sleep":
                time.sleep(600)
            if say == "twice":
                answer = json.dumps({"id": job["id"], "status": "ok", "result": {"pid": os.getpid()}})
                print(answer + "\\n" + answer, flush=True)
                continue
            if say == "late":
                print(json.dumps({"id": job["id"], "status": "ok", "result": {"pid": os.getpid()}}), flush=True)
                print("part of a line", end="", flush=True)
                continue
            if say == "name":
                say = {"status": "ok", "result": [job["kind"], job["attempt"], "FORGE_SECRET" in os.environ]}
            else:
                print(say, flush=True)
                continue
        print(json.dumps({"id": job["id"], **say}), flush=True)
""")


@pytest.fixture
async def forge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Forge]:
    monkeypatch.setenv("FORGE_SECRET", "hidden")
    forge = Forge(f"sqlite:///{tmp_path}/queue.sqlite")
    builtin.register_program(forge, "warm", [sys.executable, "-c", PROGRAM], timeout=20, max_attempts=1)
    builtin.register_program(forge, "slow", [sys.executable, "-c", PROGRAM], timeout=0.5, max_attempts=1)
    builtin.register_program(forge, "gone", ["/nowhere/at/all"], max_attempts=1)
    async with forge, working(forge, "default", heartbeat=timedelta(seconds=0.2)):
        yield forge


async def pid(forge: Forge) -> int:
    """Return the process that does the next job."""
    result = await forge.wait(await forge.enqueue("warm"), timeout=30)
    return int(result["pid"])


async def ended(forge: Forge, kind: str, **payload: Any) -> Job:
    job = await forge.enqueue(kind, payload)

    async def end() -> Job | None:
        found = await forge.jobs.get(job)
        return found if found.state in (State.DONE, State.DEAD) else None

    return await eventually(end, within=30)


async def test_a_process_stays_for_the_next_job(forge: Forge) -> None:
    assert await pid(forge) == await pid(forge) != os.getpid()


async def test_a_process_is_told_the_job_and_not_the_settings(forge: Forge) -> None:
    job = await forge.enqueue("warm", {"say": "name"})

    assert await forge.wait(job, timeout=30) == ["warm", 1, False]


async def test_an_error_fails_the_attempt_and_the_process_stays(forge: Forge) -> None:
    before = await pid(forge)

    job = await ended(forge, "warm", say={"status": "error", "message": "no such picture"})

    assert (job.state, job.error) == (State.DEAD, "no such picture")
    assert await pid(forge) == before


async def test_a_throttled_job_waits_as_long_as_the_process_says(forge: Forge) -> None:
    job = await forge.enqueue("warm", {"say": {"status": "throttled", "retry_after_secs": 3600}})

    async def waits() -> bool:
        found = await forge.jobs.get(job)
        return found.state is State.SCHEDULED and found.reason == "throttled" and found.attempt == 0

    await eventually(waits, within=30)


@pytest.mark.parametrize(
    ("say", "error"),
    [
        ("crash", "its process ended with 7 before it answered"),
        ("what?", "its process wrote what is no answer: what?"),
        ('{"id": 1000000, "status": "ok"}', "its process answered for job 1000000"),
        (
            {"status": "maybe"},
            "its process answered with the status 'maybe', allowed is ok, error, throttled or dead",
        ),
    ],
)
async def test_a_process_that_does_not_keep_to_the_protocol_is_replaced(
    forge: Forge, say: Any, error: str
) -> None:
    before = await pid(forge)

    job = await ended(forge, "warm", say=say)

    assert (job.state, job.error) == (State.DEAD, error)
    assert not lives(before)
    assert await pid(forge) != before


@pytest.mark.parametrize("say", ["twice", "late"])
async def test_what_a_process_writes_after_its_answer_costs_the_next_job_no_attempt(
    forge: Forge, say: str
) -> None:
    first = await forge.wait(await forge.enqueue("warm", {"say": say}), timeout=30)

    assert await pid(forge) != first["pid"]


async def test_a_process_for_which_there_is_only_one_pipe_leaves_none_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipes = list[tuple[int, int]]()

    def pipe() -> tuple[int, int]:
        if pipes:
            raise OSError(24, "Too many open files")
        pipes.append(real())
        return pipes[0]

    real = os.pipe
    monkeypatch.setattr(os, "pipe", pipe)
    with pytest.raises(OSError, match="Too many open files"):
        WarmProcess(["cat"], {}, None)

    for end in pipes[0]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(end)


async def test_a_process_that_takes_too_long_is_killed(forge: Forge) -> None:
    job = await ended(forge, "slow", say="sleep")

    assert job.error == "timeout after 0.5 s"


async def test_a_program_that_cannot_be_started_fails_the_attempt(forge: Forge) -> None:
    assert (await ended(forge, "gone")).error == "spawn '/nowhere/at/all': No such file or directory"


async def test_a_process_dies_with_its_cancelled_job(forge: Forge) -> None:
    before = await pid(forge)
    job = await forge.enqueue("warm", {"say": "sleep"})

    async def runs() -> bool:
        return (await forge.jobs.get(job)).state is State.IN_PROGRESS

    await eventually(runs)
    await asyncio.sleep(0.2)  # so that the process has it
    await forge.jobs.cancel(job)

    await eventually(lambda: not lives(before), within=30)
    assert await pid(forge) != before


async def test_a_process_that_died_while_it_had_nothing_to_do_costs_no_attempt(forge: Forge) -> None:
    before = await pid(forge)
    os.kill(before, 9)
    await eventually(lambda: not lives(before))

    assert await pid(forge) != before


async def test_no_process_is_left_when_the_forge_is_closed(tmp_path: Path) -> None:
    forge = Forge(f"sqlite:///{tmp_path}/other.sqlite")
    builtin.register_program(forge, "warm", [sys.executable, "-c", PROGRAM], processes=2)
    async with forge, working(forge, "default"):
        process = await pid(forge)

    await eventually(lambda: not lives(process))


def test_a_program_goes_on_in_another_event_loop(tmp_path: Path) -> None:
    forge = Forge(f"sqlite:///{tmp_path}/other.sqlite")
    builtin.register_program(forge, "warm", [sys.executable, "-c", PROGRAM], max_attempts=1)

    async def pids() -> int:
        async with forge, working(forge, "default"):
            jobs = [await forge.enqueue("warm") for _ in range(4)]  # more at once than it has processes
            return len(await forge.wait_all(jobs, timeout=30))

    assert [asyncio.run(pids()) for _ in range(2)] == [4, 4]


@pytest.mark.parametrize(
    "wrong", [{"argv": "ls"}, {"argv": []}, {"processes": 0}, {"processes": True}, {"timeout": -1}]
)
def test_wrong_use_is_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="allowed is"):
        builtin.WarmProgram(**{"argv": ["cat"], **wrong})
