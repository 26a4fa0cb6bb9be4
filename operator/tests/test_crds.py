"""The custom resource definitions: their files, their schemas, and every one of their rules."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from forge_operator.conditions import OF_CRONS, OF_QUEUES
from forge_operator.crds import files
from forge_operator.crds.files import CHART, PLAIN, SINCE
from tests.custom_resources import (
    DEFINITIONS,
    SCHEMAS,
    complete,
    forge_cron,
    forge_queue,
    holds,
    nodes,
    refusals,
    rules_of,
    template,
    workers,
)
from tests.rule_examples import EXAMPLES, Example, Examples

ROOT = Path(__file__).parents[2]
KINDS = sorted(SCHEMAS)
GUARD = re.compile(r" *\{\{- (if .*|end) \}\}\n")


def shown(examples: Examples) -> str:
    return f"{examples.at}-{examples.message[:30]}"


def all_rules() -> Iterator[tuple[str, Any, str]]:
    for schema in SCHEMAS.values():
        yield from rules_of(schema)


def below(schema: Any, path: str) -> Any:
    """The part of a schema that a path such as .spec.queueName leads to, None if there is none."""
    for name in path.strip(".").split("."):
        schema = schema.get("properties", {}).get(name)
        if schema is None:
            return None
    return schema


# files


@pytest.mark.parametrize("path", files())
def test_a_file_is_what_the_generator_writes(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")

    assert text == files()[path], "run python -m forge_operator.crds"


@pytest.mark.parametrize("folder", [PLAIN, CHART])
def test_no_other_file_lies_beside_them(folder: Path) -> None:
    present = {str(folder / path.name) for path in (ROOT / folder).iterdir()}

    assert present == {path for path in files() if path.startswith(f"{folder}/")}


@pytest.mark.parametrize("path", files())
def test_a_file_is_small_enough_for_client_side_apply(path: str) -> None:
    assert len(files()[path].encode()) < 65_536  # kubectl keeps a copy of the object in an annotation


@pytest.mark.parametrize("name", ["forgequeues.yaml", "forgecrons.yaml"])
def test_the_charts_copy_differs_by_its_guards_and_by_being_kept(name: str) -> None:
    text = files()[str(CHART / name)]

    copy = yaml.safe_load(GUARD.sub("", text))
    plain = yaml.safe_load(files()[str(PLAIN / name)])

    assert copy["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert copy == plain
    assert text.splitlines()[1] == "{{- if .Values.crds.install }}"
    assert text.endswith("\n{{- end }}\n")


@pytest.mark.parametrize("name", ["forgequeues.yaml", "forgecrons.yaml"])
def test_nothing_but_the_guards_is_a_template(name: str) -> None:
    assert "{{" not in GUARD.sub("", files()[str(CHART / name)])
    assert "{{" not in files()[str(PLAIN / name)]


@pytest.mark.parametrize("name", ["forgequeues.yaml", "forgecrons.yaml"])
def test_an_old_cluster_gets_the_copy_without_what_it_does_not_know(name: str) -> None:
    text = files()[str(CHART / name)]
    block = re.compile(r"( *)\{\{- if semverCompare .*\n(?:.*\n)*?\1\{\{- end \}\}\n")

    old = yaml.safe_load(GUARD.sub("", block.sub("", text)))

    assert not [key for key in SINCE if key in yaml.safe_dump(old)]
    plain = yaml.safe_load(files()[str(PLAIN / name)])
    assert without(plain, {key.rstrip(":") for key in SINCE}) == without(old, set(), annotations=True)


def without(value: Any, keys: set[str], annotations: bool = False) -> Any:
    if isinstance(value, list):
        return [without(item, keys, annotations) for item in value]
    if not isinstance(value, dict):
        return value
    dropped = keys | ({"annotations"} if annotations and "name" in value and "labels" in value else set())
    return {key: without(item, keys, annotations) for key, item in value.items() if key not in dropped}


# names, columns, subresources


def test_the_kinds_have_short_names_and_one_category() -> None:
    names = {kind: definition["spec"]["names"] for kind, definition in DEFINITIONS.items()}

    assert {kind: name["shortNames"] for kind, name in names.items()} == {
        "ForgeQueue": ["fq"],
        "ForgeCron": ["fc"],
    }
    assert all(name["categories"] == ["forge"] for name in names.values())
    assert {definition["metadata"]["name"] for definition in DEFINITIONS.values()} == {
        "forgequeues.forge-jobs.dev",
        "forgecrons.forge-jobs.dev",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_column_shows_a_field_that_exists_and_of_its_type(kind: str) -> None:
    known = {"Ready": {"status", "reason"}, "Paused": {"status"}, "ScalingActive": {"reason"}}
    for column in DEFINITIONS[kind]["spec"]["versions"][0]["additionalPrinterColumns"]:
        path = column["jsonPath"]
        condition = re.fullmatch(r'\.status\.conditions\[\?\(@\.type=="(\w+)"\)\]\.(\w+)', path)
        if condition:
            assert condition[2] in known[condition[1]]
            assert condition[1] in (OF_QUEUES if kind == "ForgeQueue" else OF_CRONS)
        elif path != ".metadata.creationTimestamp":
            field = below(SCHEMAS[kind], path)
            assert field is not None, path
            moment = field.get("format") == "date-time"
            assert column["type"] == field["type"] or (moment and column["type"] == "date"), path


def test_a_time_that_is_yet_to_come_is_no_date_column() -> None:
    columns = DEFINITIONS["ForgeCron"]["spec"]["versions"][0]["additionalPrinterColumns"]

    assert [column["type"] for column in columns if column["name"] == "Next"] == ["string"]


def test_a_queue_can_be_scaled_and_both_have_a_status() -> None:
    queue, cron = (
        DEFINITIONS[kind]["spec"]["versions"][0]["subresources"] for kind in ("ForgeQueue", "ForgeCron")
    )

    assert cron == {"status": {}}
    assert queue["status"] == {}
    assert queue["scale"] == {
        "specReplicasPath": ".spec.workers.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    assert all(below(SCHEMAS["ForgeQueue"], path) for path in queue["scale"].values())


# schemas


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_is_a_json_schema(kind: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_the_schema_has_a_type_and_every_field_a_sentence(kind: str) -> None:
    for path, schema in nodes(SCHEMAS[kind]):
        assert "type" in schema, path
        named = (
            path
            and not path.endswith(("]", "}"))
            and not path.startswith((".metadata", ".kind", ".apiVersion"))
        )
        assert not named or schema["description"].endswith("."), path


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_a_person_writes_has_a_largest_size(kind: str) -> None:
    bounds = {"string": ("maxLength", "enum"), "integer": ("maximum",), "array": ("maxItems",)}
    for path, schema in nodes(SCHEMAS[kind]["properties"]["spec"]):
        if schema["type"] in bounds:
            assert any(bound in schema for bound in bounds[schema["type"]]), path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path


@pytest.mark.parametrize("kind", KINDS)
def test_every_list_of_objects_is_merged_by_a_key(kind: str) -> None:
    for path, schema in nodes(SCHEMAS[kind]):
        if schema["type"] == "array":
            listed = schema["x-kubernetes-list-type"]
            assert listed == ("map" if schema["items"]["type"] == "object" else "set"), path
            assert set(schema.get("x-kubernetes-list-map-keys", ())) <= set(
                schema["items"].get("required", ())
            )


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_fits_its_own_schema(kind: str) -> None:
    for path, schema in nodes(SCHEMAS[kind]):
        if "default" in schema and schema["type"] != "object":
            Draft202012Validator(schema).validate(schema["default"])
        if "default" in schema and schema["type"] == "object":
            assert set(schema.get("required", ())) <= schema["default"].keys(), path


@pytest.mark.parametrize("kind", KINDS)
def test_a_default_keeps_the_rules_before_it_is_completed(kind: str) -> None:
    """The API server refuses a whole definition otherwise."""
    for path, schema in nodes(SCHEMAS[kind]):
        for rule in schema.get("x-kubernetes-validations", ()):
            assert "default" not in schema or holds(rule["rule"], schema["default"]), path


def test_a_pod_template_is_stored_as_it_was_written() -> None:
    written = template(metadata={"labels": {"team": "shop"}})
    written["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]
    written["spec"]["tolerations"] = [{"operator": "Exists"}]

    stored = complete(forge_queue(workers=workers(template=written)))

    assert stored["spec"]["workers"]["template"] == written
    assert refusals(stored) == []


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_are_those_of_all_of_kubernetes(kind: str) -> None:
    conditions = below(SCHEMAS[kind], ".status.conditions")
    known = OF_QUEUES if kind == "ForgeQueue" else OF_CRONS

    assert set(conditions["items"]["properties"]) == {
        "type",
        "status",
        "observedGeneration",
        "lastTransitionTime",
        "reason",
        "message",
    }
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert all(condition in conditions["description"] for condition in known)
    assert below(SCHEMAS[kind], ".status.observedGeneration")["type"] == "integer"


def test_the_status_says_why_there_are_as_many_pods_as_there_are() -> None:
    scaling = below(SCHEMAS["ForgeQueue"], ".status.scaling")

    assert {"replicas", "reason", "message", "inputs"} <= scaling["properties"].keys()


@pytest.mark.parametrize(
    "wrong",
    [
        forge_queue("m" * 64),
        forge_queue(queueName="Mail"),
        forge_queue(queueName="mail-"),
        forge_queue(queueName="a,b"),
        forge_queue(typo=True),
        forge_queue(paused="yes"),
        forge_queue(paused=True, pausedWhy="two\nlines"),
        forge_queue(maxAttempts=-2),
        forge_queue(rateLimit={"limit": 5}),
        forge_queue(reclaimPolicy="Recycle"),
        forge_queue(workers={"version": "1"}),
        forge_queue(workers=workers(version="1 2")),
        forge_queue(workers=workers(queues=["a", "a"])),
        forge_queue(workers=workers(autoscaling={})),
        forge_queue(workers=workers(template={"spec": {"containers": []}})),
        forge_queue(workers=workers(template={"spec": {"containers": [{"name": "worker"}]}})),
        forge_queue(workers=workers(rollout={"steps": [{"weightPercent": 5, "pauseSeconds": 60}] * 2})),
        forge_cron(concurrencyPolicy="Replace"),
        forge_cron(job={"queue": "mail"}),
        forge_cron(job={"queue": "mail", "kind": "two words"}),
        forge_cron(job={"queue": "mail", "kind": "x", "priority": 40_000}),
        forge_cron(timeZone="Europe Berlin"),
    ],
    ids=lambda resource: yaml.safe_dump(resource["spec"], default_flow_style=True).strip()[:60],
)
def test_what_the_schema_does_not_allow_is_refused(wrong: dict[str, Any]) -> None:
    assert refusals(wrong)


# rules


def test_every_rule_has_examples() -> None:
    messages = {
        rule["message"]
        for schema in SCHEMAS.values()
        for _, node in nodes(schema)
        for rule in node.get("x-kubernetes-validations", ())
    }

    assert messages == {examples.message for examples in EXAMPLES}
    assert all(examples.kept and examples.broken for examples in EXAMPLES)


@pytest.mark.parametrize("examples", EXAMPLES, ids=shown)
def test_what_keeps_a_rule_is_taken(examples: Examples) -> None:
    assert [refusals(example.resource, example.old) for example in examples.kept] == [[]] * len(examples.kept)


@pytest.mark.parametrize("examples", EXAMPLES, ids=shown)
def test_what_breaks_a_rule_is_refused_with_its_message_at_its_field(examples: Examples) -> None:
    for example in examples.broken:
        assert f"{examples.at}: {examples.message}" in refusals(example.resource, example.old)


@pytest.mark.parametrize(
    ("examples", "example"),
    [(examples, example) for examples in EXAMPLES for example in examples.broken],
    ids=lambda value: shown(value) if isinstance(value, Examples) else "",
)
def test_what_breaks_a_rule_would_be_taken_without_it(examples: Examples, example: Example) -> None:
    said = refusals(example.resource, example.old)

    # A time zone within a schedule is wrong in two ways, and both are said.
    allowed = {shared.message for shared in EXAMPLES if shared.at == examples.at == "spec.schedule"}
    assert {reason.partition(": ")[2] for reason in said} <= {examples.message} | allowed


def test_rules_name_fields_that_exist() -> None:
    for rule, schema, path in all_rules():
        without_texts = re.sub(r"'[^']*'", "''", rule)
        for name in re.findall(r"\b(?:self|oldSelf)((?:\.\w+)+)(?!\w*\()", without_texts):
            name = re.sub(r"\.(map|all|contains|matches)$", "", name)
            known = not name or name == ".metadata.name" or below(schema, name) is not None
            assert known, f"{path}: {name} in {rule}"


def test_rules_blame_fields_that_exist() -> None:
    for path, schema in (found for root in SCHEMAS.values() for found in nodes(root)):
        for rule in schema.get("x-kubernetes-validations", ()):
            assert "fieldPath" not in rule or below(schema, rule["fieldPath"]) is not None, path
            assert rule["message"], path
            assert rule["reason"] in ("FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired")


def test_a_rule_that_cannot_be_evaluated_is_not_taken_for_kept() -> None:
    with pytest.raises(Exception, match="unknown"):
        holds("self.unknown > 1", {"known": 1})


# examples and documents


def written_resources() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each of our resources in the examples, and in the documents' blocks of YAML."""
    texts = [
        (path.name, path.read_text(encoding="utf-8")) for path in sorted((ROOT / "examples").rglob("*.yaml"))
    ]
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        texts += [(page.name, block) for block in blocks]
    for name, text in texts:
        if "forge-jobs.dev/v" in text:
            for document in yaml.safe_load_all(text):
                if document and document.get("kind") in SCHEMAS:
                    yield name, document


@pytest.mark.parametrize(
    "resource",
    [resource for _, resource in written_resources()],
    ids=[name for name, _ in written_resources()],
)
def test_the_api_server_takes_what_examples_and_documents_show(resource: dict[str, Any]) -> None:
    assert refusals(resource) == []


def test_there_are_examples_of_both_kinds() -> None:
    assert {resource["kind"] for _, resource in written_resources()} == set(SCHEMAS)
