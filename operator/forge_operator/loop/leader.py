"""What an operator does while it leads: informer, work queue and ticker, around one reconciler."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from forge_jobs import ForgeError
from forge_operator.cluster.api import Kube, Object, readable
from forge_operator.cluster.definitions import sentence, unknown_fields
from forge_operator.cluster.errors import KubeError
from forge_operator.cluster.events import EventRecorder
from forge_operator.cluster.informer import Informer
from forge_operator.cluster.lease import Candidate, NotLeading
from forge_operator.cluster.reader import ClusterReader
from forge_operator.database.facts import FactsReader
from forge_operator.database.link import DatabaseLink
from forge_operator.environment import Environment
from forge_operator.loop.executor import Executor
from forge_operator.loop.gatherer import Gatherer
from forge_operator.loop.reconciler import Reconciler
from forge_operator.loop.rivals import Rivals
from forge_operator.loop.ticker import Ticker
from forge_operator.loop.work_queue import WorkQueue
from forge_operator.metrics.database import DatabaseMetrics
from forge_operator.metrics.operator import OperatorMetrics, nothing_known
from forge_operator.state.keys import Key
from forge_operator.state.settings import OperatorSettings

logger = logging.getLogger("forge_operator")

DELETION_COST_SINCE = (1, 22)
UNHEALTHY_EVICTIONS_SINCE = (1, 27)
POLICY, OLD_POLICY = "policy/v1", "policy/v1beta1"
"""Versions of the API of PodDisruptionBudgets: since Kubernetes 1.21, and until 1.24."""

API_RETRY = 2.0
DATABASE_RETRY, LONGEST_DATABASE_RETRY = 5.0, 60.0
"""Seconds between tries."""


class LeadingOperator:
    """The parts of a leading operator, wired together; nothing happens before `run`."""

    def __init__(
        self,
        environment: Environment,
        kube: Kube,
        candidate: Candidate,
        metrics: OperatorMetrics,
        settings: OperatorSettings,
    ) -> None:
        self._environment, self._kube, self._metrics = environment, kube, metrics
        self._link = DatabaseLink(
            environment.database_url,
            environment.schema,
            environment.identity,
            url_file=environment.database_url_file,
            leads_since=candidate.has_held_since,
        )
        cluster, facts = (
            ClusterReader(kube, environment.namespaces, policy=settings.policy_version),
            FactsReader(self._link),
        )
        recorder = EventRecorder(kube, environment.identity, failed=_event_failed)
        executor = Executor(kube, self._link, recorder, may_write=lambda: candidate.holds)
        identity = f"{environment.namespace}/{environment.lease}"
        gatherer = Gatherer(cluster, facts, settings)
        self._reconciler = Reconciler(
            gatherer,
            executor,
            metrics,
            Rivals(kube, recorder, identity, may_write=lambda: candidate.holds, knows=gatherer.knows),
            add=lambda key: self._queue.add(key),
            busy=lambda: self._queue.busy,
        )
        self._queue: WorkQueue[Key] = WorkQueue(
            self._reconciler.look, workers=environment.workers, failed=_look_failed
        )
        self._ticker = Ticker(
            cluster,
            facts,
            self._link,
            self._reconciler,
            metrics,
            self._queue.add,
            listed=self._listed,
            resync=environment.resync_seconds,
            tick=environment.tick_seconds,
        )
        self._informer: Informer | None = None
        self._is_deaf = asyncio.Event()
        database_metrics = DatabaseMetrics(facts, self._reconciler.known, may_tell=lambda: candidate.holds)
        metrics.database = database_metrics.read
        metrics.database_up.set_function(lambda: float(self._link.is_up))
        metrics.queue_depth.set_function(lambda: float(self._queue.depth))
        metrics.queue_oldest.set_function(lambda: self._queue.oldest)

    @property
    def has_seen_all(self) -> bool:
        """Whether all objects were listed once."""
        return self._ticker.has_seen_all

    async def run(self) -> None:
        """Act until cancelled. Raises when one of its parts ended, which none should."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._link_early())
                group.create_task(self._compare_definitions())
                group.create_task(self._queue.run())
                group.create_task(self._ticker.run())
                await self._inform()
        finally:
            self._metrics.database = nothing_known
            await self._link.close()

    async def _inform(self) -> None:
        """Hear of changes until cancelled, wherever that is allowed. Raises when the informer ended or went deaf.

        It ends as soon as one of its namespaces may not be read any more: one that was deleted
        took our Role with it. The others are heard on, and that one again when it is back.
        """
        while True:
            namespaces = await self._readable(self._environment.namespaces)
            informer = self._informer = Informer(
                self._changed, heard=self._metrics.heard, namespaces=namespaces
            )
            informing = asyncio.create_task(informer.run())
            deaf = asyncio.create_task(self._is_deaf.wait())
            try:
                while await self._readable(namespaces) == namespaces:
                    if informing.done():
                        await informing
                        raise RuntimeError("The informer ended unexpectedly.")
                    if deaf.done():
                        raise RuntimeError("The API server no longer reports changes of objects.")
                    await asyncio.wait(
                        {informing, deaf},
                        timeout=self._environment.resync_seconds,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
            finally:
                deaf.cancel()
                informing.cancel()
                with suppress(asyncio.CancelledError, Exception):  # raised above, or of a namespace that went
                    await informing

    async def _readable(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Return the watched namespaces that may be read; those known, when that cannot be found out."""
        if not self._environment.namespaces:
            return ()
        try:
            return await readable(self._kube, self._environment.namespaces)
        except KubeError:
            return known

    def _listed(self, objects: Mapping[Key, Object]) -> None:
        """All objects were listed as these; an informer that missed a change is of no use any more."""
        missed = 0 if self._informer is None else self._informer.missed(objects)
        self._metrics.unheard.set(missed)
        if missed:
            self._is_deaf.set()

    async def _link_early(self) -> None:
        """Older leaders are shut out as soon as the database answers, not with the first write."""
        wait = DATABASE_RETRY
        while True:
            try:
                epoch = await self._link.epoch()
            except NotLeading:
                return  # the process ends
            except ForgeError as error:
                logger.warning("The database cannot be used yet: %s", error)
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_DATABASE_RETRY)
            else:
                logger.info("The database is ready; this operator has epoch %d", epoch)
                return

    async def _compare_definitions(self) -> None:
        """It is said which of the cluster's definitions are older than this operator, and what brings newer ones."""
        namespace, deployment = self._environment.namespace, self._environment.lease
        for kind, fields in (await unknown_fields(self._kube)).items():
            logger.warning(sentence(kind, fields, namespace, deployment))

    def _changed(self, key: Key) -> None:
        self._reconciler.touch(key)
        self._queue.add(key)


async def suited(kube: Kube, environment: Environment) -> OperatorSettings:
    """Return the settings, with what depends on the API server; waits until it serves our kinds.

    The informer learns once, at its start, which kinds there are.
    """
    settings = environment.pools
    while True:
        try:
            version = await kube.version()
            has_policy = POLICY in await kube.versions_of("policy")
            await readable(kube, environment.namespaces)
        except KubeError as error:
            logger.warning("Waiting for the API server: %s", error)
            await asyncio.sleep(API_RETRY)
        else:
            return replace(
                settings,
                honours_deletion_cost=version >= DELETION_COST_SINCE,
                policy_version=POLICY if has_policy else OLD_POLICY,
                evicts_unhealthy=version >= UNHEALTHY_EVICTIONS_SINCE,
            )


def _event_failed(error: KubeError) -> None:
    logger.debug("An event was not written: %s", error)


def _look_failed(key: Key, error: Exception, retry_in: float) -> None:
    if isinstance(error, (KubeError, ForgeError, NotLeading)):
        logger.warning("%s: %s; next try in %.0f s", key.owner, error, retry_in)
    else:
        logger.error("%s failed; next try in %.0f s", key.owner, retry_in, exc_info=error)
