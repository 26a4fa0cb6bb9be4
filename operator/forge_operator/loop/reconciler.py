"""One look at one object: gather, plan, carry out. The plan follows from what is true, not from what has happened."""

import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from forge_jobs.model import VersionState
from forge_operator.cluster.api import Object
from forge_operator.cluster.events import Subject
from forge_operator.loop.executor import Execution, Executor
from forge_operator.loop.gatherer import Gatherer
from forge_operator.loop.halt import OutOfDate
from forge_operator.loop.rivals import Rivals, subject_of
from forge_operator.metrics.operator import OperatorMetrics, counted
from forge_operator.plan.actions import EnsureQueues, ForgetPool, Scale, SetQueue, WriteStatus
from forge_operator.plan.cron import plan_cron
from forge_operator.plan.plan import Part, Plan, Strand
from forge_operator.plan.queue import plan, plan_gone
from forge_operator.plan.scaling.load import lookahead
from forge_operator.specs import InvalidSpec, QueueSpec
from forge_operator.state.keys import CRON, QUEUE, Key
from forge_operator.state.memory import Memory
from forge_operator.state.observed import Cluster, CronDatabase, DatabaseState, Observed, Unknown

logger = logging.getLogger("forge_operator")

SOON = timedelta(seconds=1)
"""When to look again after an action found that its plan was out of date."""

SELF_TIMED = timedelta(seconds=5)
"""Looks at a pool that is scaled by load which come sooner than this are not left to the ticker."""

RESYNCED = timedelta(seconds=60)
"""Nor are those which come no sooner than the next look at everything."""

FRESH = 4.0
"""Seconds that what was read for another object may be old, unless this one was written or changed since."""

MANY = 5
"""While so many objects are looked at or wait for it, everything is read at once instead of for each of them."""

CALM = frozenset({VersionState.CURRENT, VersionState.DRAINED, VersionState.RETIRED, VersionState.FAILED})
"""States of versions in which nothing happens within seconds."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """A pool that is scaled by load, as far as the ticker needs it."""

    queues: frozenset[str]
    within: timedelta  # a job that is due so soon counts
    is_asleep: bool  # it has no pods that may claim, nor waits for any


@dataclass(slots=True)
class Remembered:
    """What the reconciler keeps of an object between two looks."""

    uid: str = ""
    memory: Memory = field(default_factory=Memory)
    changed_at: float = 0.0  # monotonic; what was read before that is too old
    served: tuple[str, ...] = ()  # queues of an autoscaled pool
    within: timedelta = timedelta(0)  # how far ahead jobs are looked for that will be due
    lacks_queue: bool = False  # a cron whose queue is not in the database
    is_calm: bool = False  # no version is on its way
    is_asleep: bool = False  # an autoscaled pool of which no pod may claim


class Reconciler:
    """Reconciles objects. Remembers nothing that would be missed.

    `add` gets the keys of objects that are to be looked at again; `busy` returns how many are looked at or wait for it.
    """

    def __init__(
        self,
        gatherer: Gatherer,
        executor: Executor,
        metrics: OperatorMetrics,
        rivals: Rivals,
        *,
        add: Callable[[Key], None] = lambda key: None,
        busy: Callable[[], int] = lambda: 1,
        fresh: float = FRESH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gatherer, self._executor, self._metrics, self._rivals = gatherer, executor, metrics, rivals
        self._add, self._busy, self._fresh, self._clock = add, busy, fresh, clock
        self._kept: dict[Key, Remembered] = {}
        self.departed: set[str] = set()
        """Uids of objects that were looked at and are gone; their versions are perhaps not forgotten yet."""

    def touch(self, key: Key) -> None:
        """Something about the object has changed: what was read before counts as out of date."""
        self._kept.setdefault(key, Remembered()).changed_at = self._clock()

    def known(self) -> Collection[Key]:
        """Return the objects that were looked at."""
        return self._kept.keys()

    def scaled(self) -> dict[Key, Scaled]:
        """Return the pools that are scaled by load."""
        return {
            key: Scaled(frozenset(kept.served), kept.within, kept.is_asleep)
            for key, kept in self._kept.items()
            if kept.served
        }

    def asleep(self) -> dict[Key, Scaled]:
        """Return the scaled pools without pods that may claim."""
        return {key: pool for key, pool in self.scaled().items() if pool.is_asleep}

    async def forget(self, pools: Iterable[str]) -> None:
        """The versions of deleted pools are gone, once they have no worker. Raises ForgeError, NotLeading."""
        for pool in pools:
            strand = Strand(Part.ROLLOUT, (ForgetPool(pool),), pool)
            done = await self._executor.carry_out(Subject("", QUEUE, "", "", ""), [strand], Memory())
            for failure in done.failed:
                logger.warning(
                    "The versions of the deleted pool %s could not be removed from the database: %s",
                    pool,
                    failure.message,
                )
            if not done.failed:
                self.departed.discard(pool)

    async def look(self, key: Key) -> timedelta | None:
        """The object is a step nearer to its spec; return when to look again.

        Raises KubeError, ForgeError, NotLeading.
        """
        started = time.perf_counter()
        result = "error"
        try:
            done, again = await self._looked(key)
            result = "failed" if done.failed else "ok" if done.stopped_by is None else "stopped"
            return again
        finally:
            self._metrics.reconciles.labels(key.kind, result).inc()
            self._metrics.durations.labels(key.kind).observe(time.perf_counter() - started)

    async def _looked(self, key: Key) -> tuple[Execution, timedelta | None]:
        kept = self._kept.setdefault(key, Remembered())
        if self._busy() >= MANY:  # what was read for all of them may get old while they wait
            await self._gatherer.refresh(self._fresh)
        not_before = max(kept.changed_at, self._clock() - self._fresh)
        found = await self._gatherer.object(key, not_before)
        if found is None:
            return await self._gone(key)
        try:
            ours = await self._rivals.ours(key, found)
        except OutOfDate as error:
            self.touch(key)
            return Execution(kept.memory, stopped_by=str(error)), SOON
        if ours is None:
            return self._let_be(key), None  # the next look at everything asks again
        if ours is not found:
            found, kept.changed_at = ours, self._clock()
        if kept.uid != found["metadata"]["uid"]:  # deleted and made again: another object
            self._leave(kept.uid)
            kept.uid, kept.memory = found["metadata"]["uid"], Memory()
        planned = await self._planned(key, kept, found, not_before)
        kept.memory = planned.memory
        try:
            done = await self._executor.carry_out(subject_of(key, found), planned.strands, planned.memory)
        finally:
            if planned.actions:
                kept.changed_at = self._clock()
        kept.memory = done.memory
        self._count(done)
        if any(isinstance(action, SetQueue | EnsureQueues) for action in done.actions):
            self._wake_crons()
        if done.stopped_by is not None:
            logger.info("%s: %s", key.owner, done.stopped_by)
            return done, SOON
        return done, self._sooner(key, done, self._pace(kept, planned))

    def _sooner(self, key: Key, done: Execution, again: timedelta | None) -> timedelta | None:
        """Return when to look again, which is no later than what failed is tried again."""
        for failure in done.failed:
            logger.warning(
                "%s: %s; next try at %s", key.owner, failure.message, f"{failure.again_at:%H:%M:%S} UTC"
            )
        now = datetime.now(UTC)
        tries = [max(SOON, failed.again_at - now) for failed in done.memory.failures.values()]
        return min(tries if again is None else [*tries, again], default=None)

    async def _planned(self, key: Key, kept: Remembered, found: Object, not_before: float) -> Plan:
        if key.kind == CRON:
            cron = await self._gatherer.cron(found, kept.memory, not_before)
            kept.lacks_queue = isinstance(cron.database, CronDatabase) and not cron.database.queue_exists
            return plan_cron(cron)
        observed = await self._gatherer.queue(found, kept.memory, not_before)
        self._notice(key, kept, observed)
        planned = plan(observed)
        self._gatherer.note(observed, planned.actions)
        self._metrics.decided(f"{key.namespace}/{key.name}", planned.decision)
        return planned

    def _let_be(self, key: Key) -> Execution:
        """The object is another operator's: nothing of it is known here."""
        kept = self._kept.pop(key)
        self._gatherer.forget(kept.uid)
        self._metrics.forget_pool(f"{key.namespace}/{key.name}")
        return Execution(Memory())

    async def _gone(self, key: Key) -> tuple[Execution, timedelta | None]:
        """The object is not there, as the API server says: nothing in the database is its own any more."""
        database = await self._gatherer.everything(self._clock())
        planned = plan_gone(key.owner, database, database.crons)
        subject = Subject("", key.kind, key.namespace, key.name, "")
        kept = self._kept[key]
        memory = replace(planned.memory, failures=kept.memory.failures)
        done = await self._executor.carry_out(subject, planned.strands, memory)
        self._count(done)
        kept.memory = done.memory
        if done.stopped_by is not None:
            return done, SOON
        if done.memory.failures:
            return done, self._sooner(key, done, None)
        del self._kept[key]
        self._leave(kept.uid)
        self._rivals.forget(key)
        self._metrics.forget_pool(f"{key.namespace}/{key.name}")
        return done, None

    def _leave(self, uid: str) -> None:
        """The object of this uid is gone; none was looked at when there is no uid."""
        self._gatherer.forget(uid)
        if uid:
            self.departed.add(uid)

    def _wake_crons(self) -> None:
        for key, kept in self._kept.items():
            if kept.lacks_queue:
                self.touch(key)
                self._add(key)

    def _pace(self, kept: Remembered, planned: Plan) -> timedelta | None:
        """Return when to look again; None where the ticker sees to it, with one round of queries for all."""
        is_calm = kept.is_calm and not planned.memory.cordoned_since
        is_ticked = bool(kept.served) and is_calm and planned.again >= SELF_TIMED
        return None if is_ticked or planned.again >= RESYNCED else planned.again

    def _notice(self, key: Key, kept: Remembered, observed: Observed) -> None:
        """Keep what the ticker needs to know, and update the metrics of the pool."""
        cluster, database = observed.cluster, observed.database
        if isinstance(cluster, Cluster):
            spec = observed.queue.spec
            kept.served, kept.within = _scaled_queues(observed.queue.name, spec)
            kept.is_asleep = bool(kept.served) and not _claims(cluster, database)
        if isinstance(cluster, Cluster) and isinstance(database, DatabaseState):
            kept.is_calm = all(version.state in CALM for version in database.versions)
            states = counted(str(version.state) for version in database.versions)
            replicas = sum(deployment.replicas for deployment in cluster.deployments)
            ready = sum(deployment.ready for deployment in cluster.deployments)
            self._metrics.pool(f"{key.namespace}/{key.name}", states, replicas, ready)

    def _count(self, done: Execution) -> None:
        for action in done.actions:
            self._metrics.actions.labels(type(action).__name__).inc()
            if isinstance(action, Scale):
                self._metrics.decisions.labels(action.reason.partition(":")[0][:40]).inc()
                logger.info("%s is scaled to %d pods: %s", action.name, action.replicas, action.reason)
            elif not isinstance(action, WriteStatus):
                logger.debug("Done: %s", action)
        if done.stopped_by is not None:
            self._metrics.fenced.inc()


def _claims(cluster: Cluster, database: DatabaseState | Unknown) -> bool:
    """Whether a Deployment requests pods that may claim, as far as is known.

    Pods that are being deleted may run for minutes and finish their jobs; so do those of a draining
    version. Neither claims a job that is enqueued now.
    """
    closed: set[str] = set()
    if isinstance(database, DatabaseState):
        closed = {version.id for version in database.versions if not version.is_open}
    return any(
        deployment.replicas > 0 for deployment in cluster.deployments if deployment.version_id not in closed
    )


def _scaled_queues(name: str, spec: QueueSpec | InvalidSpec) -> tuple[tuple[str, ...], timedelta]:
    if isinstance(spec, InvalidSpec) or spec.workers is None or spec.workers.autoscaling is None:
        return (), timedelta(0)
    served = tuple(dict.fromkeys((spec.queue_name or name, *spec.workers.queues)))
    return served, lookahead(spec.workers.autoscaling)
