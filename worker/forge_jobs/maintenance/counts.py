"""The counts of jobs: their notes are summed up, so that counting stays cheap."""

import time

from forge_jobs.storage.interface.jobs import Jobs
from forge_jobs.telemetry.events import CountsFolded
from forge_jobs.telemetry.telemetry import Telemetry

MANY = 100_000
"""How many notes are worth an event: jobs were moved for long while nobody folded."""


async def fold(jobs: Jobs, telemetry: Telemetry) -> None:
    """Make one pass over all notes."""
    began = time.monotonic()
    notes = await jobs.fold()
    if notes >= MANY:
        telemetry.emit(CountsFolded(notes, time.monotonic() - began))
