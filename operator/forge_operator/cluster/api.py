"""The Kubernetes API: the only file that talks to it, through the official package's async client.

Objects are plain mappings as the API has them; no generated model is loaded, which keeps the
operator small. Every call has a time limit. Works with Kubernetes 1.20 and newer.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from forge_operator.cluster.errors import (
    Conflict,
    Expired,
    Forbidden,
    KubeError,
    NotFound,
    TooManyRequests,
    Unreachable,
    error_of,
)
from forge_operator.naming import MANAGER, SCALER

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 30.0
PAGE = 500
THROTTLED_TRIES = 3
LONGEST_WAIT = 5.0
"""Seconds that one call waits for a throttling API server; longer ones are for the work queue."""

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, and where the API has it."""

    group_version: str  # apps/v1; v1 for the core
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of a collection, an object, or a part of it; no namespace is all of them."""
        root = "api" if "/" not in self.group_version else "apis"
        place = ["namespaces", namespace] if namespace is not None else []
        parts = ["", root, self.group_version, *place, self.plural, name, subresource]
        return "/".join(part for part in parts if part is not None)


QUEUES = Resource("forge-jobs.dev/v1alpha1", "ForgeQueue", "forgequeues")
CRONS = Resource("forge-jobs.dev/v1alpha1", "ForgeCron", "forgecrons")
DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments")
PODS = Resource("v1", "Pod", "pods")
EVENTS = Resource("v1", "Event", "events")
LEASES = Resource("coordination.k8s.io/v1", "Lease", "leases")


def budgets_of(version: str) -> Resource:
    """Return the resource PodDisruptionBudget in this version of its API: policy/v1, or policy/v1beta1."""
    return Resource(version, "PodDisruptionBudget", "poddisruptionbudgets")


BY_KIND: Mapping[str, Resource] = {resource.kind: resource for resource in (QUEUES, CRONS)}

Object = dict[str, Any]
Objects = list[Object]


class Kube:
    """A connection to one API server."""

    def __init__(self, client: Any, *, connect: float = CONNECT_SECONDS, answer: float = ANSWER_SECONDS):
        self._client = client
        self._timeout = aiohttp.ClientTimeout(total=connect + answer, connect=connect, sock_read=answer)

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """Return the object. Raises NotFound, KubeError."""
        return await self._call("GET", resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str | None, *, selector: str | None = None
    ) -> Objects:
        """Return all objects, read page by page, consistent as of one moment. Raises KubeError."""
        try:
            return await self._pages(resource, namespace, selector, PAGE)
        except Expired:
            return await self._pages(resource, namespace, selector, None)

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        """The object exists. Raises Conflict when it did before."""
        return await self._call("POST", resource.path(namespace), body, query={"fieldManager": MANAGER})

    async def replace(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """The object is `body`. Raises Conflict when its resourceVersion is another by now."""
        return await self._call("PUT", resource.path(namespace, name), body, query={"fieldManager": MANAGER})

    async def apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Mapping[str, Any],
        *,
        dry_run: bool = False,
    ) -> Object:
        """The fields that `body` names have its values and are ours; fields that it named before and no longer names are gone.

        With `dry_run` nothing is changed: the API server only checks whether it would be. Raises DryRunUnsupported.
        """
        query = {"fieldManager": MANAGER, "force": "true"} | ({"dryRun": "All"} if dry_run else {})
        return await self._call("PATCH", resource.path(namespace, name), dict(body), query=query, media=APPLY)

    async def apply_status(
        self, resource: Resource, namespace: str, name: str, status: Mapping[str, Any]
    ) -> Object:
        """The object's status is `status`, whole. Raises NotFound."""
        body = {
            "apiVersion": resource.group_version,
            "kind": resource.kind,
            "metadata": {"namespace": namespace, "name": name},
            "status": dict(status),
        }
        path, query = resource.path(namespace, name, "status"), {"fieldManager": MANAGER, "force": "true"}
        return await self._call("PATCH", path, body, query=query, media=APPLY)

    async def merge_status(
        self, resource: Resource, namespace: str, name: str, status: Mapping[str, Any], *, revision: str
    ) -> Object:
        """The object's status has what `status` says; None takes a field away. Raises Conflict when the object is not of this resourceVersion, NotFound."""
        body: Object = {"metadata": {"resourceVersion": revision}, "status": dict(status)}
        path = resource.path(namespace, name, "status")
        return await self._call("PATCH", path, body, query={"fieldManager": MANAGER}, media=MERGE)

    async def merge(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """The object has what `body` says; None takes a field away. Raises Conflict, NotFound."""
        path = resource.path(namespace, name)
        return await self._call("PATCH", path, body, query={"fieldManager": MANAGER}, media=MERGE)

    async def scale(self, namespace: str, name: str, replicas: int, *, was: int | None = None) -> bool:
        """The Deployment is to have `replicas` pods; False when it no longer has `was`, and nothing was changed."""
        path = DEPLOYMENTS.path(namespace, name, "scale")
        body: Object = {"spec": {"replicas": replicas}}
        if was is not None:
            present = await self._call("GET", path)
            if (present.get("spec") or {}).get("replicas", 0) != was:
                return False
            body["metadata"] = {"resourceVersion": present["metadata"]["resourceVersion"]}
        try:
            await self._call("PATCH", path, body, query={"fieldManager": SCALER}, media=MERGE)
        except Conflict:
            if was is None:
                raise
            return False
        return True

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> bool:
        """The object with this uid is being deleted, or gone; False when another has its name by now."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._call("DELETE", resource.path(namespace, name), body)
        except NotFound:
            return True
        except Conflict:
            return False
        return True

    async def version(self) -> tuple[int, int]:
        """Return the API server's version: (1, 20)."""
        version = await self._call("GET", "/version")
        digits = "".join(letter for letter in str(version.get("minor", "")) if letter.isdigit())
        return int(version.get("major") or 1), int(digits or 0)

    async def versions_of(self, group: str) -> frozenset[str]:
        """Return the versions that the API server has of an API: policy/v1. Raises KubeError."""
        api_group = await self._call("GET", f"/apis/{group}")
        return frozenset(version["groupVersion"] for version in api_group.get("versions") or ())

    async def openapi(self, group: str, version: str) -> Object:
        """Return what the API server says of the kinds of an API. Raises KubeError, also where it says that of none."""
        return await self._call("GET", f"/openapi/v3/apis/{group}/{version}")

    async def has_deployment(self, namespace: str, name: str) -> bool:
        """Whether there is a Deployment of this name, however many pods it is to have. Raises KubeError."""
        try:
            await self._call("GET", DEPLOYMENTS.path(namespace, name, "scale"))
        except NotFound:
            return False
        return True

    async def _pages(
        self, resource: Resource, namespace: str | None, selector: str | None, limit: int | None
    ) -> Objects:
        found: Objects = []
        query: dict[str, str] = {}
        if selector is not None:
            query["labelSelector"] = selector
        if limit is not None:
            query["limit"] = str(limit)
        while True:
            page = await self._call("GET", resource.path(namespace), query=query)
            items = page.get("items")
            if items is None and not str(page.get("kind", "")).endswith("List"):
                raise Unreachable(200, f"GET {resource.path(namespace)}: the answer is not a list")
            found.extend(items or ())
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return found
            query["continue"] = more

    async def _call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: Mapping[str, str] | None = None,
        media: str = "application/json",
    ) -> Object:
        tries = THROTTLED_TRIES
        while True:
            try:
                return await self._call_once(method, path, body, query or {}, media)
            except TooManyRequests as error:
                tries -= 1
                wait = 1.0 if error.retry_after is None else error.retry_after
                if not tries or wait > LONGEST_WAIT:
                    raise
                await asyncio.sleep(wait)

    async def _call_once(
        self, method: str, path: str, body: Object | None, query: Mapping[str, str], media: str
    ) -> Object:
        asked = f"{method} {path}"
        try:
            request = await self._client.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": media},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = await self._client.call_api(*request, _request_timeout=self._timeout)
            content = await answer.read()
        except TimeoutError:
            raise Unreachable(0, f"{asked}: the API server did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(0, f"{asked}: the API server cannot be reached: {error}") from None
        if not 200 <= answer.status < 300:
            raise error_of(answer.status, content, asked=asked, retry_after=answer.headers.get("Retry-After"))
        return _decoded(content, asked)


def _decoded(content: bytes, asked: str) -> Object:
    try:
        document = json.loads(content or b"{}")
    except ValueError:
        raise Unreachable(200, f"{asked}: the answer is not JSON") from None
    if not isinstance(document, dict):
        raise Unreachable(200, f"{asked}: the answer is not an object")
    return document


@asynccontextmanager
async def connected(*, connections: int = 16) -> AsyncIterator[Kube]:
    """A Kube for the cluster that we are in, else for that of the kubeconfig. Raises KubeError when there is neither."""
    configuration = await access()
    configuration.connection_pool_maxsize = connections
    configuration.retries = None  # what to try again is decided here
    # Python 3.13 refuses authorities without a key usage, which many clusters were made with.
    configuration.disable_strict_ssl_verification = True
    async with ApiClient(configuration) as client:
        client.user_agent = MANAGER
        yield Kube(client)


async def access() -> Configuration:
    """Return address and credentials of the API server: those of the pod, else of the kubeconfig. Raises KubeError.

    In a pod the address is an IP, from the environment: cluster DNS may be away.
    """
    configuration = Configuration()
    try:
        if (SERVICE_ACCOUNT / "token").exists():
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError, KeyError) as error:
        raise KubeError(0, f"No Kubernetes cluster is configured: {error}") from None
    return configuration


def own_namespace() -> str | None:
    """Return the namespace of the pod that we are in; None outside of a cluster."""
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


async def readable(kube: Kube, namespaces: Sequence[str]) -> tuple[str, ...]:
    """Return the namespaces whose objects may be listed; an empty list means all namespaces, which are readable together or not at all.

    Raises KubeError: nothing may be listed, or nothing is known.
    """
    found: list[str] = []
    refused: KubeError | None = None
    for namespace in namespaces or (None,):
        try:
            for resource in BY_KIND.values():
                await kube.list(resource, namespace)
        except Forbidden as error:
            refused = error
        else:
            found += [namespace] if namespace is not None else []
    if refused is not None and not found:
        raise refused
    return tuple(found)
