"""Whether the cluster's definitions are those of this release: what an earlier one does not know, the API server drops without a word."""

from collections.abc import Iterator, Mapping
from typing import Any

from forge_operator.cluster.api import Kube
from forge_operator.cluster.errors import KubeError
from forge_operator.crds import GROUP, VERSION, cron_definition, queue_definition

Schema = Mapping[str, Any]

OF_EVERY_OBJECT = frozenset({"apiVersion", "kind", "metadata"})
KEEPS_ALL = "x-kubernetes-preserve-unknown-fields"


async def unknown_fields(kube: Kube) -> Mapping[str, list[str]]:
    """Return by kind the fields of this release that the API server does not know; none of a kind that it does not tell about.

    It tells since Kubernetes 1.24, and everybody who may use it. This is advice: an answer that is nonsense tells nothing.
    """
    found = {}
    try:
        served = _by_kind(await kube.openapi(GROUP, VERSION))
        for definition in (queue_definition(), cron_definition()):
            kind = definition["spec"]["names"]["kind"]
            [version] = definition["spec"]["versions"]
            if kind in served:
                found[kind] = list(_lacking(version["schema"]["openAPIV3Schema"], served[kind]))
    except (KubeError, AttributeError, KeyError, TypeError):
        return {}
    return {kind: fields for kind, fields in found.items() if fields}


def sentence(kind: str, fields: list[str], namespace: str, deployment: str) -> str:
    """Return what people are told about the definition of a kind that does not know these fields."""
    more = len(fields) - 1
    them = fields[0] + (f" and {more} more field{'s' * (more > 1)}" if more else "")
    return (
        f"The definition of {kind} in this cluster is of an earlier release, so that {them} cannot be said: "
        f"`kubectl exec -n {namespace} deploy/{deployment} -- python -m forge_operator.crds --print | kubectl apply -f -` "
        "brings this release's."
    )


def _by_kind(document: Schema) -> dict[str, Schema]:
    schemas = (document.get("components") or {}).get("schemas") or {}
    found: dict[str, Schema] = {}
    for schema in schemas.values():
        for of in schema.get("x-kubernetes-group-version-kind") or ():
            if (of.get("group"), of.get("version")) == (GROUP, VERSION):
                found[of["kind"]] = schema
    return found


def _lacking(ours: Schema, served: Schema, place: str = "") -> Iterator[str]:
    """Yield what `served` lacks, each without what is inside of it."""
    known = served.get("properties") or {}
    for name, schema in (ours.get("properties") or {}).items():
        if not place and name in OF_EVERY_OBJECT:
            continue
        inside = f"{place}.{name}" if place else name
        if name in known:
            yield from _lacking(schema, known[name], inside)
        elif not served.get(KEEPS_ALL):
            yield inside
    for each in ("items", "additionalProperties"):
        if isinstance(ours.get(each), Mapping) and isinstance(served.get(each), Mapping):
            yield from _lacking(ours[each], served[each], place)
