"""The operator as a process: it starts, serves, hands over and ends as Kubernetes expects it."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from forge_jobs import Forge
from forge_operator.cluster.api import DEPLOYMENTS, LEASES, QUEUES
from tests.edges.api_server import ApiServer, Refused, Request, forbids
from tests.edges.rights import unexpected
from tests.edges.stage import workers
from tests.edges.until import until

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "{url}"}}}}]
users: [{{name: test, user: {{token: test}}}}]
"""


class Running:
    """One operator's process."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and text of what it answers; (0, "") when it does not."""
        try:
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
                    return answer.status, await answer.text()
        except aiohttp.ClientError:
            return 0, ""

    async def is_ready(self) -> bool:
        """Whether it says so."""
        return (await self.get("/readyz"))[0] == 200

    async def leads(self) -> bool:
        """Whether it holds the Lease, as its metrics say."""
        return "forge_operator_leader 1.0" in (await self.get("/metrics"))[1]

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; return the exit code, which must come in time."""
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 25)


Start = Callable[..., "asyncio.Future[Running]"]


@pytest.fixture
async def start(api: ApiServer, url: str, tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    """Start operators on this API server and this database; they are gone after the test."""
    config = tmp_path / "kubeconfig"
    config.write_text(KUBECONFIG.format(url=api.url), encoding="utf-8")
    async with AsyncExitStack() as stack:

        async def started(name: str = "operator-1", **variables: str) -> Running:
            environment = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(sys.path),
                "KUBECONFIG": str(config),
                "FORGE_DATABASE_URL": url,
                "FORGE_OPERATOR_NAMESPACE": "default",
                "FORGE_OPERATOR_POD": name,
                **variables,
            }
            return await stack.enter_async_context(running(environment, tmp_path / f"{name}.log"))

        yield started
    assert unexpected(api.requests) == set(), "the chart gives no such rights"


@asynccontextmanager
async def running(environment: dict[str, str], log: Path) -> AsyncIterator[Running]:
    port = free_port()
    environment |= {"FORGE_OPERATOR_METRICS_PORT": str(port), "FORGE_OPERATOR_METRICS_HOST": "127.0.0.1"}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "forge_operator", env=environment, stdout=output, stderr=output
        )
    try:
        yield Running(process, port, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_it_serves_a_queue_from_apply_to_promotion(api: ApiServer, url: str, start: Start) -> None:
    operator = await start()
    await until(operator.is_ready, 20)
    api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {"workers": workers(replicas=1)}})
    await until(lambda: api.all(DEPLOYMENTS), 10)
    deployment = api.all(DEPLOYMENTS)[0]

    assert deployment["metadata"]["name"].startswith("mail-worker-1-")
    assert (await operator.get("/healthz"))[0] == 200

    async def counted() -> bool:
        metrics = (await operator.get("/metrics"))[1]
        return 'forge_operator_reconcile_total{kind="ForgeQueue",result="ok"}' in metrics

    await until(counted, 10)
    async with Forge(url, schema="forge_jobs") as forge:
        assert (await forge.queues.get("mail")).managed_by == "ForgeQueue default/mail"


async def test_a_change_in_the_cluster_is_heard_at_once(api: ApiServer, url: str, start: Start) -> None:
    operator = await start(FORGE_OPERATOR_RESYNC_SECONDS="3600")
    await until(operator.is_ready, 20)
    api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {"workers": workers(replicas=1)}})
    await until(lambda: api.all(DEPLOYMENTS), 10)
    name = api.all(DEPLOYMENTS)[0]["metadata"]["name"]
    api.remove(DEPLOYMENTS, name)

    await until(lambda: api.get(DEPLOYMENTS, name), 10)
    async with Forge(url, schema="forge_jobs") as forge:
        api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {"concurrency": {"limit": 4}}})

        async def changed() -> bool:
            return (await forge.queues.get("mail")).concurrency == 4

        await until(changed, 10)
        api.remove(QUEUES, "mail")

        async def released() -> bool:
            return (await forge.queues.get("mail")).managed_by is None

        await until(released, 10)


async def test_a_finalizer_stays_while_the_object_is_calm_and_until_its_jobs_have_ended(
    api: ApiServer, url: str, start: Start
) -> None:
    operator = await start(FORGE_OPERATOR_RESYNC_SECONDS="1")
    await until(operator.is_ready, 20)
    api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {"reclaimPolicy": "Delete"}})
    await until(lambda: "finalizers" in (api.get(QUEUES, "mail") or {})["metadata"], 10)
    await until(lambda: "Ready" in conditions(api), 10)
    api.requests.clear()
    await until(lambda: len(listed(api)) > 3, 20)  # each is a look at everything
    assert [each for each in api.writes() if "/forgequeues/" in each.path] == []

    async with Forge(url, schema="forge_jobs") as forge:
        job = await forge.enqueue("send", queue="mail")
        api.remove(QUEUES, "mail")
        await until(lambda: conditions(api).get("DeletionBlocked") == "QueueNotEmpty", 10)
        await forge.jobs.cancel(job.id)
        await until(lambda: api.get(QUEUES, "mail") is None, 10)


def conditions(api: ApiServer) -> dict[str, str]:
    """Return the reason of each condition of the ForgeQueue."""
    status = (api.get(QUEUES, "mail") or {}).get("status") or {}
    return {each["type"]: each["reason"] for each in status.get("conditions") or ()}


def listed(api: ApiServer) -> list[Request]:
    """Return the requests for all ForgeQueues."""
    return [each for each in api.requests if each.path.endswith("/forgequeues") and "watch" not in each.query]


async def test_a_watched_namespace_that_is_gone_stops_nothing_in_the_others(
    api: ApiServer, url: str, start: Start
) -> None:
    api.judge = forbids("gone")  # its Role went with it
    operator = await start(
        FORGE_OPERATOR_WATCH_NAMESPACES="gone,default", FORGE_OPERATOR_RESYNC_SECONDS="3600"
    )
    await until(operator.is_ready, 20)
    api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {"concurrency": {"limit": 3}}})

    await until(lambda: (api.get(QUEUES, "mail") or {}).get("status"), 10)
    assert operator.process.returncode is None


async def test_a_namespace_is_heard_of_again_when_it_is_back(api: ApiServer, url: str, start: Start) -> None:
    api.judge = forbids("shop")
    operator = await start(FORGE_OPERATOR_WATCH_NAMESPACES="default,shop", FORGE_OPERATOR_RESYNC_SECONDS="1")
    await until(operator.is_ready, 20)
    api.judge = lambda request: None
    await until(lambda: api.is_watched(QUEUES, "shop") and api.is_watched(QUEUES, "default"), 20)

    api.judge = forbids("shop")
    api.hang_up()
    await until(lambda: api.is_watched(QUEUES, "default") and not api.is_watched(QUEUES, "shop"), 60)
    api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {"concurrency": {"limit": 3}}})
    await until(lambda: (api.get(QUEUES, "mail") or {}).get("status"), 10)
    assert operator.process.returncode is None


@pytest.mark.parametrize(
    "refused",
    [
        Refused(403, "Forbidden", "forgequeues is forbidden"),
        Refused(404, "NotFound", "the server could not find the requested resource"),
    ],
    ids=lambda refused: refused.reason,
)
async def test_a_leader_that_may_not_watch_any_more_ends_at_once(
    api: ApiServer, start: Start, refused: Refused
) -> None:
    operator = await start(FORGE_OPERATOR_RESYNC_SECONDS="3600")
    await until(operator.leads, 20)
    await until(lambda: api.is_watched(QUEUES, None), 20)
    api.judge = lambda request: refused if is_watch(request) else None
    api.hang_up()

    assert await asyncio.wait_for(operator.process.wait(), 30) == 1
    assert refused.message in operator.log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "refused",
    [
        Refused(429, "TooManyRequests", "later, please"),
        Refused(410, "Expired", "too old"),
        Refused(503, "ServiceUnavailable", "away"),
    ],
    ids=lambda refused: refused.reason,
)
async def test_a_leader_that_cannot_watch_hears_again_once_it_can_or_ends(
    api: ApiServer, start: Start, refused: Refused
) -> None:
    operator = await start(FORGE_OPERATOR_RESYNC_SECONDS="3600")
    await until(operator.leads, 20)
    await until(lambda: api.is_watched(QUEUES, None), 20)
    api.judge = lambda request: refused if is_watch(request) else None
    api.requests.clear()
    api.hang_up()

    def has_ended() -> bool:
        return operator.process.returncode is not None

    await until(lambda: has_ended() or sum(map(is_watch, api.requests)) > 1, 20)
    api.judge = lambda request: None
    api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {"concurrency": {"limit": 3}}})
    await until(lambda: has_ended() or (api.get(QUEUES, "mail") or {}).get("status"), 10)


async def test_a_leader_that_is_told_nothing_any_more_ends(api: ApiServer, start: Start) -> None:
    operator = await start(FORGE_OPERATOR_RESYNC_SECONDS="1")
    api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {"concurrency": {"limit": 3}}})
    await until(lambda: (api.get(QUEUES, "mail") or {}).get("status"), 20)
    await until(lambda: api.is_watched(QUEUES, None), 20)
    api.fall_silent()
    api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {"concurrency": {"limit": 4}}})

    assert await asyncio.wait_for(operator.process.wait(), 60) == 1
    assert "no longer reports changes of objects" in operator.log.read_text(encoding="utf-8")


def is_watch(request: Request) -> bool:
    """Whether somebody wants to hear of ForgeQueues."""
    return request.path.endswith("/forgequeues") and "watch" in request.query


async def test_sigterm_hands_over_and_ends_cleanly(api: ApiServer, start: Start) -> None:
    first = await start("operator-1")
    await until(first.leads, 20)
    second = await start("operator-2")
    await until(second.is_ready, 20)
    assert not await second.leads(), "a follower is ready too"

    assert await first.stop() == 0
    await until(second.leads, 10)
    lease = api.get(LEASES, "forge-jobs-operator")
    assert lease is not None and lease["spec"]["holderIdentity"] == "operator-2"


async def test_only_who_leads_tells_of_queues(api: ApiServer, start: Start) -> None:
    leader = await start("operator-1")
    await until(leader.leads, 20)
    follower = await start("operator-2")
    await until(follower.is_ready, 20)
    api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {"workers": workers(replicas=1)}})
    told = 'forge_queue_pending_jobs{pool="default/mail",queue="mail"} 0.0'

    async def is_told() -> bool:
        return told in (await leader.get("/metrics"))[1]

    await until(is_told, 15)
    page = (await follower.get("/metrics"))[1]
    assert "forge_operator_leader 0.0" in page and 'pool="' not in page


async def test_a_leader_that_may_not_list_is_not_ready(api: ApiServer, start: Start) -> None:
    api.judge = lambda request: (
        Refused(403, "Forbidden", "no") if "/forge-jobs.dev/" in request.path else None
    )
    operator = await start()
    await until(operator.leads, 20)
    await until(lambda: "Waiting for the API server" in operator.log.read_text(encoding="utf-8"), 10)

    status, said = await operator.get("/readyz")
    assert status == 503 and "Not all objects have been listed yet." in said
    api.judge = lambda request: None
    await until(operator.is_ready, 20)


async def test_a_lost_lease_ends_the_process(api: ApiServer, start: Start) -> None:
    operator = await start()
    await until(operator.leads, 20)
    api.edit(LEASES, "forge-jobs-operator", {"spec": {"holderIdentity": "another", "renewTime": "now"}})

    assert await asyncio.wait_for(operator.process.wait(), 15) == 1
    assert "The Lease was lost" in operator.log.read_text(encoding="utf-8")


async def test_a_database_that_is_away_makes_nobody_unhealthy(api: ApiServer, start: Start) -> None:
    away = "postgresql://forge:secret@127.0.0.1:1/forge"
    operator = await start(FORGE_DATABASE_URL=away)
    api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {"workers": workers()}})
    await until(operator.is_ready, 20)

    def told() -> bool:
        found = api.get(QUEUES, "mail")
        conditions = ((found or {}).get("status") or {}).get("conditions") or ()
        reasons = {each["type"]: each["reason"] for each in conditions}
        return reasons.get("DatabaseReachable") == "ConnectionFailed"

    await until(told, 15)
    assert (await operator.get("/healthz"))[0] == 200
    assert "forge_operator_db_up 0.0" in (await operator.get("/metrics"))[1]
    assert api.all(DEPLOYMENTS) == []
    assert await operator.stop() == 0
    assert "secret" not in operator.log.read_text(encoding="utf-8")


async def test_a_wrong_setting_is_one_sentence_and_exit_code_2(start: Start) -> None:
    operator = await start(FORGE_OPERATOR_WORKERS="many")

    assert await asyncio.wait_for(operator.process.wait(), 20) == 2
    said = operator.log.read_text(encoding="utf-8").strip()
    assert said == "FORGE_OPERATOR_WORKERS is 'many', allowed is a whole number from 1 to 64."


async def test_no_cluster_is_one_sentence(start: Start, tmp_path: Path) -> None:
    operator = await start(KUBECONFIG=str(tmp_path / "nowhere"))

    assert await asyncio.wait_for(operator.process.wait(), 20) == 1
    said = operator.log.read_text(encoding="utf-8")
    assert "No Kubernetes cluster is configured" in said and "Traceback" not in said


async def test_an_operator_says_which_definitions_are_older_than_it(api: ApiServer, start: Start) -> None:
    known_as = {"group": "forge-jobs.dev", "version": "v1alpha1", "kind": "ForgeCron"}
    api.schemas = {"ForgeCron": {"properties": {"spec": {}}, "x-kubernetes-group-version-kind": [known_as]}}
    operator = await start()

    def says_so() -> bool:
        said = operator.log.read_text(encoding="utf-8")
        return "The definition of ForgeCron in this cluster is of an earlier release, so that spec." in said

    await until(says_so, 20)
    assert "deploy/forge-jobs-operator -- python -m forge_operator.crds --print" in operator.log.read_text()
    assert await operator.stop() == 0
