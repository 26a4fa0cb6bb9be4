"""What a version is called."""

import re
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge_operator import naming
from forge_operator.specs import WorkersSpec
from forge_operator.specs.section import read
from tests.world import template, workers

UID = "6f0c1d9e-0000-4000-8000-000000000001"
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?")


def spec(**said: Any) -> WorkersSpec:
    return read(WorkersSpec, workers() | said, "spec.workers")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=80), st.text(max_size=80))
def test_a_deployment_has_a_dns_label_of_at_most_46_characters_that_ends_in_the_id(
    prefix: str, version: str
) -> None:
    id_, _ = naming.version_id(UID, version.encode("utf-8", "replace").decode(), None)

    name = naming.deployment_name(prefix, version, id_)

    assert len(name) <= 46
    assert LABEL.fullmatch(name)
    assert name.endswith(f"-{id_}")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200))
def test_any_text_becomes_a_value_that_a_label_may_have(text: str) -> None:
    found = naming.label_value(text)

    assert len(found) <= 63
    assert LABEL_VALUE.fullmatch(found)


def test_an_id_is_eight_characters_that_form_no_words() -> None:
    id_, digest = naming.version_id(UID, "1", None)

    assert len(id_) == 8
    assert set(id_) <= set("bcdfghjklmnpqrstvwxz2456789")
    assert re.fullmatch("[0-9a-f]{64}", digest)


def test_an_id_never_changes_with_the_release_of_the_operator() -> None:
    assert naming.version_id("uid", "3", {"spec": {"containers": []}}) == (
        "nd54p2gq",
        "a06bf72e767a192779e51f9258425d33c14fb83aba029e42c9f702fa99fc01ae",
    )


def test_another_owner_version_or_template_is_another_id() -> None:
    found = {
        naming.version_id(owner, version, made_of)[0]
        for owner in ("a", "b")
        for version in ("1", "2")
        for made_of in (None, {"spec": 1}, {"spec": 2})
    }

    assert len(found) == 12


def test_the_order_of_keys_in_a_template_is_no_other_version() -> None:
    assert naming.version_id(UID, "1", {"a": 1, "b": 2}) == naming.version_id(UID, "1", {"b": 2, "a": 1})


PART_OF_THE_ID: dict[str, Any] = {
    "version": "2",
    "template": template(metadata={"labels": {"team": "shop"}}),
    "slots": 7,
    "queues": ["other"],
}
NO_PART_OF_THE_ID: dict[str, dict[str, Any]] = {
    "name_prefix": {"namePrefix": "shop"},
    "identity": {},  # says which of the others count
    "replicas": {"replicas": 9},
    "autoscaling": {"autoscaling": {"maxReplicas": 5}, "replicas": None},
    "rollout": {"rollout": {"strategy": "Manual"}},
    "drain": {"drain": {"shrinkIdle": False}},
    "sunset": {"sunset": {"historyLimit": 1}},
    "disruption": {"disruption": {"budget": "None"}},
}


def test_every_field_of_workers_is_known_to_be_a_part_of_the_id_or_not() -> None:
    assert {each.name for each in fields(WorkersSpec)} == {*PART_OF_THE_ID, *NO_PART_OF_THE_ID}


@pytest.mark.parametrize("field", PART_OF_THE_ID)
def test_a_change_of_what_a_pod_is_made_of_is_a_new_version(field: str) -> None:
    changed = spec(**{field: PART_OF_THE_ID[field]})

    assert naming.identity(UID, changed).id != naming.identity(UID, spec()).id


@pytest.mark.parametrize("field", NO_PART_OF_THE_ID)
def test_a_change_of_anything_else_restarts_no_worker(field: str) -> None:
    changed = spec(**NO_PART_OF_THE_ID[field])

    assert naming.identity(UID, changed) == naming.identity(UID, spec())


@pytest.mark.parametrize("field", ("template", "slots", "queues"))
def test_with_identity_version_only_the_version_makes_a_new_one(field: str) -> None:
    plain, changed = spec(identity="Version"), spec(identity="Version", **{field: PART_OF_THE_ID[field]})

    found, other = naming.identity(UID, plain), naming.identity(UID, changed)

    assert found.id == other.id
    assert found.template_hash != other.template_hash


def test_labels_of_people_are_not_in_the_selector() -> None:
    assert naming.selector(UID, "rm452vxk") == {
        "forge-jobs.dev/pool-uid": UID,
        "forge-jobs.dev/version-id": "rm452vxk",
    }


def test_the_label_has_the_version_as_it_may_be_and_the_annotation_as_it_is() -> None:
    labels = naming.labels("mail", UID, "3+build.9", "rm452vxk")
    annotations = naming.annotations("3+build.9", naming.identity(UID, spec()), None)

    assert labels["app.kubernetes.io/version"] == "3-build.9"
    assert annotations["forge-jobs.dev/version"] == "3+build.9"


@pytest.mark.parametrize("name", naming.INJECTED)
def test_a_template_that_sets_a_variable_of_the_operator_is_named_with_it(name: str) -> None:
    container = {"name": "worker", "image": "shop:1", "env": [{"name": name, "value": "mine"}]}

    sentence = naming.reserved_variable({"spec": {"containers": [container]}})

    assert sentence is not None
    assert name in sentence
    assert "'worker'" in sentence


def test_a_template_may_set_all_other_variables() -> None:
    container = {"name": "worker", "image": "shop:1", "env": [{"name": "FORGE_LOG_LEVEL", "value": "debug"}]}

    assert naming.reserved_variable({"spec": {"containers": [container], "initContainers": None}}) is None
