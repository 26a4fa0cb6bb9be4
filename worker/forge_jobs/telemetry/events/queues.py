"""Events of queues, kinds, groups and rate limits."""

from collections.abc import Sequence
from dataclasses import dataclass

from forge_jobs.telemetry.events.event import Event


@dataclass(frozen=True, slots=True)
class QueueMade(Event):
    """A worker is to serve a queue that did not exist and that no handler names; it exists now."""

    queue: str


@dataclass(frozen=True, slots=True)
class QueueResembles(Event):
    """A queue was made as in QueueMade, but its name is so close to another queue's that it may be misspelt."""

    queue: str
    nearest: str


@dataclass(frozen=True, slots=True)
class QueueUnserved(Event):
    """Jobs are pending in a queue that no live worker serves."""

    queue: str
    pending: int


@dataclass(frozen=True, slots=True)
class QueueCooled(Event):
    """Nothing is claimed from the queue for `seconds`, since a job was throttled."""

    queue: str
    seconds: float


@dataclass(frozen=True, slots=True)
class QueuesResumed(Event):
    """The time until which these queues were paused has come, so they are claimed from again."""

    queues: Sequence[str]


@dataclass(frozen=True, slots=True)
class KindsResumed(Event):
    """The time until which these kinds were paused has come, so their jobs are begun again."""

    kinds: Sequence[str]


@dataclass(frozen=True, slots=True)
class GroupsResumed(Event):
    """The time until which these groups were paused has come, so they give their places away again."""

    groups: Sequence[str]


@dataclass(frozen=True, slots=True)
class KindsUnpublished(Event):
    """What handlers declare could not be written, so it does not hold for jobs that others enqueue by name."""

    kinds: Sequence[str]
    error: str


@dataclass(frozen=True, slots=True)
class TenantsWaiting(Event):
    """The leader looked how the tenants of a queue wait; see `WaitingTenants`. None does when `tenants` is 0."""

    queue: str
    tenants: int
    largest: int
    others_wait: float  # seconds


@dataclass(frozen=True, slots=True)
class UnknownLimit(Event):
    """A queue needs tokens of a rate limit that does not exist, so nothing of it is claimed."""

    queue: str
    scope: str


@dataclass(frozen=True, slots=True)
class TokensLeased(Event):
    """This process leased tokens of a rate limit; when there were none, it asks again after `retry_after` seconds."""

    scope: str
    tokens: int
    retry_after: float


@dataclass(frozen=True, slots=True)
class TokensAwaited(Event):
    """The leader looked how many jobs wait for tokens of the keys of a rate limit."""

    scope: str
    jobs: int


@dataclass(frozen=True, slots=True)
class LimitEmptied(Event):
    """A rate limit was emptied: tokens that were leased before are void."""

    scope: str
