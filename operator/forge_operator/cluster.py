"""What the API server says about our objects: one at a time, or all of them with three calls."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from forge_operator.keys import Key
from forge_operator.kube import BY_KIND, DEPLOYMENTS, PODS, Kube, Object, Objects
from forge_operator.kube_errors import Forbidden, KubeError, NotFound
from forge_operator.kube_objects import deployment, pod
from forge_operator.naming import POOL_UID
from forge_operator.observed import Cluster, Unknown

UNREACHABLE = "ApiUnreachable"


@dataclass(frozen=True, slots=True)
class Overview:
    """All objects that are watched, with their pools; complete, since every list succeeded.

    A watched namespace that may not be read is left out, and no other for it: one that was
    deleted took the operator's Role with it.
    """

    started_at: float  # monotonic; nothing in it is older
    objects: Mapping[Key, Object]
    pools: Mapping[str, Cluster]  # by uid of the owner; one that is not there has no objects
    unreadable: Mapping[str, Forbidden]  # by namespace

    def covers(self, namespace: str) -> bool:
        """Whether what is not in it is not there."""
        return namespace not in self.unreadable


class ClusterReader:
    """Reads what is in the watched namespaces, all when none is named."""

    def __init__(self, kube: Kube, namespaces: Sequence[str] = ()) -> None:
        self._kube, self._namespaces = kube, tuple(namespaces)
        self._overview: Overview | None = None

    @property
    def watches_all(self) -> bool:
        """Whether objects of every namespace are ours to look at."""
        return not self._namespaces

    def watches(self, namespace: str) -> bool:
        """Whether objects of this namespace are ours to look at."""
        return not self._namespaces or namespace in self._namespaces

    async def overview(self) -> Overview:
        """Look at everything, and keep it for `object` and `pool`. Raises KubeError: then nothing is known."""
        started_at = time.monotonic()
        objects: dict[Key, Object] = {}
        made: Objects = []
        pods: Objects = []
        unreadable: dict[str, Forbidden] = {}
        for namespace in self._namespaces or (None,):
            try:
                listed = await self._listed(namespace)
            except Forbidden as error:
                if namespace is None or len(unreadable) + 1 == len(self._namespaces):
                    raise
                unreadable[namespace] = error
                continue
            objects |= listed[0]
            made += listed[1]
            pods += listed[2]
        self._overview = Overview(started_at, objects, _pools(made, pods), unreadable)
        return self._overview

    @property
    def pools(self) -> Mapping[str, Cluster]:
        """All pools by the uid of their owner, as they were when everything was looked at last."""
        return {} if self._overview is None else self._overview.pools

    async def _listed(self, namespace: str | None) -> tuple[dict[Key, Object], Objects, Objects]:
        """Return the objects of the namespace, their Deployments and their pods."""
        objects = {
            Key(kind, each["metadata"]["namespace"], each["metadata"]["name"]): each
            for kind, resource in BY_KIND.items()
            for each in await self._kube.list(resource, namespace)
        }
        made = await self._kube.list(DEPLOYMENTS, namespace, selector=POOL_UID)
        return objects, made, await self._kube.list(PODS, namespace, selector=POOL_UID)

    async def object(self, key: Key, not_before: float) -> Object | None:
        """Return the object; None when the API server says that it is not there. Raises KubeError."""
        overview = self._overview
        if overview is not None and overview.started_at >= not_before and key in overview.objects:
            return overview.objects[key]
        try:
            return await self._kube.get(BY_KIND[key.kind], key.namespace, key.name)
        except NotFound:
            return None

    async def pool(self, namespace: str, uid: str, not_before: float) -> Cluster | Unknown:
        """Return the Deployments and pods of a pool, or that they could not be read."""
        overview = self._overview
        if overview is not None and overview.started_at >= not_before and overview.covers(namespace):
            return overview.pools.get(uid, Cluster())
        selector = f"{POOL_UID}={uid}"
        try:
            made = await self._kube.list(DEPLOYMENTS, namespace, selector=selector)
            pods = await self._kube.list(PODS, namespace, selector=selector)
        except KubeError as error:
            return Unknown(UNREACHABLE, error.message)
        return _cluster(made, pods)


def _cluster(made: Iterable[Object], pods: Iterable[Object]) -> Cluster:
    return Cluster(
        deployments=tuple(deployment(each) for each in made),
        pods=tuple(found for each in pods if (found := pod(each)) is not None),
    )


def _pools(made: Iterable[Object], pods: Iterable[Object]) -> dict[str, Cluster]:
    deployments_of, pods_of = _by_pool(made), _by_pool(pods)
    return {
        uid: _cluster(deployments_of.get(uid, ()), pods_of.get(uid, ()))
        for uid in deployments_of.keys() | pods_of.keys()
    }


def _by_pool(found: Iterable[Object]) -> dict[str, list[Object]]:
    pools: dict[str, list[Object]] = {}
    for each in found:
        uid = (each["metadata"].get("labels") or {}).get(POOL_UID)
        if uid:
            pools.setdefault(uid, []).append(each)
    return pools
