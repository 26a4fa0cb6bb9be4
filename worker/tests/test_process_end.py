"""The end of a worker's process, when something goes on, and when the process has other work."""

import subprocess
import sys

PROGRAM = """
import asyncio, threading, time
from forge_jobs.system.process_end import end_within

async def work():
    end_within(0.2, 3, print)
    {inside}

asyncio.run(work())
{after}
"""


def ended(inside: str = "pass", after: str = "") -> "subprocess.CompletedProcess[str]":
    program = PROGRAM.format(inside=inside, after=after)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_program_that_goes_on_after_its_worker_is_not_ended() -> None:
    waits_for_the_ending = """
(ending,) = [each for each in threading.enumerate() if each.name == "forge-jobs-ending"]
ending.join()
print("goes on")
"""
    done = ended(after=waits_for_the_ending)

    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr


def test_a_thread_that_is_left_behind_keeps_no_process() -> None:
    done = ended(inside="threading.Thread(target=threading.Event().wait, name='forgotten').start()")

    assert done.returncode == 3
    assert "thread forgotten" in done.stdout


def test_a_loop_that_cannot_be_closed_keeps_no_process() -> None:
    done = ended(inside="asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)")

    assert done.returncode == 3
