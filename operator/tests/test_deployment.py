"""The manifest of a version's Deployment."""

from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Settings
from forge_jobs.settings.database_file import OUTSIDE_THE_POOL
from forge_operator import naming
from forge_operator.plan.deployment.deployment import deployment_manifest
from forge_operator.specs import QueueSpec
from forge_operator.specs.section import read
from forge_operator.state.observed import QueueObject
from forge_operator.state.settings import OperatorSettings, SecretKey
from tests.world import POOL, workers


def manifest(settings: OperatorSettings | None = None, **said: Any) -> dict[str, Any]:
    spec = read(QueueSpec, {"workers": workers() | said}, "spec")
    owner = QueueObject(namespace="shop", name="mail", uid=POOL, generation=1, spec=spec)
    assert spec.workers is not None
    identity = naming.identity(POOL, spec.workers)
    name = naming.deployment_name("mail", spec.workers.version, identity.id)
    return deployment_manifest(owner, spec.workers, identity, name, settings or OperatorSettings())


def container(found: dict[str, Any], number: int = 0) -> dict[str, Any]:
    containers: list[dict[str, Any]] = found["spec"]["template"]["spec"]["containers"]
    return containers[number]


def variables(found: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(found)["env"]}


def with_container(**said: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "worker", "image": "shop:1"} | said]}}


def test_it_says_nothing_of_replicas_so_that_applying_it_never_scales() -> None:
    assert "replicas" not in manifest()["spec"]


def test_it_belongs_to_its_forge_queue_without_holding_up_the_deletion_of_that() -> None:
    (owner,) = manifest()["metadata"]["ownerReferences"]

    assert owner["kind"] == "ForgeQueue"
    assert owner["uid"] == POOL
    assert owner["blockOwnerDeletion"] is False


def test_its_selector_finds_its_pods_and_holds_nothing_that_people_choose() -> None:
    labels = {"team": "shop", naming.POOL_UID: "stolen"}
    found = manifest(template=with_container() | {"metadata": {"labels": {"team": "shop"}}})

    selector = found["spec"]["selector"]["matchLabels"]
    pod = found["spec"]["template"]["metadata"]["labels"]

    assert set(selector) == {naming.POOL_UID, naming.VERSION_ID}
    assert selector.items() <= pod.items()
    assert pod["team"] == labels["team"]


def test_a_worker_is_told_who_it_is_and_what_it_serves() -> None:
    found = manifest(version="3+build.9", queues=["fax", "mail"], slots=7)
    told = variables(found)

    assert told["FORGE_QUEUES"] == "mail,fax"
    assert told["FORGE_CONCURRENCY"] == "7"
    assert told["FORGE_POOL_UID"] == POOL
    assert told["FORGE_WORKER_VERSION"] == "3-build.9"
    assert told["FORGE_WORKER_VERSION_ID"] == found["metadata"]["labels"][naming.VERSION_ID]
    assert told["FORGE_DEPLOYMENT"] == found["metadata"]["name"]
    assert told["FORGE_AUTO_MIGRATE"] == "false"
    assert told["FORGE_POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert set(naming.INJECTED) <= set(told)


def test_the_address_of_the_database_comes_from_a_secret_only() -> None:
    settings = OperatorSettings(database=SecretKey("pg", "dsn"))

    found = manifest(settings)
    told, pod = variables(found), found["spec"]["template"]["spec"]

    assert told["FORGE_DATABASE_URL"] == {"secretKeyRef": {"name": "pg", "key": "dsn"}}
    secret = {"secretName": "pg", "items": [{"key": "dsn", "path": "url"}], "optional": True}
    assert {"name": "forge-database", "secret": secret} in pod["volumes"]


def test_a_worker_reads_the_address_from_a_file_that_follows_the_secret() -> None:
    found = manifest()
    (mount,) = (each for each in container(found)["volumeMounts"] if each["name"] == "forge-database")

    assert variables(found)["FORGE_DATABASE_URL_FILE"] == f"{mount['mountPath']}/url"
    assert "subPath" not in mount  # which would stay as it was when the pod started


def test_it_fits_the_restricted_pod_security_standard() -> None:
    found = manifest()
    pod = found["spec"]["template"]["spec"]
    worker = container(found)["securityContext"]

    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert worker["allowPrivilegeEscalation"] is False
    assert worker["capabilities"] == {"drop": ["ALL"]}
    assert worker["readOnlyRootFilesystem"] is True
    assert {"name": "forge-tmp", "mountPath": "/tmp"} in container(found)["volumeMounts"]
    assert {"name": "forge-tmp", "emptyDir": {}} in pod["volumes"]


def test_other_containers_are_restricted_too() -> None:
    sidecar = {"name": "proxy", "image": "proxy:1"}
    template = {"spec": {"containers": [{"name": "worker", "image": "shop:1"}, sidecar]}}

    found = manifest(template=template)

    assert container(found, 1)["securityContext"]["allowPrivilegeEscalation"] is False
    assert "env" not in container(found, 1)


def test_what_the_template_says_stands() -> None:
    template = with_container(
        env=[{"name": "FORGE_METRICS_PORT", "value": "7000"}, {"name": "FORGE_LOG_FORMAT", "value": "text"}],
        securityContext={"readOnlyRootFilesystem": False, "runAsUser": 7},
        readinessProbe={"exec": {"command": ["true"]}},
    )
    template["spec"] |= {"terminationGracePeriodSeconds": 600, "securityContext": {"runAsNonRoot": False}}

    found = manifest(template=template)
    worker, told = container(found), variables(found)

    assert found["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 600
    assert found["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is False
    assert worker["securityContext"]["runAsUser"] == 7
    assert worker["readinessProbe"] == {"exec": {"command": ["true"]}}
    assert worker["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 7000}
    assert told["FORGE_LOG_FORMAT"] == "text"
    assert [each["name"] for each in worker["volumeMounts"]] == ["forge-database"]


def test_a_worker_hands_back_its_jobs_before_its_grace_is_over() -> None:
    plain = manifest()

    assert plain["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 120
    assert variables(plain)["FORGE_GRACE_SECONDS"] == "110"


@pytest.mark.parametrize(
    ("of_the_pod", "of_jobs"), [(0, 0), (1, 1), (5, 3), (20, 10), (30, 20), (86_400, 86_390)]
)
def test_a_short_grace_is_shared_by_jobs_and_the_last_writes(of_the_pod: int, of_jobs: int) -> None:
    found = manifest(OperatorSettings(grace_seconds=of_the_pod))

    assert variables(found)["FORGE_GRACE_SECONDS"] == str(of_jobs)


def test_a_worker_opens_no_more_connections_than_are_counted(tmp_path: Path) -> None:
    told = variables(manifest(OperatorSettings(connections_per_worker=8)))
    file = tmp_path / "url"
    file.write_text("postgresql://db/forge")
    found = Settings.load({**texts(told), "FORGE_DATABASE_URL_FILE": str(file)})

    assert found.storage_options["pool_size"] + OUTSIDE_THE_POOL == 8
    assert "FORGE_MAX_CONNECTIONS" not in variables(manifest(OperatorSettings(connections_per_worker=0)))


def texts(told: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in told.items() if isinstance(value, str)}


def test_probes_ask_the_worker_itself() -> None:
    worker = container(manifest(OperatorSettings(metrics_port=9100)))

    assert worker["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 9100}
    assert worker["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 9100}
    assert worker["ports"] == [{"name": "metrics", "containerPort": 9100, "protocol": "TCP"}]


def test_no_probe_asks_a_worker_that_has_just_been_started() -> None:
    """Kubernetes writes a Warning for each that fails."""
    worker = container(manifest())

    assert worker["readinessProbe"]["initialDelaySeconds"] < worker["readinessProbe"]["periodSeconds"]
    assert worker["livenessProbe"]["initialDelaySeconds"] >= worker["livenessProbe"]["periodSeconds"]


def test_pods_are_spread_over_nodes_if_that_is_set() -> None:
    plain, spread = manifest(), manifest(OperatorSettings(topology_spread=True))

    assert "topologySpreadConstraints" not in plain["spec"]["template"]["spec"]
    (constraint,) = spread["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"


def test_the_template_of_the_object_is_not_changed_by_making_a_manifest() -> None:
    template = with_container()

    manifest(template=template)

    assert template == with_container()


def test_a_connection_hash_rolls_the_pods_in_place() -> None:
    found = manifest(OperatorSettings(connection_hash="abc"))

    assert found["metadata"]["annotations"][naming.CONNECTION_HASH] == "abc"
    assert found["spec"]["template"]["metadata"]["annotations"][naming.CONNECTION_HASH] == "abc"
    assert found["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_its_own_place_for_temporary_files_keeps_no_node_from_being_scaled_down() -> None:
    """The cluster autoscaler would keep a node for any volume that is on it."""
    name = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
    said = manifest()["spec"]["template"]["metadata"]["annotations"]
    theirs = with_container() | {"metadata": {"annotations": {name: "cache"}}}
    of_people = manifest(template=theirs)["spec"]["template"]["metadata"]["annotations"]

    assert said == {name: "forge-tmp"}
    assert of_people == {name: "cache"}
