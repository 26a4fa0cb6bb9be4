"""The live line of a demonstration: how far the queue is, and how fast."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from forge_jobs.demo.screen import Screen
from forge_jobs.demo.watch import DemoWatch
from forge_jobs.model.run import Outcome
from forge_jobs.system.terminal import status

Show = Callable[[DemoWatch], None]

BAR = 20  # characters


@contextmanager
def progress(jobs: int, screen: Screen) -> Iterator[Show]:
    """Show a bar inside the block; call what is given for every change."""
    if not screen.is_live:
        yield lambda watch: None
        return
    began, rate, line = time.monotonic(), 0.0, ""
    with status(sys.stdout, "Beginning …") as say:

        def show(watch: DemoWatch) -> None:
            nonlocal rate, line
            done = watch.ended.total()
            elapsed = time.monotonic() - began
            if elapsed and done <= jobs:  # afterwards only the cron's jobs come in
                rate = done / elapsed
            line = _line(watch, min(done, jobs), jobs, rate)
            say(line)

        yield show
    screen.show(line)


def _line(watch: DemoWatch, done: int, jobs: int, rate: float) -> str:
    filled = BAR * done // jobs if jobs else BAR
    retried, dead = watch.outcomes[Outcome.FAILED], watch.outcomes[Outcome.DEAD]
    return (
        f"{'━' * filled}{'╌' * (BAR - filled)} {done}/{jobs} jobs {rate:,.0f}/s "
        f"{retried} retried, {dead} dead, cron fired {watch.cron_fires} times"
    )
