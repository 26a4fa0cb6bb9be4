"""What both custom resource definitions have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

from forge_operator.specs.section import Rule

GROUP = "forge-jobs.dev"
VERSION = "v1alpha1"

LONGEST_OBJECT_NAME = 63
"""An object's name becomes the value of labels, and part of names in the database."""

Schema = dict[str, Any]


def definition(
    *,
    kind: str,
    short_name: str,
    description: str,
    spec: Schema,
    status: Schema,
    columns: Sequence[Mapping[str, Any]],
    rules: Sequence[Rule] = (),
    scale: Mapping[str, str] | None = None,
    selectable: Sequence[str] = (),
) -> Schema:
    """Return a CustomResourceDefinition of one version, as kubectl reads it."""
    singular = kind.lower()
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}} | ({"scale": dict(scale)} if scale else {}),
    }
    if selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in selectable]
    version["additionalPrinterColumns"] = [dict(column) for column in columns]
    version["schema"] = {"openAPIV3Schema": _whole(kind, description, spec, status, rules)}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{singular}s.{GROUP}",
            "labels": {"app.kubernetes.io/name": "forge-jobs", "app.kubernetes.io/part-of": "forge-jobs"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": f"{singular}s",
                "singular": singular,
                "shortNames": [short_name],
                "categories": ["forge"],
            },
            "versions": [version],
        },
    }


def column(name: str, path: str, kind: str = "string", *, description: str, wide: bool = False) -> Schema:
    """Return a column of `kubectl get`; a `wide` one is shown by `-o wide` only."""
    found: Schema = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return found | {"priority": 1} if wide else found


def condition_column(name: str, condition: str, part: str, *, description: str, wide: bool = False) -> Schema:
    """Return a column that shows a part of a condition."""
    path = f'.status.conditions[?(@.type=="{condition}")].{part}'
    return column(name, path, description=description, wide=wide)


def _whole(kind: str, description: str, spec: Schema, status: Schema, rules: Sequence[Rule]) -> Schema:
    schema: Schema = {"description": description, "type": "object", "required": ["spec"]}
    if rules:
        schema["x-kubernetes-validations"] = [rule.schema() for rule in rules]
    schema["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": LONGEST_OBJECT_NAME}},
        },
        "spec": {"description": f"The desired state of the {kind}.", **spec},
        "status": {"description": "The observed state, written by the operator.", **status},
    }
    return schema
