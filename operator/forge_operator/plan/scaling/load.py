"""The load of a pool's queues: how many jobs wait, arrive and run, and how long a job takes.

Rates come from differences between looks, so no query counts what has ended. Estimates
follow quickly upwards and slowly downwards: too many pods for a minute cost less than too few.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from forge_jobs import Counts, CronConfig, QueueConfig, Unhandled, WorkerInfo
from forge_operator.specs import AutoscalingSpec
from forge_operator.state.memory import ScalerMemory, Tally
from forge_operator.state.observed import DatabaseState

HALF_LIFE_UP, HALF_LIFE_DOWN = 30.0, 120.0
"""Seconds after which an estimate of arrivals has gone half the way to a larger, or smaller, rate."""

ENOUGH_SAMPLES = 20
"""Finished jobs before the measured time of a job counts alone; until then it is blended with 1 s."""

POD_START = timedelta(seconds=30)
"""How long before a job is due the last pod is no longer taken away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The numbers that a decision is made from."""

    at: float  # when it was measured, seconds since 1970 on the operator's clock
    backlog: int = 0  # pending jobs that slots would start
    held: int = (
        0  # pending jobs that no slot could start: queue or kind is paused, or at the concurrency limit
    )
    oldest_age: float = 0.0  # seconds that the oldest of the backlog has waited
    in_progress: int = 0
    arrival: float = 0.0  # jobs a second
    service: float = 1.0  # seconds a job
    ready: int = 0  # ready pods of open versions
    due_soon: int = 0  # jobs due within the time to warm up
    due_later: bool = False  # whether a job is due before a pod that went could be back
    concurrency: int | None = None  # jobs at once that all queues together allow
    rate_limit: float | None = None  # starts a second
    connections_left: int | None = None  # for more pods
    is_stuck: bool = False  # pods have not been placed or started for a minute


def lookahead(autoscaling: AutoscalingSpec) -> timedelta:
    """Return how far `DatabaseState.upcoming` should look."""
    return autoscaling.prewarm + POD_START


def measure(
    database: DatabaseState,
    served: Sequence[str],
    autoscaling: AutoscalingSpec,
    memory: ScalerMemory,
    now: float,
) -> tuple[Load, ScalerMemory]:
    """Return the load of the queues `served`, and the estimates to go on from."""
    counts = [
        without_pinned(workable(queue_counts, database.unhandled), database)
        for queue_counts in database.counts
        if queue_counts.queue in served
    ]
    # A pause whose time is over counts for nothing: without pods nobody leads who would end it.
    queues = {
        queue.name: replace(queue, paused=queue.is_paused(database.now))
        for queue in database.queues
        if queue.name in served
    }
    pending, in_progress = (
        sum(queue_counts.pending for queue_counts in counts),
        sum(queue_counts.in_progress for queue_counts in counts),
    )
    memory = followed(memory, pending, in_progress, database.workers, now)
    target = autoscaling.target_latency.total_seconds()
    service = expected_service(memory, in_progress)
    startable = {
        queue_counts.queue: startable_backlog(queue_counts, queues.get(queue_counts.queue), target, service)
        for queue_counts in counts
    }
    soon, later = due(database, served, autoscaling)
    return Load(
        at=now,
        backlog=sum(startable.values()),
        held=sum(
            held(queue_counts, queues.get(queue_counts.queue), database.unhandled.get(queue_counts.queue, ()))
            for queue_counts in counts
        ),
        oldest_age=oldest_age(
            (queue_counts for queue_counts in counts if startable[queue_counts.queue]), database.now
        ),
        in_progress=in_progress,
        arrival=memory.arrival,
        service=service,
        due_soon=soon,
        due_later=later,
        concurrency=concurrency(queues.values()),
    ), memory


def workable(counts: Counts, unhandled: Mapping[str, Sequence[Unhandled]]) -> Counts:
    """Return the counts without the pending jobs that no worker could run, however many there were."""
    in_vain = sum(jobs.pending for jobs in unhandled.get(counts.queue, ()))
    if not in_vain:
        return counts
    # Whether the oldest is one of those is not known, and its age alone must not raise the number of pods.
    return replace(counts, pending=max(0, counts.pending - in_vain), oldest_pending_at=None)


def without_pinned(counts: Counts, database: DatabaseState) -> Counts:
    """Return the counts without the pending jobs that only a version which is not open may go on with: more pods of others do not help them."""
    are_open = {(version.pool, version.id) for version in database.versions if version.is_open}
    elsewhere = sum(
        jobs.ready
        for jobs in database.pinned
        if jobs.queue == counts.queue and (jobs.pool, jobs.version_id) not in are_open
    )
    if not elsewhere:
        return counts
    return replace(counts, pending=max(0, counts.pending - elsewhere), oldest_pending_at=None)


def followed(
    memory: ScalerMemory, pending: int, in_progress: int, workers: Sequence[WorkerInfo], now: float
) -> ScalerMemory:
    """Return the estimates after one more look.

    Jobs that arrived are those that finished, and those by which the number inside grew.
    A look that comes early weighs little: an estimate is an integral over time.
    """
    tallies = {worker.id: Tally(worker.succeeded + worker.failed, worker.run_seconds) for worker in workers}
    inside = pending + in_progress
    seen = replace(memory, at=now, inside=inside, tallies=tallies)
    if memory.at is None or now <= memory.at:
        return seen
    passed = now - memory.at
    finished, run_seconds = finished_since(memory.tallies, tallies)
    rate = (finished + inside - memory.inside) / passed
    half_life = HALF_LIFE_UP if rate > memory.arrival else HALF_LIFE_DOWN
    arrival = max(0.0, memory.arrival + (rate - memory.arrival) * weight(passed, half_life))
    return with_service(replace(seen, arrival=arrival), finished, run_seconds, in_progress * passed)


def with_service(memory: ScalerMemory, finished: int, run_seconds: float, busy: float) -> ScalerMemory:
    """Return the memory with what was learnt about the time of a job since the look before."""
    if memory.samples < ENOUGH_SAMPLES:
        memory = replace(memory, busy_seconds=memory.busy_seconds + busy)
    if not finished:
        return memory
    samples = memory.samples + finished
    if memory.samples < ENOUGH_SAMPLES:
        share = finished / max(ENOUGH_SAMPLES, samples)
    else:
        share = finished / (finished + ENOUGH_SAMPLES * 2)
    service = memory.service + (run_seconds / finished - memory.service) * share
    return replace(memory, service=service, samples=samples)


def expected_service(memory: ScalerMemory, in_progress: int) -> float:
    """Return how long a job takes: at first no less than those that run have taken already.

    Jobs of ten minutes would otherwise pass for jobs of a second for ten minutes.
    """
    started = memory.samples + in_progress
    if memory.samples >= ENOUGH_SAMPLES or not started:
        return memory.service
    return max(memory.service, memory.busy_seconds / started)


def finished_since(before: Mapping[int, Tally], after: Mapping[int, Tally]) -> tuple[int, float]:
    """Return how many jobs workers finished between two looks, and for how long those ran in all."""
    nothing = Tally(0, 0.0)
    finished = sum(max(0, tally.finished - before.get(id_, nothing).finished) for id_, tally in after.items())
    seconds = sum(
        max(0.0, tally.run_seconds - before.get(id_, nothing).run_seconds) for id_, tally in after.items()
    )
    return finished, seconds


def weight(passed: float, half_life: float) -> float:
    """Return how far an estimate goes towards what was measured over `passed` seconds."""
    return float(1 - 0.5 ** (passed / half_life))


def startable_backlog(counts: Counts, queue: QueueConfig | None, target: float, service: float) -> int:
    """Return how many pending jobs count: none of a paused queue, and of one with a limit what that lets through in time."""
    if queue is None or (queue.concurrency is None and not queue.paused):
        return counts.pending
    if queue.paused or not queue.concurrency:
        return 0
    return min(counts.pending, int(queue.concurrency * max(1.0, target / max(service, 0.001))))


def held(counts: Counts, queue: QueueConfig | None, unhandled: Iterable[Unhandled] = ()) -> int:
    """Return how many pending jobs would not start now with any number of pods.

    `counts` are without the `unhandled` ones, of which those of a paused kind are held.
    """
    paused = sum(jobs.pending for jobs in unhandled if jobs.paused)
    if queue is None:
        return paused
    if queue.paused:
        return paused + counts.pending
    if queue.concurrency is None:
        return paused
    return paused + max(0, counts.pending - max(0, queue.concurrency - counts.in_progress))


def oldest_age(counts: Iterable[Counts], now: datetime) -> float:
    """Return for how many seconds the oldest pending job waits; 0 when none does."""
    since = [
        queue_counts.oldest_pending_at
        for queue_counts in counts
        if queue_counts.oldest_pending_at is not None
    ]
    return max(0.0, (now - min(since)).total_seconds()) if since else 0.0


def due(database: DatabaseState, served: Sequence[str], autoscaling: AutoscalingSpec) -> tuple[int, bool]:
    """Return how many jobs are due within the time to warm up, and whether any is before a pod could be back."""
    firsts = [(count, first) for queue, (count, first) in database.upcoming.items() if queue in served]
    crons = [cron for cron in database.crons if cron.queue in served and is_handled(cron, database.handled)]
    firsts += [(1, at) for at in next_fires(crons, database.now)]
    warm, later = database.now + autoscaling.prewarm, database.now + lookahead(autoscaling)
    # Workers make what is due claimable, and fire crons: overdue, it waits for a pod, prewarmed or not.
    soon = sum(count if autoscaling.prewarm else 1 for count, first in firsts if first <= warm)
    return soon, any(first <= later for _, first in firsts)


def is_handled(cron: CronConfig, handled: Mapping[str, Set[str]]) -> bool:
    """Whether a worker of the cron's queue may have a handler for its jobs."""
    return cron.kind in handled.get(cron.queue, {cron.kind})


def next_fires(crons: Iterable[CronConfig], now: datetime) -> list[datetime]:
    """Return when the crons need a worker next: at once while none has found their first time."""
    return [cron.next_fire_at or now for cron in crons if cron.enabled]


def concurrency(queues: Iterable[QueueConfig]) -> int | None:
    """Return how many jobs the queues together allow at once; None when one of them has no limit."""
    limits = [queue.concurrency for queue in queues if not queue.paused]
    if not limits or None in limits:
        return None
    return sum(limit for limit in limits if limit is not None)
