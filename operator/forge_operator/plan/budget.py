"""Connections to the database for pods that were ordered and have not connected yet.

The server counts open connections only, so those of ordered pods are set aside, in all pools: neither
two looks in quick succession nor two pools spend the same ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from forge_jobs import WorkerInfo
from forge_operator import naming
from forge_operator.plan.actions import Action, ApplyDeployment, DeleteDeployment, Scale
from forge_operator.state.observed import Cluster, Deployment


def starting(cluster: Cluster, workers: Iterable[WorkerInfo]) -> int:
    """Return how many workers were ordered and have not registered in the database yet.

    Pods on their way out open nothing more; what they have open the server counts.
    """
    connected = {worker.pod for worker in workers}
    return sum(
        unconnected(cluster, deployment, connected) * deployment.processes
        for deployment in cluster.deployments
        if not deployment.deleting
    )


def unconnected(cluster: Cluster, deployment: Deployment, connected: set[str | None]) -> int:
    """Return how many pods the Deployment has, or is to have, without a worker in the database."""
    alive = [pod for pod in cluster.pods if pod.version_id == deployment.version_id and not pod.deleting]
    return max(deployment.replicas, len(alive)) - sum(1 for pod in alive if pod.name in connected)


def ordered(cluster: Cluster, actions: Iterable[Action]) -> Cluster:
    """Return the cluster as it is to be when these actions are done, as far as there are more pods or fewer."""
    deployments = {deployment.name: deployment for deployment in cluster.deployments}
    for action in actions:
        match action:
            case ApplyDeployment() if action.name not in deployments:
                deployments[action.name] = made(action)
            case Scale() if action.name in deployments:
                deployments[action.name] = replace(deployments[action.name], replicas=action.replicas)
            case DeleteDeployment():
                deployments.pop(action.name, None)
    return replace(cluster, deployments=tuple(deployments.values()))


def made(action: ApplyDeployment) -> Deployment:
    """Return the Deployment that there is after the action: the API server gives it one pod."""
    manifest = action.manifest
    return Deployment(
        name=action.name,
        uid="",
        version_id=manifest["metadata"]["labels"][naming.VERSION_ID],
        processes=processes(manifest["spec"]["template"]),
    )


def processes(template: Mapping[str, Any]) -> int:
    """Return how many workers each pod of this template runs: what `--processes` says in its command."""
    worker = template["spec"]["containers"][0]
    words = [str(part) for part in (*(worker.get("command") or ()), *(worker.get("args") or ()))]
    workers = 1
    for word, following in pairwise([*words, ""]):
        option, equals, value = word.partition("=")
        number = value if equals else following
        if option == "--processes" and number.isdecimal():
            workers = max(1, int(number))
    return workers


class Orders:
    """The pods last ordered for each pool, in memory. A pool that was not looked at yet has what the API server shows.

    All pools are added up once for each list of workers, and one pool when it is noted, so that
    a look costs the same however many pools there are.
    """

    def __init__(self) -> None:
        self._pools: dict[str, Cluster] = {}
        self._seen: Mapping[str, Cluster] = {}
        self._workers: Sequence[WorkerInfo] = ()
        self._by_pool: dict[str | None, list[WorkerInfo]] = {}
        self._starting: dict[str, int] = {}
        self._total = 0

    def note(self, uid: str, cluster: Cluster) -> None:
        """Remember `cluster` as what was ordered for the pool."""
        self._pools[uid] = cluster
        self._count(uid, cluster)

    def forget(self, uid: str) -> None:
        """Forget the pool."""
        self._pools.pop(uid, None)
        self._count(uid, self._seen.get(uid))

    def starting_elsewhere(self, uid: str, seen: Mapping[str, Cluster], workers: Sequence[WorkerInfo]) -> int:
        """Return how many workers of other pools are starting; `seen` has those of which nothing was noted."""
        if workers is not self._workers or seen != self._seen:
            self._seen, self._workers = seen, workers
            self._by_pool = by_pool(workers)
            self._starting, self._total = {}, 0
            for other, cluster in {**seen, **self._pools}.items():
                self._count(other, cluster)
        return self._total - self._starting.get(uid, 0)

    def _count(self, uid: str, cluster: Cluster | None) -> None:
        elsewhere = 0 if cluster is None else starting(cluster, self._by_pool.get(uid, ()))
        self._total += elsewhere - self._starting.get(uid, 0)
        self._starting[uid] = elsewhere


def by_pool(workers: Iterable[WorkerInfo]) -> dict[str | None, list[WorkerInfo]]:
    """Return the workers of each pool."""
    found: dict[str | None, list[WorkerInfo]] = {}
    for worker in workers:
        found.setdefault(worker.pool, []).append(worker)
    return found
