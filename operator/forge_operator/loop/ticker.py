"""Looks without a change of an object: at everything once a minute, at load every five seconds, at a queue without pods when a job arrives."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from datetime import timedelta

from forge_jobs import ForgeError
from forge_jobs.model import Version
from forge_operator.cluster.api import BY_KIND, Object
from forge_operator.cluster.errors import KubeError
from forge_operator.cluster.lease import NotLeading
from forge_operator.cluster.reader import ClusterReader, Overview
from forge_operator.database.facts import Facts, FactsReader
from forge_operator.database.link import DatabaseLink
from forge_operator.loop.reconciler import Reconciler, Scaled
from forge_operator.metrics.operator import OperatorMetrics
from forge_operator.naming import PAUSED
from forge_operator.state.keys import Key

logger = logging.getLogger("forge_operator")

JITTER = 0.2
"""A resync comes up to this share earlier, never later: drift is repaired within its period."""

YOUNG = timedelta(minutes=5)
IDLE_EVERY = 3
"""One in so many looks at load is also at pools with pods and nothing to do."""

SETTLE_SECONDS = 0.25
"""How often it is asked which queues are asleep: one that has just fallen asleep wakes as fast as any other."""

AWAY_SECONDS = 1.0
"""How long a database that cannot be listened to is left alone."""


class Ticker:
    """Calls `add` with the keys of the objects that should be looked at."""

    def __init__(
        self,
        cluster: ClusterReader,
        facts: FactsReader,
        link: DatabaseLink,
        reconciler: Reconciler,
        metrics: OperatorMetrics,
        add: Callable[[Key], None],
        *,
        listed: Callable[[Mapping[Key, Object]], None] = lambda objects: None,
        resync: float = 60.0,
        tick: float = 5.0,
    ) -> None:
        self._cluster, self._facts, self._link = cluster, facts, link
        self._reconciler, self._metrics, self._add = reconciler, metrics, add
        self._listed = listed
        self._resync_seconds, self._tick_seconds = resync, tick
        self._turn = 0
        self.has_seen_all = False

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resyncs())
            group.create_task(self._ticks())
            group.create_task(self._watch())

    async def resync(self) -> None:
        """Every object is looked at, and every one that rows name as their owner and that is not there.

        Raises KubeError: then nothing is taken to be gone.
        """
        overview = await self._cluster.overview()
        self.has_seen_all = True
        for namespace, error in overview.unreadable.items():
            logger.warning("The namespace %s is skipped: %s", namespace, error)
        self._listed(overview.objects)
        for kind, count in lagging(overview.objects).items():
            self._metrics.lagging.labels(kind).set(count)
        for key in overview.objects:
            self._add(key)
        with suppress(ForgeError, NotLeading):  # each of the objects says so in its status
            facts = await self._facts.read(overview.started_at)
            for key in orphans(overview, facts):
                if self._cluster.watches(key.namespace) and overview.covers(key.namespace):
                    self._add(key)
            pools = left_over(overview, facts)
            # Who watches some namespaces may not know whose the others are.
            mine = pools if self._cluster.watches_all else self._reconciler.departed.intersection(pools)
            await self._reconciler.forget(sorted(mine))

    async def tick(self) -> None:
        """Every pool that is scaled by load and has work is looked at; now and then those with idle pods."""
        self._turn += 1
        scaled = self._reconciler.scaled()
        if not scaled:
            return
        try:
            facts = await self._facts.read(time.monotonic() - self._tick_seconds / 2)
            keys = [key for key, pool in scaled.items() if await self._is_due(pool, facts)]
        except ForgeError:
            # Objects with pods report it in their status; those without stay without.
            keys = [key for key, pool in scaled.items() if not pool.is_asleep]
        for key in keys:
            self._add(key)

    async def _is_due(self, pool: Scaled, facts: Facts) -> bool:
        if not pool.is_asleep and self._turn % IDLE_EVERY == 0:
            return True
        return not pool.queues.isdisjoint(await facts.busy(pool.within))

    async def _resyncs(self) -> None:
        while True:
            try:
                await self.resync()
            except Exception as error:
                # After any error, everything has to be looked at again.
                self._metrics.resyncs.labels("error").inc()
                trace = None if isinstance(error, KubeError) else error
                logger.warning("Not all objects could be read: %s", error, exc_info=trace)
                pause = min(self._resync_seconds, 5.0)
            else:
                self._metrics.resyncs.labels("ok").inc()
                pause = self._resync_seconds
            await asyncio.sleep(pause * random.uniform(1 - JITTER, 1))

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(self._tick_seconds)
            try:
                await self.tick()
            except Exception:
                # After any error, the pools have to be looked at again.
                logger.exception("The load could not be read")

    async def _watch(self) -> None:
        """Wake pools without pods within milliseconds of an enqueue."""
        while True:
            queues = self._sleeping_queues()
            if not queues:
                await asyncio.sleep(SETTLE_SECONDS)
                continue
            listening = asyncio.create_task(self._listen(queues))
            try:
                while not listening.done() and self._sleeping_queues() == queues:
                    await asyncio.wait({listening}, timeout=SETTLE_SECONDS)
            finally:
                listening.cancel()
                with suppress(asyncio.CancelledError):
                    await listening

    def _sleeping_queues(self) -> frozenset[str]:
        return frozenset[str]().union(*(pool.queues for pool in self._reconciler.asleep().values()))

    async def _listen(self, queues: frozenset[str]) -> None:
        try:
            forge = await self._link.forge()
            known = {queue.name for queue in await forge.queues.list()}
            async with aclosing(forge.watch(sorted(queues & known))) as woken:
                async for queue in woken:
                    for key, pool in self._reconciler.asleep().items():
                        if queue in pool.queues:
                            self._reconciler.touch(key)
                            self._add(key)
        except ForgeError as error:
            logger.debug("The operator cannot listen for jobs of queues without pods: %s", error)
            await asyncio.sleep(AWAY_SECONDS)


def lagging(objects: Mapping[Key, Object]) -> dict[str, int]:
    """Return, by kind, how many objects have a status that is not about what they ask for now.

    One that people have paused is not meant to have another one.
    """
    counts = {kind: 0 for kind in BY_KIND}
    for key, found in objects.items():
        metadata, observed = found["metadata"], (found.get("status") or {}).get("observedGeneration", 0)
        is_paused = (metadata.get("annotations") or {}).get(PAUSED) == "true"
        counts[key.kind] += observed != metadata.get("generation", 0) and not is_paused
    return counts


def left_over(overview: Overview, facts: Facts) -> list[str]:
    """Return the deleted pools that still have versions and no worker."""
    there = {found["metadata"]["uid"] for found in overview.objects.values()}
    kept = {
        version.pool
        for version in facts.versions
        if version.workers or version.in_progress or is_young(version, facts)
    }
    return sorted({version.pool for version in facts.versions} - there - kept)


def is_young(version: Version, facts: Facts) -> bool:
    """Whether the version may belong to an object that was created after the list was read."""
    return version.created_at is None or facts.now - version.created_at <= YOUNG


def orphans(overview: Overview, facts: Facts) -> set[Key]:
    """Return the objects that rows name as their owner and that do not exist."""
    owners = {queue.managed_by for queue in facts.queues}
    owners |= {limit.managed_by for limit in facts.limits} | {cron.managed_by for cron in facts.crons}
    named = (Key.of_owner(owner) for owner in owners if owner is not None)
    return {key for key in named if key is not None and key not in overview.objects}
