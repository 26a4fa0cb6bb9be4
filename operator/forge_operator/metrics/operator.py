"""The operator's numbers for Prometheus. docs/kubernetes-operator.md lists every metric."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from forge_operator.metrics.database import cron_gauges, queue_gauges
from forge_operator.metrics.decisions import decision_gauges
from forge_operator.plan.scaling.decide import ScalingDecision

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

PATIENCE = 2.0
"""Seconds that a scrape waits for the database."""

RENEWED = 180.0
"""Seconds for which a decision is shown that was not made again; it is made at least once a minute."""


class OperatorMetrics:
    """All metrics of one process, in a registry of its own.

    `database` returns the metrics that are read from the database, or None when it does not answer; then
    they are left out. It is set while the process leads.
    """

    def __init__(self, *, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        self.database: Callable[[], Awaitable[Sequence[Metric] | None]] = nothing_known
        self._patience, self._clock = patience, clock
        self._decisions: dict[str, tuple[ScalingDecision, float]] = {}  # by pool, with the time
        self._families = DatabaseFamilies([*queue_gauges(), *cron_gauges(), *decision_gauges({})])
        self.registry.register(self._families)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.reconciles = self._counter(
            "forge_operator_reconcile", "Reconciliations of an object, by result.", "kind", "result"
        )
        self.durations = Histogram(
            "forge_operator_reconcile_duration_seconds",
            "How long a reconciliation took, with its actions.",
            ("kind",),
            registry=self.registry,
            buckets=BUCKETS,
        )
        self.actions = self._counter("forge_operator_actions", "Actions that were carried out.", "action")
        self.decisions = self._counter(
            "forge_operator_scale_decisions", "Changes of the number of pods, by reason.", "reason"
        )
        self.fenced = self._counter(
            "forge_operator_fenced",
            "Plans that were abandoned because the state that they were made from had changed.",
        )
        self.resyncs = self._counter("forge_operator_resync", "Listings of all objects, by result.", "result")
        self.loop_lag = self._gauge(
            "forge_operator_event_loop_lag_seconds", "How late the event loop was when it was last measured."
        )
        self.leader = self._gauge("forge_operator_leader", "1 while this process holds the Lease.")
        self.database_up = self._gauge(
            "forge_operator_db_up",
            "1 while the database answers; always 0 on a follower, which does not ask it.",
        )
        self.queue_depth = self._gauge("forge_operator_queue_depth", "Objects that wait to be reconciled.")
        self.queue_oldest = self._gauge(
            "forge_operator_queue_oldest_seconds", "How long the object that waits longest has waited."
        )
        self._event_age = self._gauge(
            "forge_operator_watch_last_event_age_seconds",
            "Time since the API server last reported an object of this kind.",
            "kind",
        )
        self.unheard = self._gauge(
            "forge_operator_unheard_objects",
            "Objects whose change the API server had not reported when all objects were last listed.",
        )
        self.lagging = self._gauge(
            "forge_operator_lagging_objects",
            "Objects whose status was older than their spec when all objects were last listed.",
            "kind",
        )
        self._versions = self._gauge(
            "forge_operator_versions", "Versions of workers, by pool and state.", "pool", "state"
        )
        self._replicas = self._gauge(
            "forge_operator_pool_replicas",
            "Pods that the Deployments of a pool request.",
            "pool",
        )
        self._ready = self._gauge(
            "forge_operator_pool_ready_replicas", "Pods of a pool that are ready, of all versions.", "pool"
        )
        self._pools: dict[str, set[str]] = {}
        self._heard: dict[str, float] = {}

    def heard(self, kind: str) -> None:
        """The API server told of an object of this kind just now."""
        self._heard[kind] = time.monotonic()

    def pool(self, pool: str, states: Mapping[str, int], replicas: int, ready: int) -> None:
        """The pool <namespace>/<name> has this many versions in each state, and this many pods requested
        and ready.
        """
        for gone in self._pools.get(pool, set()) - states.keys():
            self._versions.remove(pool, gone)
        self._pools[pool] = set(states)
        for state, count in states.items():
            self._versions.labels(pool, state).set(count)
        self._replicas.labels(pool).set(replicas)
        self._ready.labels(pool).set(ready)

    def decided(self, pool: str, decision: ScalingDecision | None) -> None:
        """The metrics show this decision for the pool; None: they show none for it."""
        self._decisions.pop(pool, None)
        if decision is not None:
            self._decisions[pool] = decision, self._clock()

    def forget_pool(self, pool: str) -> None:
        """The pool has no metrics any more."""
        self._decisions.pop(pool, None)
        states = self._pools.pop(pool, None)
        if states is not None:
            for state in states:
                self._versions.remove(pool, state)
            self._replicas.remove(pool)
            self._ready.remove(pool)

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics as text, and the text's content type."""
        families = await self._asked()
        self._families.families = [] if families is None else [*families, *decision_gauges(self._renewed())]
        now = time.monotonic()
        for kind, at in self._heard.items():
            self._event_age.labels(kind).set(now - at)
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    async def _asked(self) -> Sequence[Metric] | None:
        try:
            async with asyncio.timeout(self._patience):
                # Others wait for the same look: it goes on though this scrape does not wait for it.
                return await asyncio.shield(self.database())
        except TimeoutError:
            return None

    def _renewed(self) -> dict[str, ScalingDecision]:
        since = self._clock() - RENEWED
        return {pool: decision for pool, (decision, at) in self._decisions.items() if at >= since}

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, registry=self.registry)


class DatabaseFamilies(Collector):
    """Families of metrics that are read anew for each scrape."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterator[Metric]:
        """Yield them."""
        yield from self.families


async def nothing_known() -> None:
    """Return that nothing is known of the database, as on a follower."""


def counted(names: Iterable[str]) -> dict[str, int]:
    """Return how often each name is among them."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
