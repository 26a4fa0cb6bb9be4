"""What is kept of the steps of a job."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

MOST_STEPS = 10_000
"""How many steps a job may have."""

MOST_STEPS_AT_CLAIM, MOST_RESULTS_AT_CLAIM = 64, 4096
"""How many steps, and how many bytes of their results, come with the claim of a job; those of one that has more are read when its handler comes to the first."""


class StepSort(StrEnum):
    """What a step is."""

    STEP = "step"  # a function was called
    SLEEP = "sleep"  # the job waits, or has waited
    PATCH = "patch"  # the job came to a change of its handler's code for the first time
    WAIT = "wait"  # the job waits, or has waited, for a signal or the end of another job


class NewStep(msgspec.Struct, frozen=True, gc=False):
    """A step that an attempt has done."""

    number: int
    name: str
    sort: StepSort = StepSort.STEP
    result: bytes | None = None  # encoded with the codec of the job; None: None
    sleep: float | None = None  # seconds from the database's now; None: it is no sleep
    serial: int | None = None  # as in JobStep


@dataclass(frozen=True, slots=True)
class JobStep:
    """A step that a job has done, and does not do again."""

    number: int  # how many steps the handler had come to with this one; of a patch, that of the step after it
    name: str
    sort: StepSort
    attempt: int  # the one that did it
    at: datetime  # when it was done, or a sleep or a wait began
    result: bytes | None  # encoded with `codec`; None: None
    codec: str
    until: datetime | None = (
        None  # when a sleep or a wait ends; None: it is neither, or a wait without a timeout
    )
    is_over: bool = True  # False: it is a sleep or a wait that lasted when this was read
    signals: tuple[str, ...] = ()  # of a wait: any of these ends it
    for_job: int | None = None  # of a wait: the end of this job ends it
    ended_at: datetime | None = None  # of a wait; None: it lasts
    signal: str | None = (
        None  # of a wait: which signal has ended it, or how the job had ended; None: its timeout did
    )
    serial: int | None = None  # its place among those done one after the other; None: it was done beside them
    done_by: int | None = None  # the job that did it, which this one runs again; None: this one
