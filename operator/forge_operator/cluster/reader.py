"""What the API server says about our objects: one at a time, or all of them with a few calls."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from forge_operator.cluster.api import BY_KIND, DEPLOYMENTS, PODS, Kube, Object, Objects, budgets_of
from forge_operator.cluster.errors import Forbidden, KubeError, NotFound
from forge_operator.cluster.objects import budget, deployment, pod, selects
from forge_operator.naming import POOL_UID, budget_name
from forge_operator.state.keys import Key
from forge_operator.state.observed import Cluster, Unknown

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


@dataclass(frozen=True, slots=True)
class Budgets:
    """PodDisruptionBudgets; they may be hidden from us, where the operator was given fewer rights than it needs."""

    found: Objects = field(default_factory=list)
    hidden: str | None = None  # why they could not be read


class ClusterReader:
    """Reads what is in the watched namespaces, all when none is named. `policy` is the API version of budgets."""

    def __init__(self, kube: Kube, namespaces: Sequence[str] = (), *, policy: str = "policy/v1") -> None:
        self._kube, self._namespaces = kube, tuple(namespaces)
        self._budgets = budgets_of(policy)
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
        pools: dict[str, Cluster] = {}
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
            pools |= _pools(*listed[1:], await self._read_budgets(namespace))
        self._overview = Overview(started_at, objects, pools, unreadable)
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

    async def _read_budgets(self, namespace: str | None) -> Budgets:
        """Return all budgets of the namespace, those of others too: a pod that two select cannot be evicted at all."""
        try:
            return Budgets(await self._kube.list(self._budgets, namespace))
        except Forbidden as error:
            return Budgets(hidden=error.message)

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
            budgets = await self._read_budgets(namespace)
        except KubeError as error:
            return Unknown(UNREACHABLE, error.message)
        return _pools(made, pods, budgets).get(uid, Cluster(budgets_hidden=budgets.hidden))


def _pools(made: Iterable[Object], pods: Iterable[Object], budgets: Budgets) -> dict[str, Cluster]:
    deployments_of, pods_of, budgets_of_pools = _by_pool(made), _by_pool(pods), _by_pool(budgets.found)
    others = [each for each in budgets.found if POOL_UID not in (each["metadata"].get("labels") or {})]
    found = {}
    for uid in deployments_of.keys() | pods_of.keys() | budgets_of_pools.keys():
        own = deployments_of.get(uid, [])
        found[uid] = Cluster(
            deployments=tuple(deployment(each) for each in own),
            pods=tuple(alive for each in pods_of.get(uid, ()) if (alive := pod(each)) is not None),
            budget=next((budget(each) for each in budgets_of_pools.get(uid, ())), None),
            budget_of_others=next(
                (each["metadata"]["name"] for each in others if _is_in_the_way(each, own)), None
            ),
            budgets_hidden=budgets.hidden,
        )
    return found


def _is_in_the_way(budget: Object, deployments: Iterable[Object]) -> bool:
    """Whether somebody's budget is about pods of these Deployments, or has the name that ours would have."""
    for each in deployments:
        metadata = each["metadata"]
        if metadata["namespace"] != budget["metadata"]["namespace"]:
            continue
        owners = [owner["name"] for owner in metadata.get("ownerReferences") or ()]
        if budget["metadata"]["name"] in map(budget_name, owners):
            return True
        if selects(budget, (each["spec"]["template"].get("metadata") or {}).get("labels") or {}):
            return True
    return False


def _by_pool(found: Iterable[Object]) -> dict[str, list[Object]]:
    pools: dict[str, list[Object]] = {}
    for each in found:
        uid = (each["metadata"].get("labels") or {}).get(POOL_UID)
        if uid:
            pools.setdefault(uid, []).append(each)
    return pools
