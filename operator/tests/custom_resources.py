"""A stand-in for the API server: it fills in defaults and refuses, by the schemas and rules that are shipped."""

import copy
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any

import cel
from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend

from forge_operator.crds import cron_definition, queue_definition

DEFINITIONS = {
    definition["spec"]["names"]["kind"]: definition for definition in (queue_definition(), cron_definition())
}
SCHEMAS = {
    kind: definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for kind, definition in DEFINITIONS.items()
}

Resource = dict[str, Any]


def forge_queue(name: str = "mail", **spec: Any) -> Resource:
    return {
        "apiVersion": "forge-jobs.dev/v1alpha1",
        "kind": "ForgeQueue",
        "metadata": {"name": name},
        "spec": spec,
    }


def forge_cron(name: str = "nightly", **spec: Any) -> Resource:
    spec = {"schedule": "@daily", "job": {"queue": "mail", "kind": "clean_up"}} | spec
    return {
        "apiVersion": "forge-jobs.dev/v1alpha1",
        "kind": "ForgeCron",
        "metadata": {"name": name},
        "spec": spec,
    }


def workers(**said: Any) -> dict[str, Any]:
    return {"version": "1", "template": template()} | said


def template(**said: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "worker", "image": "shop:1"}]}} | said


def complete(resource: Resource) -> Resource:
    """Return the resource as the API server stores it: with defaults, without nulls."""
    completed: Resource = _completed(SCHEMAS[resource["kind"]], copy.deepcopy(resource))
    return completed


def refusals(resource: Resource, old: Resource | None = None) -> list[str]:
    """Return why the API server refuses the resource, or this change of `old`; nothing if it takes it."""
    schema = SCHEMAS[resource["kind"]]
    resource = complete(resource)
    wrong = [
        f"{error.json_path}: {error.message}" for error in _validator(resource["kind"]).iter_errors(resource)
    ]
    # As in the API server: rules are looked at only when the schema is kept.
    return wrong or list(_broken_rules(schema, resource, None if old is None else complete(old), ""))


@cache
def _validator(kind: str) -> Any:
    formats = FormatChecker(formats=())
    formats.checks("date-time", ValueError)(datetime.fromisoformat)
    return _ApiServer(closed(SCHEMAS[kind]), format_checker=formats)


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with unknown fields refused, where the API server would drop them and kubectl complain."""
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            found[key] = {name: closed(below) for name, below in value.items()}
        elif key in ("items", "additionalProperties"):
            found[key] = closed(value)
        else:
            found[key] = value
    known = schema.get("properties")
    is_metadata = known is not None and known.keys() == {"name"}  # of which the schema says only a part
    if known and not is_metadata and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    return found


def holds(rule: str, value: object, old: object = None) -> bool:
    """Return whether a rule in CEL holds."""
    variables = {"self": value} | ({} if old is None else {"oldSelf": old})
    found = cel.evaluate(rule, cel.Context(variables, functions={"isSorted": _is_sorted}))
    assert isinstance(found, bool)
    return found


def rules_of(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Yield every rule with the schema that it stands in, and where that is."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield rule["rule"], schema, path
    for name, below in schema.get("properties", {}).items():
        yield from rules_of(below, f"{path}.{name}")
    for key, ending in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from rules_of(schema[key], path + ending)


def nodes(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every part of a schema with its path."""
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}")
    for key, ending in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from nodes(schema[key], path + ending)


def _completed(schema: Mapping[str, Any], value: Any) -> Any:
    if isinstance(value, dict):
        below = schema.get("properties", {})
        for name, property_schema in below.items():
            if value.get(name) is None:
                value.pop(name, None)
                if "default" in property_schema:
                    value[name] = copy.deepcopy(property_schema["default"])
        for name in value.keys() & below.keys():
            value[name] = _completed(below[name], value[name])
    if isinstance(value, list) and "items" in schema:
        return [_completed(schema["items"], item) for item in value]
    return value


def _broken_rules(schema: Mapping[str, Any], value: Any, old: Any, path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        # A transition rule is looked at only when there was a value before.
        if ("oldSelf" not in rule["rule"] or old is not None) and not holds(rule["rule"], value, old):
            yield f"{(path + rule.get('fieldPath', '')).lstrip('.')}: {rule['message']}"
    if isinstance(value, dict):
        for name, below in schema.get("properties", {}).items():
            if name in value:
                before = old.get(name) if isinstance(old, dict) else None
                yield from _broken_rules(below, value[name], before, f"{path}.{name}")
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _broken_rules(schema.get("items", {}), item, None, f"{path}[{number}]")


def _is_sorted(values: list[Any]) -> bool:
    return values == sorted(values)


def _list_type(validator: Any, kind: str, value: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(value, list):
        return
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if kind == "map":
        value = [[item.get(key) for key in keys] for item in value if isinstance(item, dict)]
    yield from validator.VALIDATORS["uniqueItems"](validator, kind in ("map", "set"), value, schema)


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    # Python's $ also matches before a last line feed, the API server's does not.
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value, re.ASCII):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_ApiServer = extend(
    Draft202012Validator,
    {"x-kubernetes-list-type": _list_type, "pattern": _pattern},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _integer),
)
