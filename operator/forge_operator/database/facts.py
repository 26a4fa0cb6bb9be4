"""What the database says about everything at one moment: one round of queries for all objects."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from forge_jobs import Counts, CronConfig, Forge, ForgeError, QueueConfig, RateLimit, Unhandled, WorkerInfo
from forge_jobs.model import PinnedJobs, Version
from forge_operator.database.link import DatabaseLink
from forge_operator.plan.scaling.load import is_handled, workable
from forge_operator.state.observed import DatabaseState


@dataclass(slots=True, kw_only=True)
class Facts:
    """What one round of queries found. Jobs that are due soon are queried when they are needed, and kept."""

    forge: Forge
    started_at: float  # monotonic; nothing in it is older
    now: datetime  # the database's clock
    queues: tuple[QueueConfig, ...]
    limits: tuple[RateLimit, ...]
    counts: tuple[Counts, ...]
    tenant_weights: Mapping[str, Mapping[str, float]]  # of tenants, by queue
    handled: Mapping[str, Set[str]]  # kinds by queue, where they are known
    unhandled: Mapping[str, Sequence[Unhandled]]  # by queue
    paused_kinds: Set[str]
    unpublished: Mapping[str, Sequence[str]]  # options of jobs that only their handlers know, by kind
    crons: tuple[CronConfig, ...]
    versions: Sequence[Version]  # of all pools
    pinned: Sequence[PinnedJobs]  # to versions of all pools, and of none
    workers: Sequence[WorkerInfo]  # of all pools and of none
    connections_left: int | None
    upcoming: dict[timedelta, Mapping[str, tuple[int, datetime]]] = field(default_factory=dict)
    busy_within: dict[timedelta, frozenset[str]] = field(default_factory=dict)
    versions_of: dict[str, list[Version]] = field(init=False, default_factory=dict)  # by pool
    workers_of: dict[str, list[WorkerInfo]] = field(init=False, default_factory=dict)
    crons_by_name: dict[str, CronConfig] = field(init=False)

    def __post_init__(self) -> None:
        self.crons_by_name = {cron.name: cron for cron in self.crons}
        for version in self.versions:
            self.versions_of.setdefault(version.pool, []).append(version)
        for worker in self.workers:
            if worker.pool is not None:
                self.workers_of.setdefault(worker.pool, []).append(worker)

    async def database(self, pool: str | None, within: timedelta | None) -> DatabaseState:
        """Return the facts about one pool. Raises ForgeError."""
        return DatabaseState(
            now=self.now,
            queues=self.queues,
            limits=self.limits,
            counts=self.counts,
            tenant_weights=self.tenant_weights,
            handled=self.handled,
            unhandled=self.unhandled,
            upcoming={} if within is None else await self._upcoming(within),
            crons=self.crons,
            versions=() if pool is None else tuple(self.versions_of.get(pool, ())),
            pinned=tuple(self.pinned),
            workers=() if pool is None else tuple(self.workers_of.get(pool, ())),
            connections_left=self.connections_left,
        )

    async def busy(self, within: timedelta) -> frozenset[str]:
        """Return the queues with jobs that some worker may handle now, or within that time. Raises ForgeError."""
        if within not in self.busy_within:
            counts = [workable(queue_counts, self.unhandled) for queue_counts in self.counts]
            now = {
                queue_counts.queue
                for queue_counts in counts
                if queue_counts.pending or queue_counts.in_progress
            }
            fires = {
                cron.queue
                for cron in self.crons
                # Without a time it is new, or was edited: a worker has to find its first one.
                if cron.enabled and (cron.next_fire_at or self.now) <= self.now + within
                if is_handled(cron, self.handled)
            }
            self.busy_within[within] = frozenset(now | fires | (await self._upcoming(within)).keys())
        return self.busy_within[within]

    async def _upcoming(self, within: timedelta) -> Mapping[str, tuple[int, datetime]]:
        if within not in self.upcoming:
            self.upcoming[within] = await self.forge.jobs.upcoming(within)
        return self.upcoming[within]


def by_queue(unhandled: Iterable[Unhandled]) -> dict[str, list[Unhandled]]:
    """Return the jobs without a handler by their queues."""
    found: dict[str, list[Unhandled]] = {}
    for jobs in unhandled:
        found.setdefault(jobs.queue, []).append(jobs)
    return found


class FactsReader:
    """Reads the facts; concurrent callers share one read, and its error."""

    def __init__(self, link: DatabaseLink) -> None:
        self._link = link
        self._lock = asyncio.Lock()
        self._last: Facts | None = None
        self._error: ForgeError | None = None
        self._failed_at = 0.0  # when the look began

    async def read(self, not_before: float) -> Facts:
        """Return facts none of which is older than `not_before` (monotonic). Raises ForgeError."""
        async with self._lock:
            if self._error is not None and self._failed_at >= not_before:
                raise self._error
            if self._last is None or self._last.started_at < not_before:
                self._last = None
                self._last = await self._look()
            return self._last

    async def _look(self) -> Facts:
        started_at = time.monotonic()
        self._error = None
        try:
            forge = await self._link.forge()
            queues = tuple(await forge.queues.list())
            # After the queues: a pause that ends between is over, and is not begun again.
            now = await forge.storage.now()
            facts = Facts(
                forge=forge,
                started_at=started_at,
                now=now,
                versions=await forge.versions.all(),
                pinned=await forge.versions.pinned(),
                workers=await forge.workers.list(),
                queues=queues,
                limits=tuple(await forge.limits.list()),
                counts=tuple(await forge.jobs.counts()),
                tenant_weights=await forge.tenants.weights(),
                handled=await forge.workers.handled(),
                unhandled=by_queue(await forge.jobs.unhandled()),
                paused_kinds={
                    paused.kind
                    for paused in await forge.kinds.paused()
                    if paused.until is None or now < paused.until
                },
                unpublished={kind.kind: kind.unpublished for kind in await forge.kinds.list()},
                crons=tuple(await forge.crons.list()),
                # After the workers: one that connects in between is set aside once more, never forgotten.
                connections_left=await forge.storage.connections_left(),
            )
        except ForgeError as error:
            self._link.is_up = False
            self._error, self._failed_at = error, started_at
            raise
        self._link.is_up = True
        return facts
