"""Reads everything that a plan is made from, for one object. What cannot be read is Unknown, never empty."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from forge_jobs import ForgeError
from forge_operator.cluster.api import Object
from forge_operator.cluster.objects import cron_object, queue_object
from forge_operator.cluster.reader import ClusterReader
from forge_operator.database.facts import FactsReader
from forge_operator.database.link import unknown
from forge_operator.naming import cron_name
from forge_operator.plan.actions import Action
from forge_operator.plan.budget import Orders, ordered
from forge_operator.plan.scaling.load import lookahead
from forge_operator.specs import InvalidSpec
from forge_operator.state.keys import QUEUE, Key
from forge_operator.state.memory import Memory
from forge_operator.state.observed import (
    Cluster,
    CronDatabase,
    CronObject,
    DatabaseState,
    Observed,
    ObservedCron,
    QueueObject,
    Unknown,
)
from forge_operator.state.settings import OperatorSettings

FRESH = 10.0
"""Seconds that what is read to know whose an object is may be old."""


def _now() -> datetime:
    return datetime.now(UTC)


class Gatherer:
    """Reads cluster and database. `not_before` (monotonic) says how old what it returns may be."""

    def __init__(
        self,
        cluster: ClusterReader,
        facts: FactsReader,
        settings: OperatorSettings,
        *,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._cluster, self._facts, self.settings, self._now = cluster, facts, settings, now
        self._orders = Orders()

    def note(self, observed: Observed, actions: Iterable[Action]) -> None:
        """The pool is about to be given what these actions order, so other pools leave it its connections.

        To be called before anything is awaited: until then another look may spend the same ones.
        """
        if isinstance(observed.cluster, Cluster):
            self._orders.note(observed.queue.uid, ordered(observed.cluster, actions))

    def forget(self, uid: str) -> None:
        """The pool does not exist any more."""
        self._orders.forget(uid)

    async def refresh(self, fresh: float) -> None:
        """What was read of the cluster for all objects is not older than so many seconds, as far as that is worth it."""
        await self._cluster.refresh(fresh)

    async def object(self, key: Key, not_before: float) -> Object | None:
        """Return the object; None when the API server says that it is not there. Raises KubeError."""
        return await self._cluster.object(key, not_before)

    async def queue(self, found: Object, memory: Memory, not_before: float) -> Observed:
        """Return everything that is observed of a ForgeQueue."""
        queue = queue_object(found)
        owner = Key(QUEUE, queue.namespace, queue.name)
        cluster = await self._cluster.pool(owner, queue.uid, not_before)
        database, elsewhere = await self._database(queue, not_before)
        return Observed(
            queue=queue,
            cluster=cluster,
            database=database,
            settings=self.settings,
            now=self._now(),
            memory=memory,
            starting_elsewhere=elsewhere,
        )

    async def cron(self, found: Object, memory: Memory, not_before: float) -> ObservedCron:
        """Return everything that is observed of a ForgeCron."""
        cron = cron_object(found)
        return ObservedCron(
            cron=cron,
            database=await self._cron_database(cron, not_before),
            now=self._now(),
            memory=memory,
        )

    async def everything(self, not_before: float) -> DatabaseState:
        """Return what the database says without regard to a pool. Raises ForgeError."""
        return await (await self._facts.read(not_before)).database(None, None)

    async def knows(self, key: Key) -> bool:
        """Whether the database has rows that belong to the object; False, too, while it does not answer."""
        try:
            facts = await self._facts.read(time.monotonic() - FRESH)
        except ForgeError:
            return False
        owners = {row.managed_by for row in facts.queues} | {row.managed_by for row in facts.crons}
        return key.owner in owners

    async def _database(self, queue: QueueObject, not_before: float) -> tuple[DatabaseState | Unknown, int]:
        """Return what the database says, and how many workers of other pools it does not know yet."""
        workers = None if isinstance(queue.spec, InvalidSpec) else queue.spec.workers
        autoscaling = workers.autoscaling if workers is not None else None
        within = lookahead(autoscaling) if autoscaling is not None else None
        try:
            facts = await self._facts.read(not_before)
            database = await facts.database(queue.uid, within)
        except ForgeError as error:
            return unknown(error), 0
        return database, self._orders.starting_elsewhere(queue.uid, self._cluster.pools, facts.workers)

    async def _cron_database(self, cron: CronObject, not_before: float) -> CronDatabase | Unknown:
        try:
            facts = await self._facts.read(not_before)
        except ForgeError as error:
            return unknown(error)
        name = cron_name(cron.namespace, cron.name)
        job = None if isinstance(cron.spec, InvalidSpec) else cron.spec.job
        queue = None if job is None else job.queue
        return CronDatabase(
            now=facts.now,
            row=facts.crons_by_name.get(name),
            handled=facts.handled.get(queue) if queue is not None else None,
            paused_kinds=facts.paused_kinds,
            unpublished=() if job is None else facts.unpublished.get(job.kind, ()),
            queue_exists=queue is None or any(row.name == queue for row in facts.queues),
        )
