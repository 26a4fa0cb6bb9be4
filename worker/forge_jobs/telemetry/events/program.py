"""Events of any program that holds a Forge: what it enqueues, what it closes, and what listens to it."""

from collections.abc import Sequence
from dataclasses import dataclass

from forge_jobs.model.job import Claim
from forge_jobs.telemetry.events.event import Event


@dataclass(frozen=True, slots=True)
class CloseWaits(Event):
    """A function that the program gave to `at_close` has run for `seconds` already; closing the forge waits for it."""

    function: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CloseGivenUp(Event):
    """A function that the program gave to `at_close` had not ended after `seconds`: it is cancelled and not waited for any more."""

    function: str
    seconds: float


@dataclass(frozen=True, slots=True)
class HookFailed(Event):
    """A method of a plugin raised what it does not let through from a job: `hook` names both. The attempt of the job
    has failed, or the enqueue, or the forge is not open; at its end all others are called.
    """

    hook: str
    error: BaseException
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class HookWaits(Event):
    """A method of a plugin, or a factory of what is provided, has gone on for `seconds`; the job of the claim waits for it."""

    hook: str
    seconds: float
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class KindUnheardOf(Event):
    """A job of this kind was enqueued by name, and nobody who is known has a handler for it. Said once by a Forge."""

    kind: str


@dataclass(frozen=True, slots=True)
class KindResembles(Event):
    """As KindUnheardOf, and there is a kind of a similar name that was perhaps meant."""

    kind: str
    nearest: str


@dataclass(frozen=True, slots=True)
class OptionsLeftOut(Event):
    """A job of this kind was enqueued by name, without what its handler, which another program has, says of these options. Said
    once by a Forge.
    """

    kind: str
    options: Sequence[str]


@dataclass(frozen=True, slots=True)
class SubscriberFailed(Event):
    """A subscriber raised at an event; all other subscribers got the event."""

    subscriber: str
    heard: str  # the event
    error: BaseException
