"""What is sent to a job, and what a wait for it comes to."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

MOST_SIGNALS = 1_000
"""How many signals a job may be sent, those that were taken included."""

MOST_KEPT = 4 * 1024 * 1024
"""How large the values of the signals that no wait of a job has taken may be together, in bytes."""

GONE = "gone"
"""How a job had ended for whose end another one waits, when it is not there."""

CIRCLE = "circle"
"""What has ended a wait for the end of a job that waits for the end of this one: neither would ever end."""

MOST_NAMES = 20
"""How many signals one wait may be for."""

LARGEST_VALUE = 256 * 1024
"""How large the value of a signal may be, in bytes."""


class SignalMode(StrEnum):
    """What becomes of a signal when the job was sent one of that name before."""

    FIRST = "first"  # nothing: the first one counts
    APPEND = "append"  # it is kept for a further wait


class Signalled(StrEnum):
    """What became of a signal that was sent to a job."""

    WOKEN = "woken"  # the job waited for it, and goes on
    KEPT = "kept"  # the job has it when it comes to a wait for it
    DUPLICATE = "duplicate"  # nothing was sent: the job was sent one of this name before
    USED = "used"  # nothing was sent: the callback token was used before
    REPLACED = "replaced"  # nothing was sent: another job took the place of this one since the callback token was made
    FULL = "full"  # nothing was sent: the job has as many signals as it may, or values of them
    ENDED = "ended"  # nothing was sent: the job has ended
    UNKNOWN = "unknown"  # nothing was sent: there is no such job, or no living one has the key


TAKEN = frozenset({Signalled.WOKEN, Signalled.KEPT})
"""The answers by which the job has the signal."""


class NewSignal(msgspec.Struct, frozen=True, gc=False):
    """A signal to be sent."""

    name: str
    value: bytes | None = None  # encoded with `codec`; None: None
    codec: str = "json"
    mode: SignalMode = SignalMode.FIRST
    token: str | None = None  # the callback token by which it is sent; a job takes only one signal by each
    of_replaced: int | None = None  # how many times the job had been replaced when the token was made


class Recipient(msgspec.Struct, frozen=True, gc=False):
    """To which job a signal is sent: the one with this id, or the living one of the kind with this key; or to the living ones with the tag."""

    job_id: int | None = None
    kind: str | None = None  # of the key; of the jobs with the tag, None: any
    key: str | None = None
    tag: str | None = None
    after: int = 0  # of the jobs with the tag, those whose ids are above this
    most: int | None = None  # so many of them; None: all


class NewWait(msgspec.Struct, frozen=True, gc=False):
    """A step in which an attempt waits."""

    number: int
    name: str
    signals: tuple[str, ...] = ()  # any of these ends it
    for_job: int | None = None  # the end of this job does
    timeout: float | None = None  # seconds from the database's now; None: no end
    serial: int | None = None  # as in JobStep


@dataclass(frozen=True, slots=True)
class Callback:
    """What may be sent by a callback token: this signal to this job, once for each `use`, unless another job takes its place."""

    job_id: int
    signal: str
    use: str
    expires_at: datetime
    of_replaced: int = 0  # how many times the job had been replaced when the token was made


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What a database says to whoever makes or reads a callback token."""

    now: datetime
    origin: str  # which database it is
    replaced: int = 0  # how many times the job was replaced


@dataclass(frozen=True, slots=True)
class JobSignal:
    """A signal that a job was sent."""

    name: str
    at: datetime
    step: str | None  # the wait that has taken it; None: it is kept


@dataclass(frozen=True, slots=True)
class KeptSignal:
    """A signal that a job was sent, and that no wait of it has taken yet."""

    name: str
    at: datetime
    value: bytes | None  # encoded with `codec`; None: None
    codec: str
