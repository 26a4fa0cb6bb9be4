"""Definitions of an earlier release are noticed: what they do not know, the API server drops without a word."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import yaml

from forge_operator.cluster.api import Kube
from forge_operator.cluster.definitions import sentence, unknown_fields
from forge_operator.crds import cron_definition, files, queue_definition
from forge_operator.crds.files import PLAIN
from tests.edges.api_server import ApiServer, Refused


@pytest.fixture
def served(api: ApiServer) -> dict[str, Any]:
    """What the API server says of our kinds, as it does of those of this release."""
    schemas = {}
    for definition in (queue_definition(), cron_definition()):
        kind = definition["spec"]["names"]["kind"]
        schema = copy.deepcopy(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"$ref": "#/components/schemas/ObjectMeta"}
        known_as = {"group": "forge-jobs.dev", "kind": kind, "version": "v1alpha1"}
        schemas[kind] = schema | {"x-kubernetes-group-version-kind": [known_as]}
    listed = {
        "properties": {"items": {}},
        "x-kubernetes-group-version-kind": [known_as | {"kind": "ForgeCronList"}],
    }
    api.schemas = {"ObjectMeta": {"properties": {}}, "List": listed} | schemas
    return schemas


async def test_nothing_is_said_of_definitions_of_this_release(kube: Kube, served: dict[str, Any]) -> None:
    assert await unknown_fields(kube) == {}


async def test_it_is_known_which_fields_an_earlier_definition_lacks(
    kube: Kube, served: dict[str, Any]
) -> None:
    of_queue = served["ForgeQueue"]["properties"]
    del of_queue["status"]["properties"]["rival"]
    del of_queue["spec"]["properties"]["tenants"]["properties"]["weights"]["items"]["properties"]["weight"]
    del of_queue["spec"]["properties"]["workers"]["properties"]["autoscaling"]

    found = await unknown_fields(kube)

    assert {kind: sorted(fields) for kind, fields in found.items()} == {
        "ForgeQueue": ["spec.tenants.weights.weight", "spec.workers.autoscaling", "status.rival"]
    }


async def test_nothing_is_said_where_the_api_server_does_not_tell(api: ApiServer, kube: Kube) -> None:
    assert await unknown_fields(kube) == {}
    api.judge = lambda request: Refused(403, "Forbidden", "no")
    assert await unknown_fields(kube) == {}


@pytest.mark.parametrize(
    "told",
    [
        {"ForgeQueue": None},
        {"ForgeQueue": {"x-kubernetes-group-version-kind": [5]}},
        {
            "ForgeQueue": {
                "x-kubernetes-group-version-kind": [{"group": "forge-jobs.dev", "version": "v1alpha1"}]
            }
        },
        {
            "ForgeQueue": {
                "x-kubernetes-group-version-kind": [
                    {"group": "forge-jobs.dev", "version": "v1alpha1", "kind": "ForgeQueue"}
                ],
                "properties": {"spec": 5},
            }
        },
    ],
)
async def test_an_answer_that_is_nonsense_tells_nothing(
    api: ApiServer, kube: Kube, told: dict[str, Any]
) -> None:
    api.schemas = told

    assert await unknown_fields(kube) == {}


def test_people_are_told_what_brings_the_definitions_of_this_release() -> None:
    said = sentence(
        "ForgeQueue", ["spec.tenants", "status.rival", "status.scaling"], "jobs", "forge-jobs-operator"
    )

    assert said == (
        "The definition of ForgeQueue in this cluster is of an earlier release, so that spec.tenants and 2 more fields "
        "cannot be said: `kubectl exec -n jobs deploy/forge-jobs-operator -- python -m forge_operator.crds --print | "
        "kubectl apply -f -` brings this release's."
    )


def test_the_operator_prints_its_definitions() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "forge_operator.crds", "--print"], capture_output=True, text=True, check=True
    )

    plain = [yaml.safe_load(text) for path, text in files().items() if path.startswith(f"{PLAIN}/")]
    assert list(yaml.safe_load_all(done.stdout)) == plain
