"""The operator reads a custom resource as the API server does, and refuses what an old one lets pass."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from forge_jobs import ForgeError, Missed, Overflow
from forge_jobs.rules.cron_expression import ALIASES
from forge_jobs.rules.cron_times import parse
from forge_operator.specs import (
    AutoscalingSpec,
    CronJobSpec,
    CronSpec,
    ForgeCron,
    ForgeQueue,
    InvalidSpec,
    QueueSpec,
    WorkersSpec,
    read_cron,
    read_queue,
)
from forge_operator.specs.cron import GroupOverflow
from forge_operator.specs.section import Section, declared
from tests.custom_resources import (
    SCHEMAS,
    Resource,
    complete,
    forge_cron,
    forge_queue,
    holds,
    refusals,
    template,
    workers,
)
from tests.rule_examples import EXAMPLES, Example, Examples

READERS: dict[str, Callable[[Resource], ForgeQueue | ForgeCron]] = {
    "ForgeQueue": read_queue,
    "ForgeCron": read_cron,
}
SPECS: dict[str, type[Section]] = {"ForgeQueue": QueueSpec, "ForgeCron": CronSpec}


def read_example(example: Example) -> Any:
    resource = dict(example.resource)
    if example.old:
        # The operator does not see the object as it was, but remembers the queue that it configured.
        old = example.old
        resource["status"] = {"queueName": old["spec"].get("queueName", old["metadata"]["name"])}
    return READERS[resource["kind"]](resource)


def shown(examples: Examples) -> str:
    return f"{examples.at}-{examples.message[:30]}"


def test_the_examples_are_what_the_api_server_takes_and_the_operator_reads() -> None:
    files = sorted((Path(__file__).parents[2] / "examples" / "kubernetes").glob("*.yaml"))
    resources = [one for file in files for one in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    ours = [one for one in resources if one["kind"] in READERS]

    assert {one["kind"] for one in ours} == set(READERS)
    assert [refused for one in ours for refused in refusals(one)] == []
    for one in ours:
        READERS[one["kind"]](one)


# rules


@pytest.mark.parametrize("examples", EXAMPLES, ids=shown)
def test_what_keeps_a_rule_is_read(examples: Examples) -> None:
    for example in examples.kept:
        read_example(example)


@pytest.mark.parametrize("examples", EXAMPLES, ids=shown)
def test_what_breaks_a_rule_is_refused_in_the_words_of_the_api_server(examples: Examples) -> None:
    for example in examples.broken:
        with pytest.raises(InvalidSpec) as caught:
            read_example(example)

        said = str(caught.value)
        assert said.removesuffix(".") in refusals(example.resource, example.old)
        assert caught.value.path == examples.at


# defaults


@pytest.mark.parametrize(
    "resource",
    [
        forge_queue(),
        forge_queue(workers=workers()),
        forge_queue(
            workers=workers(autoscaling={"maxReplicas": 5}), rateLimit={"limit": 5, "periodSeconds": 1}
        ),
        forge_queue(backoff={}, concurrency={}, workers=workers(rollout={"abort": {}}, drain={}, sunset={})),
        forge_queue(backoff=None, timeoutSeconds=None),
        forge_cron(),
    ],
)
def test_what_is_not_said_has_the_default_of_the_schema(resource: Resource) -> None:
    read = READERS[resource["kind"]]

    assert read(complete(resource)).spec == read(resource).spec


def test_a_spec_made_by_hand_has_the_same_defaults() -> None:
    assert read_queue(forge_queue()).spec == QueueSpec()
    assert read_queue(forge_queue(workers=workers())).spec.workers == WorkersSpec(
        version="1", template=template()
    )
    assert read_queue(
        forge_queue(workers=workers(autoscaling={"maxReplicas": 5}))
    ).spec.workers == WorkersSpec(
        version="1", template=template(), autoscaling=AutoscalingSpec(max_replicas=5)
    )
    assert read_cron(forge_cron()).spec == CronSpec(
        schedule="@daily", job=CronJobSpec(queue="mail", kind="clean_up")
    )


def test_the_defaults_are_those_of_the_library() -> None:
    spec, ours = QueueSpec(), {field.name: field.default for field in dataclasses.fields(_queue_config())}

    assert spec.max_attempts == ours["max_attempts"]
    assert (spec.backoff.enabled, spec.backoff.base, spec.backoff.max) == (
        ours["backoff_enabled"],
        ours["backoff_base"],
        ours["backoff_max"],
    )
    assert (spec.retention.done, spec.retention.dead) == (ours["done_retention"], ours["dead_retention"])
    assert (spec.concurrency.limit, spec.paused) == (ours["concurrency"], ours["paused"])
    assert (spec.timeout, spec.rate_limit, spec.workers) == (None, None, None)
    assert (spec.groups.limit, spec.age_after) == (ours["group_limit"], ours["age_after"])


def _queue_config() -> Any:
    from forge_jobs import QueueConfig

    return QueueConfig


# every field


OTHERS: dict[str, Any] = {
    "queueName": "post",
    "pausedUntil": "2030-01-31T08:00:00Z",
    "pausedWhy": "their shop moves",
    "rateLimit": {"limit": 7, "periodSeconds": 60},
    "queues": ["reports"],
    "namePrefix": "post",
    "version": "2",
    "autoscaling": {"maxReplicas": 9},
    "steps": [{"weightPercent": 7, "pauseSeconds": 90}],
    "template": template(metadata={"labels": {"team": "shop"}}),
    "schedule": "@hourly",
    "timeZone": "Europe/Berlin",
    "queue": "post",
    "kind": "other",
    "args": {"a": 1},
    "weights": [{"tenant": "ada", "weight": 2}],
    "tenant": "bob",
    "weight": 0.5,
    "name": "other",
}
BASES: dict[str, Resource] = {
    "ForgeQueue": forge_queue(
        paused=True,
        rateLimit={"limit": 1_000, "periodSeconds": 30},
        timeoutSeconds=30,
        tenants={"weights": [{"tenant": "ada", "weight": 3}]},
        workers=workers(
            autoscaling={"maxReplicas": 100},
            rollout={"strategy": "Manual", "steps": [{"weightPercent": 5, "pauseSeconds": 60}]},
            drain={"timeoutSeconds": 50},
        ),
    ),
    "ForgeCron": forge_cron(
        missedRunPolicy="All", job={"queue": "mail", "kind": "clean_up", "group": {"name": "shop"}}
    ),
}


def fields_of(schema: Mapping[str, Any], path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every field that a person may write, of a template only the whole."""
    for name, below in schema.get("properties", {}).items():
        yield (*path, name)
        if name != "template":
            yield from fields_of(below, (*path, name))
    if schema["type"] == "array":
        yield from fields_of(schema["items"], (*path, 0))


def other_value(schema: Mapping[str, Any], name: str | int, present: Any) -> Any:
    if name in OTHERS:
        return OTHERS[name]
    if schema["type"] == "boolean":
        return not present
    if "enum" in schema:
        return next(word for word in schema["enum"] if word != present)
    if schema["type"] == "integer":
        return next(value for value in (11, 77) if value != present)
    return None


@pytest.mark.parametrize(
    ("kind", "path"),
    [(kind, path) for kind in SCHEMAS for path in fields_of(SCHEMAS[kind]["properties"]["spec"], ())],
    ids=str,
)
def test_no_field_of_the_schema_is_passed_over(kind: str, path: tuple[str | int, ...]) -> None:
    base = complete(BASES[kind])
    changed = complete(BASES[kind])
    schema, at = SCHEMAS[kind]["properties"]["spec"], changed["spec"]
    for name in path[:-1]:
        schema, at = _below(schema, name), at[name]
    value = other_value(_below(schema, path[-1]), path[-1], at.get(path[-1]))
    if value is None:
        assert _below(schema, path[-1])["type"] == "object", "a section; its fields have their own turn"
        return
    at[path[-1]] = value
    if path[-1] == "replicas":
        del at["autoscaling"]
    if path == ("job", "tenant"):
        del at["group"]
    if path[-1] in ("pauseSeconds", "progressDeadlineSeconds"):
        at[path[-1]] = 77

    assert refusals(changed) == []
    assert READERS[kind](changed).spec != READERS[kind](base).spec


def _below(schema: Mapping[str, Any], name: str | int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schema["items"] if name == 0 else schema["properties"][name]
    return found


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_field_that_is_read_is_in_the_schema(kind: str) -> None:
    def check(section: type[Section], schema: Mapping[str, Any]) -> None:
        names = {name for name, _, _ in declared(section)}
        assert names == schema["properties"].keys()

    check(SPECS[kind], SCHEMAS[kind]["properties"]["spec"])
    if kind == "ForgeQueue":
        check(WorkersSpec, SCHEMAS[kind]["properties"]["spec"]["properties"]["workers"])


# what the operator makes of it


def test_durations_are_timedeltas() -> None:
    spec = read_queue(forge_queue(timeoutSeconds=90, backoff={"baseSeconds": 1, "maxSeconds": 3600})).spec

    assert spec.timeout == timedelta(seconds=90)
    assert (spec.backoff.base, spec.backoff.max) == (timedelta(seconds=1), timedelta(hours=1))


def test_a_queue_has_the_name_of_its_object_unless_it_says_another() -> None:
    assert read_queue(forge_queue("mail")).queue == "mail"
    assert read_queue(forge_queue("mail", queueName="post")).queue == "post"


def test_workers_serve_their_own_queue_first_and_each_once() -> None:
    queue = read_queue(forge_queue("mail", workers=workers(queues=["reports", "mail", "default"])))

    assert queue.served == ("mail", "reports", "default")
    assert read_queue(forge_queue("mail")).served == ("mail",)


def test_a_template_is_kept_as_it_was_written() -> None:
    written = template()
    written["spec"]["containers"][0]["env"] = [{"name": "A", "valueFrom": {"secretKeyRef": {}}}]

    found = read_queue(forge_queue(workers=workers(template=written))).spec.workers

    assert found is not None
    assert found.template == written


def test_a_cron_speaks_the_librarys_words() -> None:
    spec = read_cron(forge_cron(missedRunPolicy="All", maxMissedRuns=7, concurrencyPolicy="Forbid")).spec

    assert (spec.missed, spec.missed_limit, spec.overlap) == (Missed.ALL, 7, False)
    assert (read_cron(forge_cron()).spec.missed, read_cron(forge_cron()).spec.missed_limit) == (
        Missed.LATEST,
        100,
    )
    assert read_cron(forge_cron()).spec.overlap


@pytest.mark.parametrize("overflow", GroupOverflow)
def test_the_group_of_a_cron_is_one_of_the_library(overflow: GroupOverflow) -> None:
    job = {"queue": "mail", "kind": "send", "group": {"name": "shop", "limit": 3, "overflow": overflow}}
    group = read_cron(forge_cron(job=job)).spec.job.group

    assert group is not None
    assert group.said.overflow in tuple(Overflow)
    assert group.said.overflow == re.sub("(?<=.)(?=[A-Z])", "_", overflow).lower()
    assert (group.said.name, group.said.limit) == ("shop", 3)


def test_metadata_is_read_too() -> None:
    resource = forge_queue() | {
        "metadata": {
            "name": "mail",
            "namespace": "shop",
            "uid": "6f0c",
            "generation": 3,
            "annotations": {"forge-jobs.dev/promote": "x"},
        },
        "status": {"queueName": "mail"},
    }

    queue = read_queue(resource)

    assert (queue.namespace, queue.name, queue.uid, queue.generation) == ("shop", "mail", "6f0c", 3)
    assert queue.annotations == {"forge-jobs.dev/promote": "x"}
    assert queue.recorded_queue == "mail"


@pytest.mark.parametrize(
    "expression",
    [
        *ALIASES,
        "0 3 * * *",
        "*/10 * * * * *",
        "0 0 L * ?",
        "0 8 * * mon-fri",
        "0 0 * * 5#2",
        "5 0 * AUG *",
        "0 0 * * L5",
    ],
)
def test_every_schedule_that_the_library_knows_can_be_said(expression: str) -> None:
    parse(expression)

    assert read_cron(forge_cron(schedule=expression)).spec.schedule == expression


# sentences


@pytest.mark.parametrize(
    ("resource", "sentence"),
    [
        (forge_queue(paused=1), "spec.paused is 1, allowed is true or false."),
        *(
            (
                forge_queue(paused=True, pausedUntil=moment),
                f"spec.pausedUntil is {moment!r}, allowed is a moment with its zone, like 2030-01-31T08:00:00Z.",
            )
            for moment in (
                "tomorrow",
                "2030-01-31T08:00:00",
                "2030-01-32T08:00:00Z",
                "2030-01-31t08:00:00z",
                7,
            )
        ),
        (
            forge_queue(backoff={"baseSeconds": -1}),
            "spec.backoff.baseSeconds is -1, allowed is a whole number from 0 to 2592000.",
        ),
        (
            forge_queue(maxAttempts=True),
            "spec.maxAttempts is True, allowed is a whole number from -1 to 2147483647.",
        ),
        (forge_queue(backoff=5), "spec.backoff is 5, allowed is an object."),
        (
            forge_queue(reclaimPolicy="Recycle"),
            "spec.reclaimPolicy is 'Recycle', allowed is one of Retain, Delete.",
        ),
        (forge_queue(queueName="Mail"), "spec.queueName is 'Mail', allowed is a text that matches"),
        (forge_queue(queueName=""), "spec.queueName is '', allowed is a text of 1 to 63 characters."),
        (forge_queue(queueName="m" * 200), f"spec.queueName is '{'m' * 99}…, allowed is"),
        (forge_queue(workers={"version": "1"}), "spec.workers.template is missing."),
        (
            forge_queue(workers=workers(queues="a")),
            "spec.workers.queues is 'a', allowed is a list of 0 to 64 items.",
        ),
        (forge_queue(workers=workers(queues=["a", "b", "a"])), "spec.workers.queues names 'a' twice."),
        (forge_queue(workers=workers(queues=["a", "B"])), "spec.workers.queues[1] is 'B', allowed is"),
        (
            forge_queue(workers=workers(rollout={"steps": [{"weightPercent": 5, "pauseSeconds": 60}] * 2})),
            "spec.workers.rollout.steps names 5 twice.",
        ),
        (
            forge_queue(workers=workers(template={"spec": {"containers": [{"name": "worker"}]}})),
            "spec.workers.template.spec.containers[0].image is missing.",
        ),
        (
            forge_queue(workers=workers(template=template(metadata={"labels": {"a": 5}}))),
            "spec.workers.template.metadata.labels[a] is 5, allowed is a text of 0 to 63 characters.",
        ),
        (
            forge_queue(backoff={"baseSeconds": 9, "maxSeconds": 8}),
            "spec.backoff.baseSeconds: baseSeconds must be at most maxSeconds.",
        ),
        (
            forge_queue(queueName="post") | {"status": {"queueName": "mail"}},
            "spec.queueName: queueName cannot be changed: another name is another queue.",
        ),
        ({"kind": "ForgeQueue", "metadata": {"name": "mail"}}, "spec is None, allowed is an object."),
        (forge_cron(job=None), "spec.job is missing."),
        (
            forge_cron(job={"queue": "mail", "kind": "a b"}),
            "spec.job.kind is 'a b', allowed is a text that matches",
        ),
    ],
)
def test_one_sentence_says_where_what_and_what_is_allowed(resource: Resource, sentence: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        READERS[resource["kind"]](resource)

    said = str(caught.value)
    assert said == sentence if sentence.endswith(".") else said.startswith(sentence)
    assert said.endswith(".")
    assert said.startswith(caught.value.path)


def test_an_invalid_spec_is_an_error_of_the_library() -> None:
    assert issubclass(InvalidSpec, ForgeError)


def test_a_field_of_a_newer_schema_is_passed_over() -> None:
    assert read_queue(forge_queue(fromTheFuture=1)).spec == QueueSpec()


# agreement with the API server, on anything


def values_of(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that mostly fit a schema, at its edges above all, and sometimes do not."""
    match schema["type"]:
        case "boolean":
            return mostly(st.booleans())
        case "integer":
            low, high = schema["minimum"], schema["maximum"]
            near = st.integers(low, min(high, low + 100))
            return mostly(st.sampled_from([low, low + 1, high - 1, high]) | near, low - 1, high + 1)
        case "string" if "enum" in schema:
            return mostly(st.sampled_from(schema["enum"]), "Other")
        case "string":
            words = [word for word in WORDS if not refused_text(schema, word)]
            longest = schema["maxLength"]
            if not refused_text(schema, "a"):
                words.append("a" * longest)
            return mostly(st.sampled_from(words), *WORDS, "a" * (longest + 1), "a\n")
        case "array":
            return mostly(
                st.lists(values_of(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
            )
        case _ if "additionalProperties" in schema:
            names = st.sampled_from(["team", "shop/forge-jobs.dev/", "a", "b", "c", "forge-jobs.dev/x"])
            return mostly(st.dictionaries(names, values_of(schema["additionalProperties"]), max_size=2))
        case _ if "properties" in schema:
            below = {name: values_of(part) for name, part in schema["properties"].items()}
            required = {name: below.pop(name) for name in schema.get("required", ())}
            return mostly(st.fixed_dictionaries(required, optional=below))
        case _:
            return mostly(st.dictionaries(st.sampled_from(["a", "b"]), st.integers(), max_size=2))


def refused_text(schema: Mapping[str, Any], word: str) -> bool:
    rules = [rule["rule"] for rule in schema.get("x-kubernetes-validations", ())]
    return not (
        re.fullmatch(schema.get("pattern", ".*"), word)
        and len(word) >= schema.get("minLength", 0)
        and all(holds(rule, word) for rule in rules)
    )


WORDS = [
    "a",
    "A",
    "mail",
    "1.8.1",
    "a b",
    "",
    "@daily",
    "0 3 * * *",
    "TZ=UTC 0 3 * * *",
    "é",
    "2030-01-31T08:00:00Z",
]


def mostly(fitting: st.SearchStrategy[Any], *others: Any) -> st.SearchStrategy[Any]:
    wrong = st.sampled_from([None, 1, "x", [], {}, True, *others])
    return st.integers(0, 99).flatmap(lambda dice: wrong if dice == 99 else fitting)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_operator_refuses_exactly_what_todays_api_server_refuses(kind: str, data: st.DataObject) -> None:
    spec = data.draw(values_of(SCHEMAS[kind]["properties"]["spec"]))
    if not isinstance(spec, dict):
        return
    resource = {
        "kind": kind,
        "apiVersion": "forge-jobs.dev/v1alpha1",
        "metadata": {"name": "a"},
        "spec": spec,
    }
    by_server = refusals(resource)
    event("refused" if by_server else "taken")

    try:
        found = READERS[kind](resource)
    except InvalidSpec as error:
        assert by_server, error
        return

    assert by_server == []
    assert without_template(READERS[kind](complete(resource)).spec) == without_template(found.spec)


def without_template(spec: Any) -> Any:
    """The spec without what is kept as it was written, where the API server drops nulls."""
    if isinstance(spec, CronSpec) or spec.workers is None:
        return spec
    return dataclasses.replace(spec, workers=dataclasses.replace(spec.workers, template={}))
