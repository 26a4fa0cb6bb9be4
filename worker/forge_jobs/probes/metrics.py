"""Answer Prometheus.

`worker` makes one `Metrics` a process and hands its `scrape` to `server`. What happened in
this process is counted by `counters`; what is true of the queues is read from the database
when somebody asks. docs/metrics.md lists every metric.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from forge_jobs.errors import ForgeError
from forge_jobs.model.cron import CronConfig
from forge_jobs.model.job import Counts
from forge_jobs.model.paused_kind import PausedKind
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.rate_limit import RateLimit
from forge_jobs.model.worker import Leader, WorkerInfo
from forge_jobs.telemetry.counters import Counters
from forge_jobs.telemetry.events import TenantsWaiting
from forge_jobs.telemetry.job_series import job_series
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.storage.interface.storage import Storage

DATABASE_TIMEOUT = 2.0
"""Seconds within which the database has to answer a scrape."""

SNAPSHOT_AGE = 1.0
"""Seconds for which what the database said is used again."""


class Metrics:
    """The numbers of one process. `running` says how many handlers run now, and `slots_in_use` how many slots they have.

    A worker counts as live when it was heard from within `stale`. Without a `storage` only what happened in
    this process is reported.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        storage: "Storage | None" = None,
        *,
        running: Callable[[], int] = lambda: 0,
        slots_in_use: Callable[[], int] = lambda: 0,
        stale: timedelta = timedelta(seconds=30),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = Counters(job_series(telemetry))
        self._storage, self._stale, self._clock = storage, stale, clock
        self._running, self._slots_in_use = running, slots_in_use
        self._snapshot: _Snapshot | None = None
        self._snapshot_at = -SNAPSHOT_AGE
        self._asking = asyncio.Lock()
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        self.close = telemetry.subscribe(self._counters)
        """Nothing is counted any more."""

    async def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """Return all metrics and their content type, in the format that the Accept header asks for.

        When the database does not answer in time, `forge_database_up` is 0 and the metrics that need it are
        left out.
        """
        snapshot = await self._current_snapshot()
        # Collected on the loop, so that no batch is seen half; written in a thread, since
        # a thousand series take long enough for heartbeats and handlers to feel it.
        families = list(self._collect(snapshot))
        encode, content_type = choose_encoder(accept)
        return await asyncio.to_thread(encode, _Collected(families)), content_type

    async def _current_snapshot(self) -> "_Snapshot | None":
        if self._storage is None:
            return None
        async with self._asking:
            if self._clock() - self._snapshot_at >= SNAPSHOT_AGE:
                self._snapshot = await _ask(self._storage)
                self._snapshot_at = self._clock()
            return self._snapshot

    def _collect(self, snapshot: "_Snapshot | None") -> Iterator[Metric]:
        yield InfoMetricFamily(
            "forge_build", "The release of forge-jobs.", {"version": version("forge-jobs")}
        )
        yield from self._counters.collect()
        running, capacity = self._running(), sum(self._counters.capacities.values())
        yield _gauge("forge_worker_running_jobs", "Handlers that run in this process.", value=running)
        yield _gauge(
            "forge_worker_slots_in_use",
            "Slots that the running handlers of this process have, or that are kept for one that needs several.",
            value=self._slots_in_use(),
        )
        yield _gauge(
            "forge_worker_capacity", "How many handlers may run at once in this process.", value=capacity
        )
        yield _gauge(
            "forge_worker_stuck_handlers",
            "Handlers that go on in this process although they were told to stop.",
            value=self._counters.stuck,
        )
        yield _gauge("forge_leader", "Whether this process leads.", value=self._counters.leads)
        yield from _tenants(list(self._counters.tenants.values()))
        yield _gauge(
            "forge_rate_limit_waiting_jobs",
            "Jobs that wait for tokens of its keys; of a process that leads.",
            "scope",
            self._counters.awaited,
        )
        if self._storage is not None:
            up = snapshot is not None
            yield _gauge("forge_database_up", "Whether the database answered this scrape in time.", value=up)
        if snapshot is not None:
            yield from _queues(snapshot, self._stale)
            yield from _cluster(snapshot, self._stale)
        yield from self._process.collect()


class _Collected(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What the database said."""

    now: datetime
    counts: list[Counts]
    queues: list[QueueConfig]
    workers: list[WorkerInfo]
    limits: list[RateLimit]
    crons: list[CronConfig]
    leader: Leader | None
    paused_kinds: list[PausedKind]
    paused_groups: Collection[str]

    def live_workers(self, stale: timedelta) -> list[WorkerInfo]:
        return [worker for worker in self.workers if worker.was_heard_from(self.now, stale)]


async def _ask(storage: "Storage") -> _Snapshot | None:
    """Return what the database says, None when it does not answer in time or has no usable schema."""
    try:
        async with asyncio.timeout(DATABASE_TIMEOUT):
            # One after the other: a scrape must not take all connections from the jobs.
            return _Snapshot(
                now=await storage.now(),
                counts=await storage.jobs.counts(),
                queues=await storage.queues.all(),
                workers=await storage.workers.all(),
                limits=await storage.limits.all(),
                crons=await storage.crons.all(),
                leader=await storage.leadership.get(),
                paused_kinds=await storage.kinds.paused(),
                paused_groups=await storage.groups.paused(),
            )
    except (ForgeError, TimeoutError):
        return None


def _queues(snapshot: _Snapshot, stale: timedelta) -> Iterator[Metric]:
    """Yield the gauges with one value a queue."""
    counts, configs = snapshot.counts, snapshot.queues
    serving = [queue for worker in snapshot.live_workers(stale) if worker.serves for queue in worker.queues]
    ages = {count.queue: _age(snapshot.now, count.oldest_pending_at) for count in counts}
    unserved = {count.queue: count.pending > 0 and count.queue not in serving for count in counts}
    limited = {queue.name: queue.concurrency for queue in configs if queue.concurrency is not None}
    cooling = {queue.name: _age(queue.cooldown_until, snapshot.now) > 0 for queue in configs}

    def gauge(name: str, meaning: str, values: Mapping[str, float]) -> Metric:
        return _gauge(f"forge_queue_{name}", meaning, "queue", values)

    yield gauge(
        "pending_jobs", "Jobs that may be claimed now.", {count.queue: count.pending for count in counts}
    )
    yield gauge(
        "scheduled_jobs",
        "Jobs that wait for their time, retries included.",
        {count.queue: count.scheduled for count in counts},
    )
    yield gauge(
        "blocked_jobs",
        "Jobs that wait for a place in a group.",
        {count.queue: count.blocked for count in counts},
    )
    yield gauge(
        "waiting_jobs",
        "Jobs that wait for a signal, or for the end of another job.",
        {count.queue: count.waiting for count in counts},
    )
    yield gauge(
        "in_progress_jobs", "Jobs that workers hold.", {count.queue: count.in_progress for count in counts}
    )
    yield gauge("done_jobs", "Done jobs that are still kept.", {count.queue: count.done for count in counts})
    yield gauge("dead_jobs", "Dead jobs that are still kept.", {count.queue: count.dead for count in counts})
    yield gauge(
        "expired_jobs", "Expired jobs that are still kept.", {count.queue: count.expired for count in counts}
    )
    yield gauge(
        "oldest_pending_age_seconds",
        "How long the oldest pending job has been pending; 0 when there is none.",
        ages,
    )
    yield gauge(
        "concurrency",
        "How many jobs may be in progress at once over all workers; absent without a limit.",
        limited,
    )
    yield gauge("paused", "Whether the queue is paused.", {queue.name: queue.paused for queue in configs})
    yield gauge("cooling_down", "Whether the queue cools down after a throttled job.", cooling)
    yield gauge(
        "live_workers",
        "Live workers that may claim jobs of the queue.",
        {queue.name: serving.count(queue.name) for queue in configs},
    )
    yield gauge("unserved", "Whether jobs are pending that no live worker serves.", unserved)


def _tenants(waiting: Sequence[TenantsWaiting]) -> Iterator[Metric]:
    """Yield the gauges of how tenants wait, which the process has that leads; never one a tenant."""
    for name, meaning, values in (
        (
            "forge_queue_waiting_tenants",
            "Tenants of which jobs wait for their turns; of a process that leads.",
            {one.queue: one.tenants for one in waiting},
        ),
        (
            "forge_queue_largest_tenant_jobs",
            "About how many jobs wait of the tenant that has most; of a process that leads.",
            {one.queue: one.largest for one in waiting},
        ),
        (
            "forge_queue_other_tenants_wait_seconds",
            "How long the first job of a tenant has waited: the longest time, of all tenants but the one that has most "
            "jobs; of a process that leads.",
            {one.queue: one.others_wait for one in waiting},
        ),
    ):
        yield _gauge(name, meaning, "queue", values)


def _cluster(snapshot: _Snapshot, stale: timedelta) -> Iterator[Metric]:
    """Yield the gauges of everything else that the database knows."""
    limits, crons = snapshot.limits, snapshot.crons
    fired = {cron.name: cron.last_fire_at.timestamp() for cron in crons if cron.last_fire_at is not None}
    planned = {cron.name: cron.next_fire_at.timestamp() for cron in crons if cron.next_fire_at is not None}
    yield _gauge("forge_workers", "Live workers.", value=len(snapshot.live_workers(stale)))
    yield _gauge(
        "forge_workers_unwell",
        "Live workers that report that something keeps them from their work.",
        value=sum(worker.ailment is not None for worker in snapshot.live_workers(stale)),
    )
    yield _gauge(
        "forge_kind_paused",
        "Whether the kind is paused; a kind that is not paused is absent.",
        "kind",
        {paused.kind: 1 for paused in snapshot.paused_kinds},
    )
    yield _gauge(
        "forge_group_paused",
        "Whether the group is paused; a group that is not paused is absent.",
        "group",
        dict.fromkeys(snapshot.paused_groups, 1),
    )
    yield _gauge("forge_leader_present", "Whether any worker leads.", value=snapshot.leader is not None)
    yield _gauge(
        "forge_rate_limit_tokens",
        "Tokens in the bucket.",
        "scope",
        {limit.scope: limit.tokens for limit in limits},
    )
    yield _gauge(
        "forge_rate_limit_capacity",
        "The most tokens that the bucket holds.",
        "scope",
        {limit.scope: limit.capacity for limit in limits},
    )
    yield _gauge(
        "forge_cron_enabled",
        "Whether the cron is enabled.",
        "cron",
        {cron.name: cron.enabled for cron in crons},
    )
    yield _gauge("forge_cron_last_fire_timestamp_seconds", "When the cron last fired.", "cron", fired)
    yield _gauge("forge_cron_next_fire_timestamp_seconds", "When the cron fires next.", "cron", planned)


def _age(later: datetime | None, earlier: datetime | None) -> float:
    if later is None or earlier is None:
        return 0.0
    return max((later - earlier).total_seconds(), 0.0)


def _gauge(
    name: str,
    meaning: str,
    label: str | None = None,
    values: Mapping[str, float] | None = None,
    *,
    value: float | None = None,
) -> Metric:
    if label is None:
        return GaugeMetricFamily(name, meaning, value=value)
    family = GaugeMetricFamily(name, meaning, labels=(label,))
    for of, number in (values or {}).items():
        family.add_metric((of,), number)
    return family
