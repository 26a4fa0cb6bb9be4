"""What Prometheus is told of the queue of each ForgeQueue, and of each ForgeCron: what the database says.

Workers tell the same under the same names, while there are any. It is read when somebody
asks, not when the object is looked at: nobody looks often at a pool that is calm.
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
    "pending_jobs": ("Jobs that may be claimed now.", lambda told: told.counts.pending),
    "scheduled_jobs": (
        "Jobs that wait for their time, retries included.",
        lambda told: told.counts.scheduled,
    ),
    "in_progress_jobs": ("Jobs that workers hold.", lambda told: told.counts.in_progress),
    "done_jobs": ("Done jobs that are still kept.", lambda told: told.counts.done),
    "dead_jobs": ("Dead jobs that are still kept.", lambda told: told.counts.dead),
    "held_jobs": (
        "Pending jobs that would not start however many workers there were.",
        lambda told: held(told.workable, told.queue),
    ),
    "unhandled_jobs": (
        "Pending jobs of kinds for which nobody who serves the queue has a handler.",
        lambda told: sum(each.pending for each in told.unhandled),
    ),
    "unhandled_due_jobs": (
        "Scheduled jobs of such kinds whose time has come.",
        lambda told: sum(each.due for each in told.unhandled),
    ),
    "oldest_pending_age_seconds": (
        "How long the oldest pending job has been pending; 0 when there is none.",
        lambda told: told.oldest_age,
    ),
    "paused": ("Whether the queue is paused.", lambda told: told.queue.paused),
    "live_workers": ("Live workers that may claim jobs of the queue.", lambda told: told.live_workers),
    "unserved": (
        "Whether jobs are pending that no live worker serves.",
        lambda told: told.counts.pending > 0 and not told.live_workers,
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
        known = {each.owner: f"{each.namespace}/{each.name}" for each in self._known()}
        crons = [each for each in facts.crons if each.managed_by in known]
        return [*queue_gauges(told(facts, known)), *cron_gauges(crons)]


def told(facts: Facts, known: dict[str, str]) -> Iterator[QueueFacts]:
    """Yield what is said of every queue whose owner is known; `known` says what its pool is called."""
    counts = {each.queue: each for each in facts.counts}
    live = Counter(
        queue
        for each in facts.workers
        if each.serves and each.was_heard_from(facts.now, LIVE)
        for queue in each.queues
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


def queue_gauges(told: Iterable[QueueFacts] = ()) -> Iterator[Metric]:
    """Yield the gauges of queues."""
    rows = list(told)
    for name, (meaning, value) in GAUGES.items():
        family = GaugeMetricFamily(f"forge_queue_{name}", meaning, labels=("pool", "queue"))
        for each in rows:
            family.add_metric((each.pool, each.queue.name), value(each))
        yield family


def cron_gauges(crons: Collection[CronConfig] = ()) -> Iterator[Metric]:
    """Yield the gauges of crons."""
    enabled = GaugeMetricFamily("forge_cron_enabled", "Whether the cron is enabled.", labels=("cron",))
    due = GaugeMetricFamily(
        "forge_cron_next_fire_timestamp_seconds", "When the cron fires next.", labels=("cron",)
    )
    for each in crons:
        enabled.add_metric((each.name,), each.enabled)
        if each.next_fire_at is not None:
            due.add_metric((each.name,), each.next_fire_at.timestamp())
    yield from (enabled, due)
