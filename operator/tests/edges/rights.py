"""The rights that the operator needs at the API server, and which of them a request asks for."""

from collections.abc import Iterable, Iterator

from forge_operator.cluster.api import APPLY, LEASES, PODS
from tests.edges.api_server import Request

Right = tuple[str, str, str]
"""API group, resource with its subresource, and verb."""

EVERYWHERE: frozenset[Right] = frozenset(
    {
        ("forge-jobs.dev", "forgequeues", "get"),
        ("forge-jobs.dev", "forgequeues", "list"),
        ("forge-jobs.dev", "forgequeues", "watch"),
        ("forge-jobs.dev", "forgequeues", "patch"),  # the finalizer of reclaimPolicy Delete
        ("forge-jobs.dev", "forgequeues/status", "patch"),
        ("forge-jobs.dev", "forgecrons", "get"),
        ("forge-jobs.dev", "forgecrons", "list"),
        ("forge-jobs.dev", "forgecrons", "watch"),
        ("forge-jobs.dev", "forgecrons/status", "patch"),
        ("apps", "deployments", "list"),
        ("apps", "deployments", "watch"),
        ("apps", "deployments", "create"),
        ("apps", "deployments", "patch"),
        ("apps", "deployments", "delete"),
        ("apps", "deployments/scale", "get"),
        ("apps", "deployments/scale", "patch"),
        ("", "pods", "list"),
        ("", "pods", "patch"),  # marks, and the deletion cost
        ("policy", "poddisruptionbudgets", "list"),
        ("policy", "poddisruptionbudgets", "create"),
        ("policy", "poddisruptionbudgets", "patch"),
        ("policy", "poddisruptionbudgets", "delete"),
        ("", "events", "create"),
        ("", "events", "patch"),
    }
)
"""In every namespace that is watched."""

WITHOUT_DELETION_COST: frozenset[Right] = frozenset({("", PODS.plural, "delete")})
"""Beside those, where a pod that is to go first can only be deleted by name: before Kubernetes 1.22."""

OF_THE_LEASE: frozenset[Right] = frozenset(
    ("coordination.k8s.io", LEASES.plural, verb) for verb in ("get", "create", "update")
)
"""In the operator's own namespace."""

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def rights(request: Request) -> Iterator[Right]:
    """Yield the rights that a request asks for; none for what everybody may read."""
    root, *parts = request.path.strip("/").split("/")
    if root == "openapi":
        return
    group, rest = ("", parts[1:]) if root == "api" else ("".join(parts[:1]), parts[2:])
    if not rest:
        return  # the version, and which kinds there are
    if rest[0] == "namespaces":
        rest = rest[2:]
    resource, is_named = "/".join(rest[:1] + rest[2:]), len(rest) > 1
    if request.method == "GET":
        yield group, resource, "get" if is_named else "watch" if "watch" in request.query else "list"
        return
    yield group, resource, VERBS[request.method]
    if request.media == APPLY and len(rest) == 2:
        yield group, resource, "create"  # what is not there is made


def unexpected(requests: Iterable[Request]) -> set[Right]:
    """Return the rights that the requests ask for and that the operator is not given."""
    asked = {right for each in requests for right in rights(each)}
    return asked - EVERYWHERE - OF_THE_LEASE
