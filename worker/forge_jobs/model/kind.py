"""What programs declare of a kind of job: the options of its handler, and who answers for it."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind as its row says. None: its handler says nothing, so the queue's or the general default holds."""

    kind: str
    queue: str | None = None
    priority: int | None = None
    max_attempts: int | None = None  # FOREVER: no end
    timeout: timedelta | None = None
    codec: str = "json"
    title: str | None = None  # for people
    owner: str | None = None  # who answers for it
    docs: str | None = None  # a link
    start_by: timedelta | None = None  # from when a job is due
    deadline: timedelta | None = None
    declared_at: datetime | None = None  # when this was written, database clock
    declared_by: str | None = None  # the host and process that wrote it
