"""Pods on a real server with few connections: nobody is started who could not connect."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress

import asyncpg
import pytest

from forge_jobs import Forge
from forge_jobs.errors import WorkerLost
from forge_jobs.testing.local_postgres import LocalPostgres
from forge_operator.cluster.api import DEPLOYMENTS, PODS, Kube
from forge_operator.state.keys import QUEUE, Key
from forge_operator.state.settings import OperatorSettings
from tests.copied_postgres import CopiedPostgres
from tests.edges.api_server import ApiServer
from tests.edges.stage import MAIL, Stage, staged, workers
from tests.edges.until import until

EACH = 3
OTHER = Key(QUEUE, "default", "other")
MANY = {"maxReplicas": 20, "targetLatencySeconds": 1, "scaleUp": {"maxPods": 20}}


@pytest.fixture(scope="module")
def postgres() -> Iterator[LocalPostgres]:
    """A PostgreSQL with few connections, and a role for those who may not use its reserve."""
    settings: dict[str, str | int] = {"fsync": "off", "max_connections": 40, "reserved_connections": 2}
    with CopiedPostgres(settings=settings) as server:
        server.execute("CREATE ROLE ordinary LOGIN")
        yield server


@pytest.fixture
def url(postgres: LocalPostgres) -> Iterator[str]:
    """The URL of a database of the test's own, to which nobody else is connected."""
    yield postgres.create_database("budget")
    postgres.drop_database("budget")


class Clients:
    """Real connections: of workers, opened when their pod is up, and of others."""

    def __init__(self, stage: Stage, url: str) -> None:
        self._stage, self._url = stage, url.replace("postgres@", "ordinary@")
        self._of_pods: dict[str, list[asyncpg.Connection]] = {}
        self._others: list[asyncpg.Connection] = []

    async def open(self, count: int) -> None:
        self._others += [await asyncpg.connect(self._url) for _ in range(count)]

    async def close(self) -> None:
        for each in self._others:
            await each.close()
        self._others.clear()

    async def close_all(self) -> None:
        await self.close()
        for connections in self._of_pods.values():
            for each in connections:
                await each.close()

    async def start_pods(self) -> None:
        """All pods that are ordered are up, connect, which each of them can, and register."""
        self._stage.api.start_pods()
        for pod in self._stage.api.all(PODS):
            if pod["metadata"]["name"] not in self._of_pods:
                opened = [await asyncpg.connect(self._url) for _ in range(EACH)]
                self._of_pods[pod["metadata"]["name"]] = opened
        await self._stage.beat()

    async def settle(self, *keys: Key) -> None:
        """Look and start pods until no more are ordered."""
        before = None
        while before != (before := self.ordered()) or before == 0:
            for key in keys or (MAIL,):
                await self._stage.look(key)
            await self.start_pods()

    def ordered(self) -> int:
        return sum(each["spec"]["replicas"] for each in self._stage.api.all(DEPLOYMENTS))


@pytest.fixture
async def stage(api: ApiServer, kube: Kube, url: str) -> AsyncIterator[Stage]:
    async with staged(api, kube, url, settings=OperatorSettings(connections_per_worker=EACH)) as found:
        yield found


@pytest.fixture
async def clients(stage: Stage, url: str) -> AsyncIterator[Clients]:
    with suppress(WorkerLost):
        await stage.forge.storage.workers.beat(0)  # now the connection of heartbeats is open, too
    async with AsyncExitStack() as stack:
        found = Clients(stage, url)
        stack.push_async_callback(found.close_all)
        yield found


async def left(stage: Stage) -> int:
    found = await stage.forge.storage.connections_left()
    assert found is not None
    return found


async def freed(stage: Stage, count: int) -> None:
    """Return once so many connections are left: one that was closed may still be going."""

    async def is_so() -> bool:
        return await left(stage) >= count

    await until(is_so, 10)


async def enqueue(forge: Forge, queue: str = "mail") -> None:
    await forge.queues.ensure(queue)
    for _ in range(100):
        await forge.enqueue("send", {}, queue=queue)


async def test_a_pool_stops_at_what_fits_and_goes_on_when_connections_are_freed(
    stage: Stage, clients: Clients
) -> None:
    await clients.open(9)
    await enqueue(stage.forge)
    stage.queue(workers=workers(slots=1, autoscaling=MANY))
    await clients.settle()

    stopped_at = clients.ordered()
    assert 1 < stopped_at < 12
    assert await left(stage) < EACH
    assert stage.conditions()["ScalingLimited"] == ("True", "DatabaseConnectionBudget")
    assert stage.message("ScalingLimited").startswith(
        f"A pod opens up to {EACH} connections, the database has "
    )

    await clients.close()
    await freed(stage, 9)
    await clients.settle()
    assert clients.ordered() == stopped_at + 3
    assert await left(stage) < EACH


async def test_a_new_version_waits_for_connections_and_says_so(stage: Stage, clients: Clients) -> None:
    stage.queue(workers=workers("1", replicas=2))
    await clients.settle()
    assert await stage.states() == {"1": "current"}
    await clients.open(await left(stage) - 2 * EACH + 1)

    stage.queue(workers=workers("2", replicas=2, image="shop:2"))
    await clients.settle()
    assert await stage.states() == {"1": "current"}
    assert stage.conditions()["Progressing"] == ("False", "DatabaseConnectionBudget")
    assert "2 more pods open up to 6 connections, the database has 5 left" in stage.message("Progressing")

    await clients.close()
    await freed(stage, 2 * EACH)
    await clients.settle()
    assert (await stage.states())["2"] == "current"


@pytest.mark.parametrize("fresh", [0.0, 60.0])
async def test_two_pools_do_not_spend_the_same_connections(
    api: ApiServer, kube: Kube, url: str, fresh: float
) -> None:
    settings = OperatorSettings(connections_per_worker=EACH)
    async with staged(api, kube, url, fresh=fresh, settings=settings) as stage:
        for key in (MAIL, OTHER):
            await enqueue(stage.forge, key.name)
            stage.queue(key.name, workers=workers(slots=1, autoscaling=MANY))
        before = await left(stage)
        for _ in range(3):
            await asyncio.gather(*(stage.reconciler.look(key) for key in (MAIL, OTHER)))

        replicas = [each["spec"]["replicas"] for each in api.all(DEPLOYMENTS)]
        assert len(replicas) == 2
        # A version that nobody serves beside gets its one pod whatever is left.
        assert (sum(replicas) - 1) * EACH <= before
        assert sum(replicas) > 5
