"""A small honest API server: uids, resource versions, generations, apply, scale, status, finalizers, garbage, watches."""

import asyncio
import copy
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Set
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from forge_operator.cluster.api import (
    CRONS,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    PODS,
    QUEUES,
    Kube,
    Resource,
    budgets_of,
)

BUDGETS, OLD_BUDGETS = budgets_of("policy/v1"), budgets_of("policy/v1beta1")
RESOURCES = (QUEUES, CRONS, DEPLOYMENTS, PODS, EVENTS, LEASES, BUDGETS, OLD_BUDGETS)
NAMESPACES = Resource("v1", "Namespace", "namespaces")
DEFINITIONS = Resource("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions")
KNOWN = (*RESOURCES, NAMESPACES, DEFINITIONS)
WITH_STATUS = (QUEUES, CRONS, DEPLOYMENTS, PODS)

Object = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """A request that the server was sent."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    media: str


class Refused(Exception):
    """An answer that is not 2xx."""

    def __init__(self, status: int, reason: str, message: str, name: str = "", **headers: str) -> None:
        self.status, self.reason, self.message, self.name, self.headers = (
            status,
            reason,
            message,
            name,
            headers,
        )

    def response(self) -> web.Response:
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.status,
            "details": {"name": self.name} if self.name else {},
        }
        return web.json_response(body, status=self.status, headers=self.headers)


class ApiServer:
    """Objects in memory, served over HTTP."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.version = {"major": "1", "minor": "29+"}
        self.lacks: Set[str] = {OLD_BUDGETS.group_version}  # versions of APIs
        self.schemas: Object | None = None  # what it says of the kinds of each API; None: it is too old to
        self.judge: Callable[[Request], Refused | None] = lambda request: None
        self._objects: dict[Resource, dict[tuple[str, str], Object]] = {each: {} for each in RESOURCES}
        self._applied: dict[tuple[str, str, str], Object] = {}  # uid, manager, subresource
        self._revision = 1000
        self._hung_up = 0  # the revision
        self._is_silent = False
        self._watches: Counter[tuple[Resource, str | None]] = Counter()
        self._history: list[tuple[int, Resource, str, Object]] = []
        self._changed = asyncio.Condition()

    # --- what tests do ---

    def put(self, resource: Resource, body: Object) -> Object:
        """The object exists as if somebody had created or replaced it; return it."""
        namespace, name = body["metadata"].get("namespace", "default"), body["metadata"]["name"]
        body = {"apiVersion": resource.group_version, "kind": resource.kind, **copy.deepcopy(body)}
        body["metadata"]["namespace"] = namespace
        if (namespace, name) not in self._objects[resource]:
            return self._create(resource, namespace, body)
        before = self._objects[resource][namespace, name]
        return self._store(
            resource, before, {**before, **body, "metadata": {**before["metadata"], **body["metadata"]}}
        )

    def edit(self, resource: Resource, name: str, change: Object, namespace: str = "default") -> Object:
        """The object has what `change` says, status included; return it."""
        before = self._found(resource, namespace, name)
        return self._store(resource, before, merged(before, change))

    def get(self, resource: Resource, name: str, namespace: str = "default") -> Object | None:
        """Return the object, or None."""
        return copy.deepcopy(self._objects[resource].get((namespace, name)))

    def all(self, resource: Resource) -> list[Object]:
        """Return all objects of a kind."""
        return copy.deepcopy(list(self._objects[resource].values()))

    def remove(self, resource: Resource, name: str, namespace: str = "default") -> None:
        """Somebody deletes the object."""
        self._delete(resource, self._found(resource, namespace, name))

    def start_pods(self) -> None:
        """What Deployment controller, scheduler and kubelet do: every Deployment has its pods, all ready."""
        for found in list(self._objects[DEPLOYMENTS].values()):
            metadata, wanted = found["metadata"], found["spec"]["replicas"]
            mine = [each for each in self._objects[PODS].values() if _owner(each) == metadata["uid"]]
            mine.sort(key=_deletion_cost, reverse=True)
            for extra in mine[wanted:]:
                self._delete(PODS, extra)
            for _ in range(wanted - len(mine)):
                self._start_pod(found)
            status = {"replicas": wanted, "readyReplicas": wanted, "availableReplicas": wanted}
            available = {
                "type": "Available",
                "status": "True",
                "lastTransitionTime": metadata["creationTimestamp"],
            }
            change = {
                "status": {**status, "observedGeneration": metadata["generation"], "conditions": [available]}
            }
            self.edit(DEPLOYMENTS, metadata["name"], change, metadata["namespace"])

    def is_watched(self, resource: Resource, namespace: str | None) -> bool:
        """Whether somebody watches the kind, in this namespace or, with None, in all at once."""
        return self._watches[resource, namespace] > 0

    def fall_silent(self) -> None:
        """Watches stay open, and nothing more is told on them."""
        self._is_silent = True

    def hang_up(self) -> None:
        """Every watch ends; whoever goes on has to ask again."""
        self._hung_up = self._revision = self._revision + 1
        self._notify()

    def writes(self) -> list[Request]:
        """Return the requests that changed something or would have."""
        return [each for each in self.requests if each.method != "GET"]

    # --- what the server does ---

    def _start_pod(self, deployment: Object) -> None:
        metadata = deployment["metadata"]
        self._create(
            PODS,
            metadata["namespace"],
            {
                "metadata": {
                    "name": f"{metadata['name']}-{uuid.uuid4().hex[:5]}",
                    "labels": deployment["spec"]["template"]["metadata"]["labels"],
                    "ownerReferences": [
                        {"uid": metadata["uid"], "kind": "Deployment", "name": metadata["name"]}
                    ],
                },
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            },
        )

    def _create(self, resource: Resource, namespace: str, body: Object) -> Object:
        name = body["metadata"]["name"]
        if (namespace, name) in self._objects[resource]:
            raise Refused(409, "AlreadyExists", f"{resource.plural} {name!r} already exists", name)
        body = copy.deepcopy(body)
        body["metadata"] |= {
            "namespace": namespace,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": _moment(),
            "generation": 1,
        }
        if resource is DEPLOYMENTS:
            body["spec"].setdefault("replicas", 1)
        return self._keep(resource, "ADDED", body)

    def _store(self, resource: Resource, before: Object, after: Object) -> Object:
        for field in ("uid", "creationTimestamp", "generation", "resourceVersion"):
            after["metadata"][field] = before["metadata"][field]
        if after == before:
            return copy.deepcopy(before)
        if after.get("spec") != before.get("spec"):
            after["metadata"]["generation"] += 1
        if after["metadata"].get("deletionTimestamp") and not after["metadata"].get("finalizers"):
            return self._drop(resource, after)
        return self._keep(resource, "MODIFIED", after)

    def _keep(self, resource: Resource, type_: str, body: Object) -> Object:
        self._revision += 1
        body["metadata"]["resourceVersion"] = str(self._revision)
        self._objects[resource][body["metadata"]["namespace"], body["metadata"]["name"]] = body
        self._tell(resource, type_, body)
        return copy.deepcopy(body)

    def _delete(self, resource: Resource, found: Object) -> Object:
        if found["metadata"].get("finalizers"):
            return self._store(resource, found, merged(found, {"metadata": {"deletionTimestamp": _moment()}}))
        return self._drop(resource, found)

    def _drop(self, resource: Resource, found: Object) -> Object:
        metadata = found["metadata"]
        self._objects[resource].pop((metadata["namespace"], metadata["name"]), None)
        self._revision += 1
        self._tell(resource, "DELETED", found)
        for kind, objects in self._objects.items():
            for each in [each for each in objects.values() if _owner(each) == metadata["uid"]]:
                self._delete(kind, each)
        return found

    def _tell(self, resource: Resource, type_: str, body: Object) -> None:
        self._history.append((self._revision, resource, type_, copy.deepcopy(body)))
        self._notify()

    def _notify(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.get_running_loop().create_task(notify())
        task.add_done_callback(lambda _: None)

    def _found(self, resource: Resource, namespace: str, name: str) -> Object:
        try:
            return self._objects[resource][namespace, name]
        except KeyError:
            raise Refused(404, "NotFound", f"{resource.plural} {name!r} not found", name) from None

    def _apply(
        self, resource: Resource, namespace: str, name: str, sub: str, manager: str, body: Object
    ) -> Object:
        key = (namespace, name)
        if key not in self._objects[resource]:
            if sub:
                self._found(resource, namespace, name)
            made = self._create(resource, namespace, body)
            self._applied[made["metadata"]["uid"], manager, sub] = copy.deepcopy(body)
            return made
        before = self._objects[resource][key]
        said = {"status": body.get("status", {})} if sub else {k: v for k, v in body.items() if k != "status"}
        last = self._applied.get((before["metadata"]["uid"], manager, sub), {})
        after = copy.deepcopy(before)
        for path in set(leaves(last)) - set(leaves(said)):
            _take(after, path)
        after = merged(after, said)
        self._applied[before["metadata"]["uid"], manager, sub] = copy.deepcopy(said)
        return self._store(resource, before, after)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.text()
        body = json.loads(raw) if raw else None
        asked = Request(request.method, request.path, dict(request.query), body, request.content_type)
        self.requests.append(asked)
        try:
            refused = self.judge(asked)
            if refused is not None:
                raise refused
            if request.path == "/version":
                return web.json_response(self.version)
            if request.query.get("watch") == "true":
                return await self._watch(request)
            if "dryRun" in asked.query:
                with self._as_it_was(asked.query["dryRun"]):
                    return web.json_response(self._answer(request, asked))
            return web.json_response(self._answer(request, asked))
        except Refused as error:
            return error.response()

    @contextmanager
    def _as_it_was(self, dry_run: str) -> Iterator[None]:
        """What is done inside is answered, and leaves no trace."""
        if dry_run != "All":
            raise Refused(422, "Invalid", f'dryRun: Unsupported value: "{dry_run}"')
        kept = copy.deepcopy((self._objects, self._applied)), self._revision, len(self._history)
        try:
            yield
        finally:
            (self._objects, self._applied), self._revision, told = kept
            del self._history[told:]

    def _answer(self, request: web.Request, asked: Request) -> Object:
        if "/".join(request.path.split("/")[2:4]) in self.lacks:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        if request.path.startswith("/openapi/") and self.schemas is not None:
            return {"openapi": "3.0.0", "components": {"schemas": self.schemas}}
        found = _discovered(request.path, self.lacks)
        if found is not None:
            return found
        resource, namespace, name, sub = _parsed(request.path)
        if name is None:
            assert resource is not None
            if asked.method == "POST":
                return self._create(resource, namespace or "default", asked.body)
            return self._list(resource, namespace, asked.query)
        if asked.method == "PATCH":
            return self._patch(resource, namespace, name, sub, asked)
        present = self._found(resource, namespace, name)
        match asked.method:
            case "GET":
                return _scale_of(present) if sub == "scale" else copy.deepcopy(present)
            case "DELETE":
                uid = ((asked.body or {}).get("preconditions") or {}).get("uid")
                if uid is not None and uid != present["metadata"]["uid"]:
                    raise Refused(409, "Conflict", "the uid in the precondition is another", name)
                return self._delete(resource, present)
            case "PUT":
                _same_version(present, asked.body, name)
                return self._store(resource, present, copy.deepcopy(asked.body))
        raise Refused(405, "MethodNotAllowed", asked.method)

    def _patch(self, resource: Resource, namespace: str, name: str, sub: str, asked: Request) -> Object:
        if asked.media == "application/apply-patch+yaml":
            if asked.query.get("fieldManager") is None:
                raise Refused(400, "BadRequest", "fieldManager is required for apply")
            return self._apply(resource, namespace, name, sub, asked.query["fieldManager"], asked.body)
        assert asked.media == "application/merge-patch+json", asked.media
        before = self._found(resource, namespace, name)
        _same_version(before, asked.body, name)
        if sub == "scale":
            after = merged(before, {"spec": {"replicas": asked.body["spec"]["replicas"]}})
            return _scale_of(self._store(resource, before, after))
        if sub == "status":
            change = {"status": asked.body["status"]}
        else:
            change = {k: v for k, v in asked.body.items() if k != "status" or resource not in WITH_STATUS}
        return self._store(resource, before, merged(before, change))

    def _list(self, resource: Resource, namespace: str | None, query: Mapping[str, str]) -> Object:
        items = [
            copy.deepcopy(each)
            for each in self._objects[resource].values()
            if (namespace is None or each["metadata"]["namespace"] == namespace)
            and _selected(each, query.get("labelSelector", ""))
        ]
        start, limit = int(query.get("continue") or 0), int(query.get("limit") or 0)
        page = items[start : start + limit] if limit else items
        metadata = {"resourceVersion": str(self._revision)}
        if limit and start + limit < len(items):
            metadata["continue"] = str(start + limit)
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.group_version,
            "metadata": metadata,
            "items": page,
        }

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        resource, namespace, _, _ = _parsed(request.path)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        since = int(request.query.get("resourceVersion") or 0)
        selector = request.query.get("labelSelector", "")
        began = self._revision
        self._watches[resource, namespace] += 1
        try:
            while began >= self._hung_up:
                for revision, kind, type_, body in self._history:
                    if (
                        revision > since
                        and not self._is_silent
                        and kind is resource
                        and _selected(body, selector)
                    ):
                        if namespace is None or body["metadata"]["namespace"] == namespace:
                            await response.write(json.dumps({"type": type_, "object": body}).encode() + b"\n")
                since = self._revision
                async with self._changed:
                    while self._revision == since:
                        await self._changed.wait()
        finally:
            self._watches[resource, namespace] -= 1
        return response


def forbids(namespace: str) -> Callable[[Request], Refused | None]:
    """Return what refuses everything in the namespace, as where there is no Role."""

    def judge(request: Request) -> Refused | None:
        is_there = f"/namespaces/{namespace}/" in request.path
        return Refused(403, "Forbidden", f"not allowed: {request.path}") if is_there else None

    return judge


@asynccontextmanager
async def running() -> AsyncIterator[ApiServer]:
    """A server that answers."""
    server = ApiServer()
    application = web.Application(client_max_size=4 * 1024 * 1024)
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(url: str, *, connect: float = 5.0, answer: float = 5.0) -> AsyncIterator[Kube]:
    """The operator's client of that server."""
    configuration = Configuration()
    configuration.host = url
    async with ApiClient(configuration) as connection:
        yield Kube(connection, connect=connect, answer=answer)


def merged(before: Any, change: Any) -> Any:
    """Return the object after a JSON merge patch."""
    if not isinstance(change, Mapping):
        return copy.deepcopy(change)
    after = dict(copy.deepcopy(before)) if isinstance(before, Mapping) else {}
    for name, value in change.items():
        if value is None:
            after.pop(name, None)
        else:
            after[name] = merged(after.get(name), value)
    return after


def leaves(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value that is no object."""
    if isinstance(found, Mapping) and found:
        for name, value in found.items():
            yield from leaves(value, (*path, name))
    elif path:
        yield path


def _take(found: Object, path: tuple[str, ...]) -> None:
    for name in path[:-1]:
        found = found.get(name, {})
    found.pop(path[-1], None)


def _owner(found: Object) -> str | None:
    owners = found["metadata"].get("ownerReferences") or ()
    return owners[0]["uid"] if owners else None


def _deletion_cost(pod: Object) -> int:
    annotations = pod["metadata"].get("annotations") or {}
    return int(annotations.get("controller.kubernetes.io/pod-deletion-cost", 0))


def _same_version(present: Object, sent: Object, name: str) -> None:
    wanted = (sent.get("metadata") or {}).get("resourceVersion")
    if wanted is not None and wanted != present["metadata"]["resourceVersion"]:
        raise Refused(409, "Conflict", "the object has been modified", name)


def _scale_of(found: Object) -> Object:
    replicas = found["spec"]["replicas"]
    spec = {"replicas": replicas} if replicas else {}  # as Kubernetes leaves zero out
    kept = ("name", "namespace", "uid", "resourceVersion")
    metadata = {field: found["metadata"][field] for field in kept}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec}


def _selected(found: Object, selector: str) -> bool:
    labels = found["metadata"].get("labels") or {}
    for part in filter(None, selector.split(",")):
        name, equals, value = part.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True


def _parsed(path: str) -> tuple[Any, Any, Any, str]:
    """Return resource, namespace, name and subresource."""
    parts = path.strip("/").split("/")
    group_version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
    rest = parts[2 if parts[0] == "api" else 3 :]
    namespace = None
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    for resource in RESOURCES:
        if resource.group_version == group_version and rest[:1] == [resource.plural]:
            return resource, namespace, rest[1] if len(rest) > 1 else None, "".join(rest[2:3])
    raise Refused(404, "NotFound", "the server could not find the requested resource")


def _discovered(path: str, lacks: Set[str]) -> Object | None:
    """Return what a client asks to learn what there is; None when it is not that."""
    groups = {each.group_version for each in KNOWN} - lacks
    versions = [{"groupVersion": each} for each in sorted(groups) if path == f"/apis/{each.split('/')[0]}"]
    if versions:
        return {"kind": "APIGroup", "versions": versions}
    if path in ("/api", "/api/"):
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path in ("/apis", "/apis/"):
        named = [
            {
                "name": each.split("/")[0],
                "preferredVersion": {"groupVersion": each, "version": each.split("/")[1]},
                "versions": [{"groupVersion": each, "version": each.split("/")[1]}],
            }
            for each in sorted(groups)
            if "/" in each
        ]
        return {"kind": "APIGroupList", "groups": named}
    for each in groups:
        if path in (f"/apis/{each}", f"/api/{each}"):
            verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
            resources = [
                {
                    "name": resource.plural,
                    "singularName": resource.kind.lower(),
                    "kind": resource.kind,
                    "namespaced": resource in RESOURCES,
                    "verbs": verbs,
                }
                for resource in KNOWN
                if resource.group_version == each
            ]
            return {"kind": "APIResourceList", "groupVersion": each, "resources": resources}
    return None


def _moment() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
