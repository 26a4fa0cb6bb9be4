"""What the API server says about our objects: one at a time, or all of them with a few calls."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
        """Whether the namespace was listed, so that an object missing here does not exist."""
        return namespace not in self.unreadable


@dataclass(frozen=True, slots=True)
class Budgets:
    """PodDisruptionBudgets; they may be hidden from us, where the operator was given fewer rights than it needs."""

    found: Objects = field(default_factory=list)
    hidden: str | None = None  # why they could not be read


class ClusterReader:
    """Reads what is in the watched namespaces, all when none is named. `policy` is the API version of budgets."""

    def __init__(
        self,
        kube: Kube,
        namespaces: Sequence[str] = (),
        *,
        policy: str = "policy/v1",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube, self._namespaces, self._clock = kube, tuple(namespaces), clock
        self._budgets = budgets_of(policy)
        self._overview: Overview | None = None
        self._began_at, self._took = (
            float("-inf"),
            0.0,
        )  # the last time that everything was read, or should have been
        self._refreshing = asyncio.Lock()
        self._failed_at = float("-inf")  # when a refresh was last given up

    @property
    def watches_all(self) -> bool:
        """Whether the objects of all namespaces are watched."""
        return not self._namespaces

    def watches(self, namespace: str) -> bool:
        """Whether the objects of this namespace are watched."""
        return not self._namespaces or namespace in self._namespaces

    async def overview(self) -> Overview:
        """Read everything, and keep it for `object` and `pool`. Raises KubeError: then nothing is known."""
        started_at = self._began_at = self._clock()
        objects: dict[Key, Object] = {}
        owners: dict[str, Key] = {}
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
            owners |= {item["metadata"]["uid"]: key for key, item in listed[0].items()}
            pools |= _pools(*listed[1:], await self._read_budgets(namespace), owners)
        self._overview, self._took = (
            Overview(started_at, objects, pools, unreadable),
            self._clock() - started_at,
        )
        return self._overview

    async def refresh(self, fresh: float) -> None:
        """Everything was read within the last `fresh` seconds, or it could not be; concurrent callers share one read.

        Where reading everything takes longer than it would be of use, it is left as it is.
        """
        async with self._refreshing:
            tried_at = max(self._began_at, self._failed_at)
            if self._clock() - tried_at > fresh and self._took < fresh / 2:
                try:
                    await self.overview()
                except KubeError:  # who looks at an object is told
                    self._failed_at = self._clock()

    @property
    def pools(self) -> Mapping[str, Cluster]:
        """All pools by the uid of their owner, as of the last overview."""
        return {} if self._overview is None else self._overview.pools

    async def _listed(self, namespace: str | None) -> tuple[dict[Key, Object], Objects, Objects]:
        """Return the objects of the namespace, their Deployments and their pods."""
        objects = {
            Key(kind, item["metadata"]["namespace"], item["metadata"]["name"]): item
            for kind, resource in BY_KIND.items()
            for item in await self._kube.list(resource, namespace)
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

    async def pool(self, owner: Key, uid: str, not_before: float) -> Cluster | Unknown:
        """Return the Deployments, pods and budget of a ForgeQueue, or that they could not be read."""
        overview, namespace = self._overview, owner.namespace
        if overview is not None and overview.started_at >= not_before and overview.covers(namespace):
            return overview.pools.get(uid, Cluster())
        selector = f"{POOL_UID}={uid}"
        try:
            made = await self._kube.list(DEPLOYMENTS, namespace, selector=selector)
            pods = await self._kube.list(PODS, namespace, selector=selector)
            budgets = await self._read_budgets(namespace)
        except KubeError as error:
            return Unknown(UNREACHABLE, error.message)
        return _pools(made, pods, budgets, {uid: owner}).get(uid, Cluster(budgets_hidden=budgets.hidden))


def _pools(
    made: Iterable[Object], pods: Iterable[Object], budgets: Budgets, owners: Mapping[str, Key]
) -> dict[str, Cluster]:
    """Return the pools by the uid of their owner, as far as that is among `owners` with its own namespace and name."""
    deployments_of, pods_of = _by_pool(made, owners), _by_pool(pods, owners)
    ours = _our_budgets(budgets.found, owners)
    rightful = {id(item) for uid, item in ours.items() if uid in owners}
    others = [item for item in budgets.found if id(item) not in rightful]
    clusters = {}
    for uid in deployments_of.keys() | pods_of.keys() | ours.keys():
        deployments, owner = deployments_of.get(uid, []), owners.get(uid)
        clusters[uid] = Cluster(
            deployments=tuple(deployment(item) for item in deployments),
            pods=tuple(alive for item in pods_of.get(uid, ()) if (alive := pod(item)) is not None),
            budget=budget(ours[uid]) if uid in ours else None,
            budget_of_others=next(
                (item["metadata"]["name"] for item in others if _is_in_the_way(item, owner, deployments)),
                None,
            ),
            budgets_hidden=budgets.hidden,
        )
    return clusters


def _our_budgets(found: Iterable[Object], owners: Mapping[str, Key]) -> dict[str, Object]:
    """Return the budget of each pool: the one of the right name, since labels may have been copied with it."""
    return {
        uid: item
        for uid, budgets in _by_pool(found, owners).items()
        for item in budgets
        if uid not in owners or _has_our_name(item, owners[uid])
    }


def _has_our_name(budget: Object, owner: Key) -> bool:
    """Whether it has the name of the budget that the operator makes for this object."""
    return bool(budget["metadata"]["name"] == budget_name(owner.name))


def _is_in_the_way(budget: Object, owner: Key | None, deployments: Iterable[Object]) -> bool:
    """Whether a budget that is not ours selects pods of these Deployments, or has the name of ours."""
    metadata = budget["metadata"]
    is_strange = POOL_UID not in (metadata.get("labels") or {})
    if owner is not None and metadata["namespace"] == owner.namespace and is_strange:
        if _has_our_name(budget, owner):
            return True
    return any(
        selects(budget, (item["spec"]["template"].get("metadata") or {}).get("labels") or {})
        for item in deployments
        if item["metadata"]["namespace"] == metadata["namespace"]
    )


def _by_pool(found: Iterable[Object], owners: Mapping[str, Key]) -> dict[str, list[Object]]:
    """Return the objects of each pool. A label can be copied into any namespace: only that of the owner counts."""
    pools: dict[str, list[Object]] = {}
    for item in found:
        metadata = item["metadata"]
        uid = (metadata.get("labels") or {}).get(POOL_UID)
        if uid and (uid not in owners or owners[uid].namespace == metadata["namespace"]):
            pools.setdefault(uid, []).append(item)
    return pools
