"""The fields of Kubernetes' own objects, as the official package knows them: an API server drops others in silence."""

import re
from collections.abc import Iterator
from typing import Any

from kubernetes.client import models

KINDS = {
    "v1": "V1",
    "apps/v1": "V1",
    "autoscaling/v2": "V2",
    "batch/v1": "V1",
    "networking.k8s.io/v1": "V1",
    "policy/v1": "V1",
    "policy/v1beta1": "V1",  # the same fields, of those that are used here
    "rbac.authorization.k8s.io/v1": "V1",
}
"""How the package calls the kinds of each version; of other versions it knows nothing."""

PLAIN: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "object": object,
}


def mistakes(manifest: dict[str, Any]) -> list[str]:
    """Return one sentence for every field that the API does not have, or that is of another type."""
    prefix = KINDS.get(manifest["apiVersion"])
    if prefix is None:
        return []
    return list(_wrong(manifest, prefix + manifest["kind"], manifest["kind"]))


def _wrong(value: Any, type_: str, place: str) -> Iterator[str]:
    if value is None:
        yield f"{place} says nothing"
    elif match := re.fullmatch(r"List\[(.+)\]", type_):
        if not isinstance(value, list):
            yield f"{place} is no list"
            return
        for index, each in enumerate(value):
            yield from _wrong(each, match[1], f"{place}[{index}]")
    elif match := re.fullmatch(r"Dict\[str, (.+)\]", type_):
        for key, each in value.items():
            yield from _wrong(each, match[1], f"{place}.{key}")
    elif type_ in PLAIN:
        if not isinstance(value, PLAIN[type_]) or (isinstance(value, bool) and type_ in ("int", "float")):
            yield f"{place} is {value!r}, which is no {type_}"
    elif hasattr(models, type_):
        yield from _wrong_fields(value, getattr(models, type_), place)


def _wrong_fields(value: Any, model: Any, place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place} is {value!r}, which is no {model.__name__}"
        return
    types = {model.attribute_map[key]: type_ for key, type_ in model.openapi_types.items()}
    for key, each in value.items():
        if key not in types:
            yield f"{place}.{key} is not a field of {model.__name__}"
        else:
            yield from _wrong(each, types[key], f"{place}.{key}")
