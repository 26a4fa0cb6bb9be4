"""values.yaml, its schema and its README tell the same, and a typo is refused."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests.chart.helm import CHART, Refused, needs_helm, render

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").removeprefix("#/definitions/")
    found: dict[str, Any] = SCHEMA["definitions"][name] if name else schema
    return found


def sections(
    schema: dict[str, Any], values: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any], dict[str, Any]]]:
    """Every part of the values whose keys are the chart's own, with its schema."""
    schema = resolved(schema)
    if "properties" in schema:
        yield path, schema, values
        for key, part in schema["properties"].items():
            if isinstance(values.get(key), dict):
                yield from sections(part, values[key], (*path, key))


SECTIONS = list(sections(SCHEMA, VALUES))


def changed(key: str, value: Any) -> dict[str, Any]:
    """The values with another one in this place."""
    found = copy.deepcopy(VALUES)
    *path, last = key.split(".")
    place = found
    for part in path:
        place = place[part]
    place[last] = value
    return found


def test_the_values_fit_their_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA, jsonschema.Draft7Validator)


def test_every_value_is_in_the_schema_and_every_key_of_the_schema_in_the_values() -> None:
    for path, schema, values in SECTIONS:
        if path == ("prometheusRule", "overrides"):  # an empty dictionary, by the alerts' names
            continue
        assert set(schema["properties"]) - {"global"} == set(values), path


@pytest.mark.parametrize("path", [path for path, _, _ in SECTIONS], ids=".".join)
def test_a_key_that_nobody_knows_is_refused(path: tuple[str, ...]) -> None:
    wrong = copy.deepcopy(VALUES)
    place = wrong
    for key in path:
        place = place[key]
    place["replcias"] = 3

    with pytest.raises(jsonschema.ValidationError, match="replcias"):
        jsonschema.validate(wrong, SCHEMA, jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("logLevel", "loud"),
        ("logFormat", "xml"),
        ("watchNamespaces", "shop"),
        ("watchNamespaces", ["Shop"]),
        ("database.schema", "pg_jobs"),
        ("operator.replicas", -1),
        ("operator.replicas", "two"),
        ("operator.metricsPort", 70_000),
        ("workers.connections", -1),
        ("workers.connections", 3),
        ("operator.image.tag", "a b"),
        ("operator.image.digest", "0000"),
        ("operator.resources", {"limit": {"memory": "1Gi"}}),
        ("migration.resources", {"limits": {"memroy": "1Gi"}}),
        ("postgres.resources", {"requests": {"memory": True}}),
        ("operator.tolerations", [{"key": "spot", "efect": "NoSchedule"}]),
        ("postgres.tolerations", [{"operator": "Equals"}]),
        ("commonLabels", {"app.kubernetes.io/name": "shop"}),
        ("operator.podLabels", {"app.kubernetes.io/component": "worker"}),
        ("metrics.operatorMonitor", "both"),
        ("metrics.interval", "soon"),
        ("prometheusRule.disabled", ["ForgeNoSuchAlert"]),
        ("prometheusRule.overrides", {"ForgeNoSuchAlert": {}}),
        ("operator.extraVolumes", [{"name": "tmp", "configMap": {"name": "ca"}}]),
        ("operator.extraVolumes", [{"name": "database", "configMap": {"name": "ca"}}]),
        ("operator.extraVolumes", [{"name": "ca"}]),
        ("migration.extraVolumeMounts", [{"name": "ca", "mountpath": "/ca"}]),
        ("migration.envFrom", [{"secret": {"name": "proxy"}}]),
        ("operator.annotations", {"a": True}),
        ("extraObjects", [3]),
        ("prometheusRule.runbookUrl", "wiki"),
        ("postgres.user", 'forge"; DROP'),
        ("postgres.persistence.size", "big"),
    ],
)
def test_a_value_that_cannot_work_is_refused(key: str, value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(key, value), SCHEMA, jsonschema.Draft7Validator)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("commonLabels", {"team": "shop", "app.kubernetes.io/created-by": "platform"}),
        ("operator.resources", {}),
        ("operator.resources", {"limits": {"cpu": 1, "memory": "1Gi", "example.com/disk": "1"}}),
        ("migration.tolerations", [{"key": "spot", "operator": "Exists", "effect": "NoExecute"}]),
        ("migration.extraVolumes", [{"name": "ca", "secret": {"secretName": "database-ca"}}]),
        ("operator.extraVolumeMounts", [{"name": "ca", "mountPath": "/ca", "subPath": "ca.crt"}]),
        ("extraObjects", ["kind: ConfigMap", {"kind": "ConfigMap"}]),
        ("prometheusRule.runbookUrl", ""),
    ],
)
def test_a_value_that_works_is_taken(key: str, value: Any) -> None:
    jsonschema.validate(changed(key, value), SCHEMA, jsonschema.Draft7Validator)


@needs_helm
def test_helm_refuses_a_typo_by_its_name() -> None:
    with pytest.raises(Refused, match="replcias"):
        render({"postgres.enabled": True, "operator.replcias": 3})


def test_the_schema_knows_every_alert() -> None:
    groups = yaml.safe_load((CHART / "alerts/forge-jobs.yaml").read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"]]
    properties = SCHEMA["properties"]["prometheusRule"]["properties"]

    assert properties["disabled"]["items"]["enum"] == alerts
    assert list(properties["overrides"]["properties"]) == alerts


def test_comments_of_values_are_whole_sentences() -> None:
    comments = re.findall(r"(?:^ *#.*\n)+", (CHART / "values.yaml").read_text(), flags=re.MULTILINE)

    assert comments
    for each in comments:
        text = " ".join(line.strip().removeprefix("#").strip() for line in each.splitlines())
        assert re.match(r"[A-Z0-9]", text) and text.endswith("."), text


def test_no_value_is_named_in_the_readme_that_is_not_there() -> None:
    readme = (CHART / "README.md").read_text()
    named = set(re.findall(r"`([a-z][A-Za-z]+(?:\.[A-Za-z]+)+)(?:=[^`]*)?`", readme))
    named = {each for each in named if not each.startswith(("spec.", "status."))}  # of a ForgeQueue
    named |= {each.split("=")[0] for each in re.findall(r"--set(?:-json)? '?([A-Za-z.]+)=", readme)}

    assert named
    for each in sorted(named):
        place: Any = VALUES
        for key in each.split("."):
            assert key in place, f"{each} is not in values.yaml"
            place = place[key]
