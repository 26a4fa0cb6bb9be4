"""The operator's edges, wired to the small API server and a real database; workers are rows that beat."""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from forge_jobs import Forge, WorkerInfo
from forge_operator.cluster.api import CRONS, DEPLOYMENTS, EVENTS, PODS, QUEUES, Kube
from forge_operator.cluster.events import EventRecorder
from forge_operator.cluster.reader import ClusterReader
from forge_operator.database.facts import FactsReader
from forge_operator.database.link import DatabaseLink
from forge_operator.loop.executor import Executor
from forge_operator.loop.gatherer import Gatherer
from forge_operator.loop.reconciler import Reconciler
from forge_operator.loop.rivals import Rivals
from forge_operator.loop.ticker import Ticker
from forge_operator.metrics.operator import OperatorMetrics
from forge_operator.naming import POOL_UID, VERSION_ID
from forge_operator.state.keys import CRON, QUEUE, Key
from forge_operator.state.settings import OperatorSettings
from tests.edges.api_server import ApiServer
from tests.edges.rights import unexpected

SETTLED = timedelta(seconds=5)
"""A look that asks for the next one after so long had nothing to do."""

MAIL = Key(QUEUE, "default", "mail")


@dataclass
class Stage:
    """One operator without its clockwork: tests say when it looks."""

    api: ApiServer
    kube: Kube
    link: DatabaseLink
    facts: FactsReader
    forge: Forge
    metrics: OperatorMetrics
    executor: Executor
    reconciler: Reconciler
    ticker: Ticker
    added: list[Key]
    workers: dict[str, WorkerInfo] = field(default_factory=dict)  # by pod
    kinds: tuple[str, ...] = (
        "send",
        "work",
        "report",
    )  # that those who register from now on have handlers for

    async def look(self, key: Key = MAIL) -> timedelta | None:
        """Look once, at what is true now."""
        self.reconciler.touch(key)
        return await self.reconciler.look(key)

    async def settle(self, key: Key = MAIL, *, most: int = 20) -> None:
        """Look until nothing is left to do; pods start meanwhile, and their workers register and beat."""
        for _ in range(most):
            again = await self.look(key)
            self.api.start_pods()
            await self.beat()
            if again is None or again >= SETTLED:
                return
        raise AssertionError(f"{key} does not settle")

    async def beat(self) -> None:
        """Every pod has a worker that beats; workers of pods that are gone leave."""
        pods = {each["metadata"]["name"]: each["metadata"]["labels"] for each in self.api.all(PODS)}
        for name, labels in pods.items():
            if name not in self.workers:
                self.workers[name] = worker = WorkerInfo(
                    id=secrets.randbits(40),
                    label=name,
                    host=name,
                    pid=1,
                    version="1",
                    queues=("mail",),
                    kinds=self.kinds,
                    concurrency=10,
                    pool=labels[POOL_UID],
                    version_id=labels[VERSION_ID],
                    pod=name,
                )
                await self.forge.storage.workers.register(worker)
            await self.forge.storage.workers.beat(self.workers[name].id)
        for gone in self.workers.keys() - pods.keys():
            await self.forge.storage.workers.deregister(self.workers.pop(gone).id)

    def queue(self, name: str = "mail", **spec: Any) -> dict[str, Any]:
        """The ForgeQueue says so."""
        return self.api.put(QUEUES, {"metadata": {"name": name}, "spec": spec})

    def cron(self, name: str = "nightly", **spec: Any) -> dict[str, Any]:
        """The ForgeCron says so."""
        return self.api.put(CRONS, {"metadata": {"name": name}, "spec": spec})

    def conditions(self, key: Key = MAIL) -> dict[str, tuple[str, str]]:
        """Return status and reason of each condition of the object."""
        found = self.api.get(QUEUES if key.kind == QUEUE else CRONS, key.name)
        assert found is not None
        return {each["type"]: (each["status"], each["reason"]) for each in found["status"]["conditions"]}

    def message(self, condition: str, key: Key = MAIL) -> str:
        """Return what a condition of the ForgeQueue says."""
        found = self.api.get(QUEUES, key.name)
        assert found is not None
        return str(
            next(each["message"] for each in found["status"]["conditions"] if each["type"] == condition)
        )

    def pods(self) -> dict[str, int]:
        """Return how many pods each Deployment asks for, by the version that people named."""
        return {
            each["metadata"]["annotations"]["forge-jobs.dev/version"]: each["spec"]["replicas"]
            for each in self.api.all(DEPLOYMENTS)
        }

    def reasons(self) -> list[str]:
        """Return the reasons of all events, in their order."""
        return [each["reason"] for each in self.api.all(EVENTS)]

    async def states(self) -> dict[str, str]:
        """Return the state of each version, by the version that people named."""
        return {each.version: str(each.state) for each in await self.forge.versions.all()}


@asynccontextmanager
async def staged(
    api: ApiServer,
    kube: Kube,
    url: str,
    *,
    fresh: float = 0.0,
    busy: Callable[[], int] = lambda: 1,
    clock: Callable[[], float] = time.monotonic,
    namespaces: tuple[str, ...] = (),
    settings: OperatorSettings | None = None,
    identity: str = "default/forge-jobs-operator",
) -> AsyncIterator[Stage]:
    """A stage on this API server and this database."""
    # It leads at first; a test whose operator is taken over by another says whether it leads again.
    link = DatabaseLink(url, "forge_jobs", "operator-1", leads_since=lambda moment: moment < 0)
    metrics = OperatorMetrics()
    settings = settings or OperatorSettings()
    cluster = ClusterReader(kube, namespaces, policy=settings.policy_version, clock=clock)
    facts = FactsReader(link)
    recorder = EventRecorder(kube, "operator-1")
    executor = Executor(kube, link, recorder)
    added: list[Key] = []
    gatherer = Gatherer(cluster, facts, settings)
    reconciler = Reconciler(
        gatherer,
        executor,
        metrics,
        Rivals(
            kube,
            recorder,
            identity,
            may_write=lambda: executor._may_write(),
            knows=gatherer.knows,
            clock=clock,
        ),
        add=added.append,
        busy=busy,
        fresh=fresh,
        clock=clock,
    )
    ticker = Ticker(cluster, facts, link, reconciler, metrics, added.append, tick=0.0)
    async with Forge(url, schema="forge_jobs") as forge:
        try:
            yield Stage(api, kube, link, facts, forge, metrics, executor, reconciler, ticker, added)
        finally:
            await link.close()
    assert unexpected(api.requests) == set(), "the chart gives no such rights"


def workers(version: str = "1", *, image: str = "shop:1", **said: Any) -> dict[str, Any]:
    """Return spec.workers with two pods, that get ready at once."""
    template = {"spec": {"containers": [{"name": "worker", "image": image}]}}
    found = {"version": version, "template": template, "rollout": {"minReadySeconds": 0}, **said}
    return found if "autoscaling" in said else {"replicas": 2, **found}


__all__ = ["CRON", "MAIL", "Stage", "staged", "workers"]
