"""Jobs as rows for COPY in PostgreSQL: what goes to `job`, `ready`, `scheduled` and `time_limit`.

The server has more to do with a row than we have, so whatever can be made while it works
(rows, answers) is made in the generators that COPY reads.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, chain, repeat
from operator import add, attrgetter
from typing import Any

from forge_jobs.model.job import Enqueued, NewJob, Reason
from forge_jobs.model.moments import EPOCH, MICROSECOND
from forge_jobs.model.queue import DEFAULT_QUEUE
from forge_jobs.storage.postgres import time_limits
from forge_jobs.storage.postgres.tenants import TurnTaker

CHUNK = 2_000
"""How many jobs are made into rows at a time: few enough that other tasks of the event loop get their turn."""

JOB_COLUMNS = (
    "id",
    "queue_id",
    "priority",
    "max_attempts",
    "timeout",
    "kind",
    "codec",
    "key",
    "created_at",
    "payload",
    "links",
    "groups",
    "tags",
    "rerun_of",
    "tenant",
    "meta",
)
READY_COLUMNS = ("job_id", "pos", "queue_id", "attempt", "priority")
SCHEDULED_COLUMNS = ("job_id", "run_at", "queue_id", "attempt", "priority", "reason", "links")
LIMIT_COLUMNS = ("job_id", "start_by", "deadline", "look_at")

_kinds = attrgetter("kind")
_codecs = attrgetter("codec")
_payloads = attrgetter("payload")
_tags = attrgetter("tags")
_reruns = attrgetter("rerun_of")
_metas = attrgetter("meta")


@dataclass(frozen=True, slots=True)
class TargetQueue:
    """What is to be known of a queue to which jobs go."""

    id: int
    max_attempts: int


class CopiedJobs:
    """Jobs that are copied together; after `copy` it is known whom to tell of them.

    With `turns_later` those of tenants are scheduled for now, and whoever makes them pending gives them their turns.
    """

    def __init__(
        self,
        jobs: Sequence[NewJob],
        ids: Sequence[int],
        now: datetime,
        queues: Mapping[str, TargetQueue],
        *,
        turns_later: bool,
    ) -> None:
        self.now = now
        self._turns_later = turns_later
        self.answers: list[Enqueued] = []
        self.chunks: list[_Chunk] = []
        self._jobs = jobs
        self._ids = ids
        self._queues = queues

    async def copy(self, schema: str, connection: Any) -> None:
        """The jobs are in `job`, and in `ready` or `scheduled`."""
        patience = (
            30 + len(self._jobs) / 1000
        )  # seconds; the connection's own bound is too short for millions of jobs
        for table, columns, rows in (
            ("job", JOB_COLUMNS, self._job_rows()),
            ("ready", READY_COLUMNS, self._ready_rows()),
            ("scheduled", SCHEDULED_COLUMNS, self._scheduled_rows()),
            ("time_limit", LIMIT_COLUMNS, self._limit_rows()),
        ):
            if table in ("job", "ready") or any(
                chunk.later if table == "scheduled" else chunk.are_linked for chunk in self.chunks
            ):
                await connection.copy_records_to_table(
                    table, schema_name=schema, columns=columns, records=rows, timeout=patience
                )

    @property
    def without_turns(self) -> list[TurnTaker]:
        """Those that are neither ready nor scheduled, since they have yet to take turns."""
        return [taker for chunk in self.chunks for taker in chunk.takers()]

    def _job_rows(self) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(chunk.job_rows() for chunk in self._made())

    def _ready_rows(self) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(chunk.ready_rows() for chunk in self._answered())

    def _scheduled_rows(self) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(chunk.scheduled_rows() for chunk in self.chunks)

    def _limit_rows(self) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(chunk.limit_rows() for chunk in self.chunks)

    def _made(self) -> Iterator["_Chunk"]:
        for start in range(0, len(self._jobs), CHUNK):
            part = slice(start, start + CHUNK)
            first = self.now + start * MICROSECOND
            chunk = _Chunk(
                self._jobs[part],
                self._ids[part],
                self.now,
                first,
                self._queues,
                turns_later=self._turns_later,
            )
            self.chunks.append(chunk)
            yield chunk

    def _answered(self) -> Iterator["_Chunk"]:
        for chunk in self.chunks:
            self.answers += [Enqueued(job_id) for job_id in chunk.ids]
            yield chunk


class _Chunk:
    """Some of the jobs, with the ids and the places that they get."""

    def __init__(
        self,
        jobs: Sequence[NewJob],
        ids: Sequence[int],
        now: datetime,
        first: datetime,
        queues: Mapping[str, TargetQueue],
        *,
        turns_later: bool,
    ) -> None:
        self.jobs = jobs
        self.ids = ids
        self.now = now
        self.are_linked = any([job.links is not None for job in jobs])
        self.first = first  # created_at of the first job; of each further one it is a microsecond later
        self.priorities = [job.priority or 0 for job in jobs]
        into = [queues[job.queue or DEFAULT_QUEUE] for job in jobs]
        self.queue_ids = [queue.id for queue in into]
        self.max_attempts = [
            queue.max_attempts if job.max_attempts is None else job.max_attempts
            for job, queue in zip(jobs, into, strict=True)
        ]
        # A job with groups joins them when it is due, also when that is now: no row of a group is locked meanwhile. So
        # does a job of a tenant with `turns_later`; else it takes its turn when all jobs are there.
        self.later: dict[int, datetime] = {}
        self.turns: list[int] = []
        for number, job in enumerate(jobs):
            if job.run_at is None and job.delay is None and job.groups is None and job.tenant is None:
                continue
            due = _due(job, now)
            if due > now or job.groups is not None or (turns_later and job.tenant is not None):
                self.later[number] = due
            elif job.tenant is not None:
                self.turns.append(number)

    def job_rows(self) -> Iterator[tuple[Any, ...]]:
        # zip over maps makes a row without a step of the interpreter.
        jobs = self.jobs
        return zip(
            self.ids,
            self.queue_ids,
            self.priorities,
            self.max_attempts,
            [_seconds(job.timeout) for job in jobs],
            map(_kinds, jobs),
            map(_codecs, jobs),
            [job.key for job in jobs],
            accumulate(repeat(MICROSECOND, len(jobs) - 1), add, initial=self.first),
            map(_payloads, jobs),
            [job.links for job in jobs] if self.are_linked else repeat(None, len(jobs)),
            [job.groups for job in jobs],
            [job.tags or None for job in jobs] if any(map(_tags, jobs)) else repeat(None, len(jobs)),
            [job.rerun_of for job in jobs] if any(map(_reruns, jobs)) else repeat(None, len(jobs)),
            [job.tenant for job in jobs] if self.are_linked else repeat(None, len(jobs)),
            [job.meta for job in jobs] if any(map(_metas, jobs)) else repeat(None, len(jobs)),
            strict=True,
        )

    def ready_rows(self) -> Iterator[tuple[Any, ...]]:
        first = (self.first - EPOCH) // MICROSECOND
        places = range(first, first + len(self.jobs))
        rows = zip(self.ids, places, self.queue_ids, repeat(0), self.priorities, strict=False)
        if not self.later and not self.turns:
            return rows
        others = self.later.keys() | set(self.turns)
        return (row for number, row in enumerate(rows) if number not in others)

    def takers(self) -> Iterator[TurnTaker]:
        since = (self.first - EPOCH) // MICROSECOND
        for number in self.turns:
            job = self.jobs[number]
            place = self.ids[number], self.queue_ids[number], self.priorities[number]
            yield *place, job.tenant, since + number, job.kind

    def scheduled_rows(self) -> Iterator[tuple[Any, ...]]:
        for number, due in self.later.items():
            place = (self.queue_ids[number], 0, self.priorities[number])
            yield self.ids[number], due, *place, Reason.DELAYED.value, self.jobs[number].links

    def limit_rows(self) -> Iterator[tuple[Any, ...]]:
        for job_id, job in zip(self.ids, self.jobs, strict=True):
            if job.is_limited:
                yield time_limits.row(job_id, job, max(_due(job, self.now), self.now))


def _due(job: NewJob, now: datetime) -> datetime:
    return now + (job.delay or timedelta(0)) if job.run_at is None else job.run_at


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
