"""What is configured about a queue: one row, tuned live."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

DEFAULT_QUEUE = "default"


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """A queue as its row says. A change reaches running workers within two seconds."""

    EDITABLE: ClassVar = frozenset(
        {
            "concurrency",
            "paused",
            "paused_until",
            "pause_reason",
            "backoff_enabled",
            "backoff_base",
            "backoff_max",
            "max_attempts",
            "done_retention",
            "dead_retention",
            "timeout",
            "rate_limit",
            "group_limit",
            "age_after",
        }
    )
    """The fields that `queues.set` may change."""

    PAUSE: ClassVar = frozenset({"paused", "paused_until", "pause_reason"})
    """Those of them that say a pause."""

    name: str
    id: int = 0  # given by the database
    concurrency: int | None = None  # jobs in progress over the whole cluster; None: no limit
    paused: bool = False
    paused_until: datetime | None = None  # None: until it is resumed
    pause_reason: str | None = None  # in the words of whoever paused it
    backoff_enabled: bool = True
    backoff_base: timedelta = timedelta(seconds=10)
    backoff_max: timedelta = timedelta(seconds=1800)
    max_attempts: int = 5  # for jobs that set none; FOREVER (0): no end
    done_retention: timedelta = timedelta(days=7)  # zero: forgotten at once
    dead_retention: timedelta = timedelta(days=30)
    timeout: timedelta | None = None  # of an attempt, for jobs that set none; None: no limit
    rate_limit: str | None = None  # scope: each start takes a token of it; None: starts are not limited
    group_limit: int | None = None  # of groups of its jobs whose limit nobody has said; None: 1
    age_after: timedelta | None = None  # each time a job has been pending so long, it rises by 1; None: never
    managed_by: str | None = None  # its owner, which alone may change it; None: anybody may
    cooldown_until: datetime | None = None  # state, not configuration: set by Throttled
    throttles: int = 0  # throttles in a row

    def is_paused(self, now: datetime) -> bool:
        """Whether it is paused at this moment: a pause that is over stands there until the leader of the workers ends it."""
        return self.paused and (self.paused_until is None or now < self.paused_until)
