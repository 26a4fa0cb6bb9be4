"""What the parent of several worker processes bears, and what its children keep to themselves."""

import asyncio
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from forge_jobs import Forge
from forge_jobs.worker import processes
from forge_jobs.worker.processes import ASKING_PIPE, PARENT_PIPE, TURN_PIPE, run_processes
from tests.working.processes import Fleet


def python(text: str) -> Sequence[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


async def test_what_a_handler_starts_is_no_child_of_the_workers_parent(forge: Forge, workers: Fleet) -> None:
    parent = await workers.start("--max-jobs", "1000")

    told = await forge.wait(await forge.enqueue("told_to_a_program"), timeout=60)

    assert told == {"pipes": [], "variables": []}
    parent.terminate()
    assert await parent.wait() == 0


async def test_a_process_whose_variables_name_no_open_descriptor_has_no_parent() -> None:
    asked = python(
        """
        from forge_jobs.worker.processes import READY, has_parent, tell_parent
        print(has_parent(), tell_parent(READY))
        """
    )
    environment = {**os.environ, PARENT_PIPE: "987", ASKING_PIPE: "988"}
    process = await asyncio.create_subprocess_exec(*asked, env=environment, stdout=asyncio.subprocess.PIPE)

    said, _ = await process.communicate()

    assert said == b"False False\n"


async def test_a_parent_bears_what_is_no_word_of_its_children(tmp_path: Path) -> None:
    child = python(
        f"""
        import os, pathlib
        if not os.path.exists("{tmp_path}/was here"):
            pathlib.Path("{tmp_path}/was here").touch()
            said = b"what is this\\n\\n7\\nx y\\n\\xff \\xff\\n%d worn so it is\\n" % os.getpid()
            os.write(int(os.environ["{ASKING_PIPE}"]), said)
            os.read(int(os.environ["{TURN_PIPE}"]), 1)
        """
    )
    said = list[str]()

    async with asyncio.timeout(30):
        assert await run_processes([child], say=said.append) == 0

    assert said == ["Worker process 0 is replaced: so it is."]


async def test_a_process_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    program, said = tmp_path / "program", list[str]()

    def say(line: str) -> None:
        said.append(line)
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(0o700)

    async with asyncio.timeout(30):
        code = await run_processes([[str(program)], python("pass")], say=say)

    assert code == 0
    assert said == [
        f"Worker process 0 cannot be started: No such file or directory; it is tried again in {processes.FIRST_WAIT:g} s."
    ]
