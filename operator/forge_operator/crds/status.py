"""The functions that declare the fields of `status`, which the operator writes."""

from collections.abc import Iterable
from typing import Any

from forge_operator.conditions import Condition

Schema = dict[str, Any]


def whole(description: str) -> Schema:
    """Return the schema of a whole number."""
    return {"description": description, "type": "integer", "format": "int64"}


def number(description: str) -> Schema:
    """Return the schema of a number with decimals."""
    return {"description": description, "type": "number"}


def text(description: str) -> Schema:
    """Return the schema of a text."""
    return {"description": description, "type": "string", "maxLength": 4096}


def timestamp(description: str) -> Schema:
    """Return the schema of a moment."""
    return {"description": description, "type": "string", "format": "date-time"}


def group(description: str, /, required: Iterable[str] = (), **properties: Schema) -> Schema:
    """Return the schema of an object."""
    found: Schema = {"description": description, "type": "object"}
    if names := list(required):
        found["required"] = names
    return found | {"properties": properties}


def listed(description: str, item: Schema, *, key: str, most: int) -> Schema:
    """Return the schema of a list of objects that differ in `key`."""
    return {
        "description": description,
        "type": "array",
        "maxItems": most,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
        "items": item,
    }


def condition_list(known: Iterable[Condition]) -> Schema:
    """Return the schema of a list of conditions, as all of Kubernetes has them."""
    item = group(
        "A condition.",
        required=("type", "status", "lastTransitionTime", "reason", "message"),
        type={"description": "The type of the condition.", "type": "string", "maxLength": 316},
        status={
            "description": "The status of the condition.",
            "type": "string",
            "enum": ["True", "False", "Unknown"],
        },
        observedGeneration=whole("The generation of the object that the condition describes.")
        | {"minimum": 0},
        lastTransitionTime=timestamp("When the status last changed."),
        reason={
            "description": "The reason for the status, in one word.",
            "type": "string",
            "minLength": 1,
            "maxLength": 1024,
            "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        },
        message={
            "description": "The reason for the status, as a sentence.",
            "type": "string",
            "maxLength": 32768,
        },
    )
    return listed(f"The conditions of the object: {', '.join(known)}.", item, key="type", most=32)
