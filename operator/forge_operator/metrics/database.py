"""The metrics of the queue of each ForgeQueue, and of each ForgeCron, read from the database.

Workers show metrics of the same names, while there are any. These are read at a scrape and not when the
object is reconciled, since that is seldom for a pool with nothing to do.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from forge_jobs import Counts, CronConfig, ForgeError, QueueConfig, Unhandled
from forge_operator.database.facts import Facts, FactsReader
from forge_operator.plan.scaling.load import held, oldest_age, workable
from forge_operator.state.keys import Key

FRESH = 10.0
"""How old shown numbers may be, in seconds. The ticker reads more often while anything is scaled by load."""

LIVE = timedelta(seconds=30)
"""A worker that has been silent for so long does not count as alive, as among workers."""


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What the database said of one ForgeQueue's queue."""

    pool: str  # <namespace>/<name>
    queue: QueueConfig
    counts: Counts
    workable: Counts  # without pending jobs that nobody handles
    oldest_age: float  # seconds
    live_workers: int  # that may claim
    unhandled: Sequence[Unhandled]


GAUGES: dict[str, tuple[str, Callable[[QueueFacts], float]]] = {
    "pending_jobs": ("Jobs that may be claimed now.", lambda facts: facts.counts.pending),
    "scheduled_jobs": (
        "Jobs that wait for their time, retries included.",
        lambda facts: facts.counts.scheduled,
    ),
    "blocked_jobs": ("Jobs that wait for a place in a group.", lambda facts: facts.counts.blocked),
    "waiting_jobs": (
        "Jobs that wait for a signal, or for the end of another job.",
        lambda facts: facts.counts.waiting,
    ),
    "in_progress_jobs": ("Jobs that workers hold.", lambda facts: facts.counts.in_progress),
    "done_jobs": ("Done jobs that are still kept.", lambda facts: facts.counts.done),
    "dead_jobs": ("Dead jobs that are still kept.", lambda facts: facts.counts.dead),
    "expired_jobs": ("Expired jobs that are still kept.", lambda facts: facts.counts.expired),
    "held_jobs": (
        "Pending jobs that would not start however many workers there were.",
        lambda facts: held(facts.workable, facts.queue, facts.unhandled),
    ),
    "unhandled_jobs": (
        "Pending jobs of kinds for which nobody who serves the queue has a handler.",
        lambda facts: sum(jobs.pending for jobs in facts.unhandled if not jobs.paused),
    ),
    "unhandled_due_jobs": (
        "Scheduled jobs of such kinds whose time has come.",
        lambda facts: sum(jobs.due for jobs in facts.unhandled if not jobs.paused),
    ),
    "oldest_pending_age_seconds": (
        "How long the oldest pending job has been pending; 0 when there is none.",
        lambda facts: facts.oldest_age,
    ),
    "paused": ("Whether the queue is paused.", lambda facts: facts.queue.paused),
    "live_workers": ("Live workers that may claim jobs of the queue.", lambda facts: facts.live_workers),
    "unserved": (
        "Whether jobs are pending that no live worker serves.",
        lambda facts: facts.counts.pending > 0 and not facts.live_workers,
    ),
}


class DatabaseMetrics:
    """Reads these metrics. `known` are the objects that have some, as far as they own their rows."""

    def __init__(
        self,
        facts: FactsReader,
        known: Callable[[], Collection[Key]],
        *,
        may_tell: Callable[[], bool] = lambda: True,
        fresh: float = FRESH,
    ) -> None:
        self._facts, self._known, self._may_tell, self._fresh = facts, known, may_tell, fresh

    async def read(self) -> list[Metric] | None:
        """Return the metrics as of now; None when the database does not answer, or another operator may lead."""
        if not self._may_tell():
            return None
        try:
            facts = await self._facts.read(time.monotonic() - self._fresh)
        except ForgeError:
            return None
        known = {key.owner: f"{key.namespace}/{key.name}" for key in self._known()}
        crons = [cron for cron in facts.crons if cron.managed_by in known]
        return [*queue_gauges(queue_facts(facts, known)), *cron_gauges(crons)]


def queue_facts(facts: Facts, known: dict[str, str]) -> Iterator[QueueFacts]:
    """Yield what is said of every queue whose owner is known; `known` says what its pool is called."""
    counts = {queue_counts.queue: queue_counts for queue_counts in facts.counts}
    live = Counter(
        queue
        for worker in facts.workers
        if worker.serves and worker.was_heard_from(facts.now, LIVE)
        for queue in worker.queues
    )
    for queue in facts.queues:
        if queue.managed_by in known:
            count = counts.get(queue.name, Counts(queue.name))
            age = oldest_age([count], facts.now)
            yield QueueFacts(
                known[queue.managed_by],
                queue,
                count,
                workable(count, facts.unhandled),
                age,
                live[queue.name],
                facts.unhandled.get(queue.name, ()),
            )


def queue_gauges(facts: Iterable[QueueFacts] = ()) -> Iterator[Metric]:
    """Yield the gauges of queues."""
    rows = list(facts)
    for name, (meaning, value) in GAUGES.items():
        family = GaugeMetricFamily(f"forge_queue_{name}", meaning, labels=("pool", "queue"))
        for row in rows:
            family.add_metric((row.pool, row.queue.name), value(row))
        yield family


def cron_gauges(crons: Collection[CronConfig] = ()) -> Iterator[Metric]:
    """Yield the gauges of crons."""
    enabled = GaugeMetricFamily("forge_cron_enabled", "Whether the cron is enabled.", labels=("cron",))
    due = GaugeMetricFamily(
        "forge_cron_next_fire_timestamp_seconds", "When the cron fires next.", labels=("cron",)
    )
    for cron in crons:
        enabled.add_metric((cron.name,), cron.enabled)
        if cron.next_fire_at is not None:
            due.add_metric((cron.name,), cron.next_fire_at.timestamp())
    yield from (enabled, due)
