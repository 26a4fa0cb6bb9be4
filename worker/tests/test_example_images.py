"""The example images.py: processes draw, a Ctrl-C ends it, and the next call goes on where it was."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from forge_jobs import Forge

EXAMPLE = Path(__file__).parents[2] / "examples" / "images.py"


def begun(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(EXAMPLE), str(folder), "2"],
        env={name: value for name, value in os.environ.items() if not name.startswith("FORGE_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_pictures_are_drawn_although_somebody_stops_it_in_the_middle(tmp_path: Path) -> None:
    first = begun(tmp_path)
    assert first.stdout is not None
    while "row" not in (line := first.stdout.readline()):
        assert line, first.communicate()[1]
    first.send_signal(signal.SIGINT)
    said, errors = first.communicate(timeout=60)

    assert (first.returncode, "Traceback" in errors) == (130, False), errors
    assert said.endswith("Stopped. The same command goes on where it was.\n")

    second = begun(tmp_path)
    said, errors = second.communicate(timeout=60)
    assert (second.returncode, "Traceback" in errors) == (0, False), errors
    assert said.splitlines()[-1] == str(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    async with Forge(f"sqlite:///{tmp_path}/jobs.sqlite") as forge:
        [flow] = await forge.flows.list()
        jobs = await forge.jobs.list(limit=100)
        assert (flow.nodes, flow.done) == (5, 5)
        assert [(job.state, job.attempt) for job in jobs] == [
            ("done", 1)
        ] * 5  # what was handed back does not count
