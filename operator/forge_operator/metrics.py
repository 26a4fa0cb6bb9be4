"""The operator's numbers for Prometheus. docs/kubernetes.md lists every metric."""

import time
from collections.abc import Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """All metrics of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.reconciles = self._counter(
            "forge_operator_reconcile", "Looks at an object, by their result.", "kind", "result"
        )
        self.durations = Histogram(
            "forge_operator_reconcile_duration_seconds",
            "How long a look at an object took, with what was done.",
            ("kind",),
            registry=self.registry,
            buckets=BUCKETS,
        )
        self.actions = self._counter("forge_operator_actions", "Actions that were carried out.", "action")
        self.decisions = self._counter(
            "forge_operator_scale_decisions", "Changes of the number of pods, by their reason.", "reason"
        )
        self.fenced = self._counter(
            "forge_operator_fenced", "Plans that were given up because what they rested on had changed."
        )
        self.resyncs = self._counter(
            "forge_operator_resync", "Looks at all objects at once, by their result.", "result"
        )
        self.loop_lag = self._gauge(
            "forge_operator_event_loop_lag_seconds", "How late the event loop is, at its latest look."
        )
        self.leader = self._gauge("forge_operator_leader", "1 while this process holds the Lease.")
        self.database_up = self._gauge(
            "forge_operator_db_up", "1 while the database answers; of a follower, which does not ask, 0."
        )
        self.queue_depth = self._gauge("forge_operator_queue_depth", "Objects that wait to be looked at.")
        self.queue_oldest = self._gauge(
            "forge_operator_queue_oldest_seconds", "How long the first of them has waited."
        )
        self._event_age = self._gauge(
            "forge_operator_watch_last_event_age_seconds",
            "Time since the API server last told of an object of this kind.",
            "kind",
        )
        self._versions = self._gauge(
            "forge_operator_versions", "Versions of workers, by pool and state.", "pool", "state"
        )
        self._replicas = self._gauge(
            "forge_operator_pool_replicas",
            "Pods that all Deployments of a pool ask for.",
            "pool",
        )
        self._pools: dict[str, set[str]] = {}
        self._heard: dict[str, float] = {}

    def heard(self, kind: str) -> None:
        """The API server told of an object of this kind just now."""
        self._heard[kind] = time.monotonic()

    def pool(self, pool: str, states: Mapping[str, int], replicas: int) -> None:
        """The pool <namespace>/<name> has so many versions in each state, and so many pods are asked for."""
        for gone in self._pools.get(pool, set()) - states.keys():
            self._versions.remove(pool, gone)
        self._pools[pool] = set(states)
        for state, count in states.items():
            self._versions.labels(pool, state).set(count)
        self._replicas.labels(pool).set(replicas)

    def forget_pool(self, pool: str) -> None:
        """Nothing is said of the pool any more."""
        states = self._pools.pop(pool, None)
        if states is not None:
            for state in states:
                self._versions.remove(pool, state)
            self._replicas.remove(pool)

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics as text, and the text's content type."""
        now = time.monotonic()
        for kind, at in self._heard.items():
            self._event_age.labels(kind).set(now - at)
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, registry=self.registry)


def counted(names: Iterable[str]) -> dict[str, int]:
    """Return how often each name is among them."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
