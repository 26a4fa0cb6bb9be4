"""What helm makes of the chart, for every switch, on the oldest and the newest Kubernetes."""

import base64
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from forge_jobs.settings import url_file
from forge_operator import naming
from forge_operator.cluster.objects import queue_object, selects
from forge_operator.environment import Environment
from forge_operator.plan.deployment.deployment import deployment_manifest
from forge_operator.specs import QueueSpec
from forge_operator.state.settings import OperatorSettings
from tests.chart.helm import (
    CHART,
    NAMESPACE,
    NEWEST,
    OLDEST,
    ROOT,
    Manifest,
    Refused,
    containers,
    environment,
    flags,
    helm,
    named,
    needs_helm,
    of_kind,
    pod_specs,
    render,
)
from tests.chart.kubernetes_types import mistakes
from tests.custom_resources import refusals
from tests.edges.rights import EVERYWHERE, OF_THE_LEASE, WITHOUT_DELETION_COST

pytestmark = needs_helm

EXTERNAL = {"database.existingSecret": "my-database"}
TRY_OUT = {"postgres.enabled": True}
EVERYTHING: dict[str, Any] = {
    **TRY_OUT,
    "watchNamespaces": ["shop", "mail"],
    "commonLabels": {"team": "shop"},
    "imagePullSecrets": [{"name": "registry"}],
    "operator.priorityClassName": "system-cluster-critical",
    "operator.env": [{"name": "FORGE_OPERATOR_WORKERS", "value": "8"}],
    "operator.annotations": {"reloader.stakater.com/auto": "true"},
    "operator.podLabels": {"a": "b"},
    "operator.podAnnotations": {"c": "d"},
    "operator.nodeSelector": {"kubernetes.io/os": "linux"},
    "operator.tolerations": [{"operator": "Exists"}],
    "operator.image.digest": "sha256:" + 64 * "0",
    "serviceAccount.annotations": {"e": "f"},
    "migration.createDatabase": True,
    "migration.podLabels": {"g": "h"},
    "migration.podAnnotations": {"i": "j"},
    "migration.nodeSelector": {"kubernetes.io/os": "linux"},
    "migration.tolerations": [{"operator": "Exists"}],
    "networkPolicy.restrictEgress": True,
    "networkPolicy.metricsFrom": [{"namespaceSelector": {}}],
    "metrics.operatorMonitor": "ServiceMonitor",
    "metrics.workerPodMonitor": True,
    "metrics.labels": {"release": "prometheus"},
    "metrics.relabelings": [{"targetLabel": "cluster", "replacement": "west"}],
    "metrics.metricRelabelings": [{"action": "labeldrop", "regex": "kind"}],
    "prometheusRule.enabled": True,
    "dashboard.enabled": True,
    "dashboard.annotations": {"grafana_folder": "Jobs"},
    "postgres.command": ["postgres"],
    "postgres.args": ["-c", "max_connections=200"],
    "postgres.env": [{"name": "TZ", "value": "UTC"}],
    "postgres.nodeSelector": {"kubernetes.io/os": "linux"},
    "postgres.tolerations": [{"operator": "Exists"}],
    "postgres.persistence.storageClass": "-",
}
CA: dict[str, Any] = {
    "extraVolumes": [{"name": "ca", "configMap": {"name": "database-ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/database-ca", "readOnly": True}],
    "env": [{"name": "PGSSLROOTCERT", "value": "/etc/database-ca/ca.crt"}],
    "envFrom": [{"secretRef": {"name": "proxy"}}, {"configMapRef": {"name": "site"}, "prefix": "SITE_"}],
}
PRIVATE_CA: dict[str, Any] = {
    **EXTERNAL,
    "migration.createDatabase": True,
    **{f"{part}.{key}": value for part in ("operator", "migration") for key, value in CA.items()},
}
NOTHING: dict[str, Any] = {
    **EXTERNAL,
    "crds.install": False,
    "rbac.create": False,
    "serviceAccount.create": False,
    "migration.enabled": False,
    "networkPolicy.enabled": False,
    "operator.podDisruptionBudget.enabled": False,
}
MATRIX = {
    "external": EXTERNAL,
    "try-out": TRY_OUT,
    "everything": EVERYTHING,
    "private-ca": PRIVATE_CA,
    "nothing": NOTHING,
    "external-with-egress": {
        **EXTERNAL,
        "networkPolicy.restrictEgress": True,
        "migration.createDatabase": True,
    },
    "volatile": {**TRY_OUT, "postgres.persistence.enabled": False, "networkPolicy.workers": False},
    "pod-monitor": {**EXTERNAL, "metrics.operatorMonitor": "PodMonitor", "rbac.aggregate": False},
}


@pytest.fixture(params=[OLDEST, NEWEST])
def kubernetes(request: pytest.FixtureRequest) -> str:
    """Gives a version of Kubernetes."""
    return str(request.param)


@pytest.fixture(params=MATRIX)
def objects(request: pytest.FixtureRequest, kubernetes: str) -> list[Manifest]:
    """Gives what the chart makes of some values."""
    return render(MATRIX[request.param], kubernetes=kubernetes)


def rights(*roles: Manifest) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def notes(values: dict[str, Any]) -> str:
    words = [
        "install",
        "forge-jobs",
        str(CHART),
        "--namespace",
        NAMESPACE,
        "--dry-run=client",
        *flags(values),
    ]
    return helm(*words).partition("\nNOTES:\n")[2]


def test_every_object_has_only_fields_that_the_api_knows(objects: list[Manifest]) -> None:
    assert [mistake for each in objects for mistake in mistakes(each)] == []


def test_every_object_is_there_once_and_says_whose_it_is(objects: list[Manifest]) -> None:
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]

    assert len(names) == len(set(names))
    for each in objects:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "forge-jobs", each["metadata"]["name"]
        if each["kind"] != "CustomResourceDefinition":
            assert labels["app.kubernetes.io/instance"] == "forge-jobs"


def test_every_pod_fits_the_restricted_standard(objects: list[Manifest]) -> None:
    for name, spec in pod_specs(objects).items():
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        for container in containers(spec):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
        for volume in spec.get("volumes", []):
            assert volume.keys() - {"name"} <= {"emptyDir", "secret", "configMap"}, name


def test_every_container_says_what_it_needs(objects: list[Manifest]) -> None:
    for name, spec in pod_specs(objects).items():
        for container in containers(spec):
            assert container["resources"]["requests"]["memory"], name
            assert container["resources"]["limits"]["memory"], name


def test_only_the_operator_has_a_token_of_the_api_server(objects: list[Manifest]) -> None:
    holders = [
        name for name, spec in pod_specs(objects).items() if spec.get("automountServiceAccountToken", True)
    ]

    assert holders == ["forge-jobs-operator"]


def test_no_role_has_a_right_on_secrets_or_on_everything(objects: list[Manifest]) -> None:
    for group, resource, verb in rights(*of_kind(objects, "Role", "ClusterRole")):
        assert "*" not in (group, resource, verb)
        assert not resource.startswith("secrets")


def test_the_address_of_the_database_is_in_no_object_but_a_secret(objects: list[Manifest]) -> None:
    for each in objects:
        if each["kind"] not in ("Secret", "CustomResourceDefinition"):
            assert "postgresql://" not in json.dumps(each), each["metadata"]["name"]
    for name, spec in pod_specs(objects).items():
        for container in containers(spec):
            url = environment(container).get("FORGE_DATABASE_URL")
            assert url is None or url.keys() == {"name", "valueFrom"}, name


def test_a_disruption_budget_is_of_the_version_that_the_cluster_has() -> None:
    versions = {
        kubernetes: of_kind(render(kubernetes=kubernetes), "PodDisruptionBudget")[0]["apiVersion"]
        for kubernetes in (OLDEST, "1.21.0", NEWEST)
    }

    assert versions == {OLDEST: "policy/v1beta1", "1.21.0": "policy/v1", NEWEST: "policy/v1"}


def test_kubernetes_before_1_20_is_refused() -> None:
    with pytest.raises(Refused, match=r"1\.20"):
        render(kubernetes="1.19.16")


def test_the_operator_has_the_rights_that_it_needs_and_no_others() -> None:
    assert rights(named(render(), "ClusterRole", "forge-jobs-operator")) == EVERYWHERE
    oldest = named(render(kubernetes=OLDEST), "ClusterRole", "forge-jobs-operator")
    assert rights(oldest) == EVERYWHERE | WITHOUT_DELETION_COST


def test_the_lease_is_the_operators_own_in_its_own_namespace() -> None:
    objects = render()
    role = named(objects, "Role", "forge-jobs-leader")
    create, rest = role["rules"]

    assert role["metadata"]["namespace"] == NAMESPACE
    assert create["verbs"] == ["create"]
    assert rest["resourceNames"] == ["forge-jobs-operator"]
    assert rights(role) == OF_THE_LEASE
    (operator,) = named(objects, "Deployment", "forge-jobs-operator")["spec"]["template"]["spec"][
        "containers"
    ]
    assert environment(operator)["FORGE_OPERATOR_LEASE"]["value"] == "forge-jobs-operator"


def test_two_releases_in_a_namespace_do_not_share_a_lease() -> None:
    objects = render({**EXTERNAL}, release="other")
    (operator,) = named(objects, "Deployment", "other-forge-jobs-operator")["spec"]["template"]["spec"][
        "containers"
    ]

    assert environment(operator)["FORGE_OPERATOR_LEASE"]["value"] == "other-forge-jobs-operator"


def test_an_operator_of_some_namespaces_has_rights_nowhere_else() -> None:
    objects = render({**EXTERNAL, "watchNamespaces": ["shop", "mail"], "rbac.aggregate": False})
    roles = of_kind(objects, "Role")
    bindings = of_kind(objects, "RoleBinding")

    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")
    places = [(each["metadata"]["namespace"], each["metadata"]["name"]) for each in roles]
    assert sorted(places) == [
        ("jobs", "forge-jobs-leader"),
        ("mail", "forge-jobs-operator"),
        ("shop", "forge-jobs-operator"),
    ]
    assert sorted(each["metadata"]["namespace"] for each in bindings) == ["jobs", "mail", "shop"]
    for each in bindings:
        assert each["subjects"] == [
            {"kind": "ServiceAccount", "name": "forge-jobs-operator", "namespace": "jobs"}
        ]


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_roles_of_the_cluster_get_rights_on_queues_and_crons(role: str) -> None:
    found = named(render(), "ClusterRole", f"forge-jobs-{role}")

    assert found["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{role}"] == "true"
    verbs = {verb for _, resource, verb in rights(found) if resource == "forgequeues"}
    reads = {"get", "list", "watch"}
    assert verbs == (reads if role == "view" else {"create", "update", "patch", "delete", "deletecollection"})


@pytest.mark.parametrize("values", [EXTERNAL, EVERYTHING], ids=["external", "everything"])
def test_the_operator_understands_its_environment(values: dict[str, Any], tmp_path: Path) -> None:
    (operator,) = named(render(values), "Deployment", "forge-jobs-operator")["spec"]["template"]["spec"][
        "containers"
    ]
    said = {key: each.get("value", "from-elsewhere") for key, each in environment(operator).items()}
    said["FORGE_DATABASE_URL_FILE"] = str(tmp_path / "url")
    (tmp_path / "url").write_text("postgresql://forge@there/forge")
    known = (ROOT / "operator/forge_operator/environment.py").read_text()

    loaded = Environment.load(said)

    assert [key for key in said if f'"{key}"' not in known and key != url_file.VARIABLE] == []
    assert loaded.namespaces == tuple(values.get("watchNamespaces", ()))
    assert loaded.pools.metrics_port == 9090
    assert loaded.pools.database.name == ("my-database" if values is EXTERNAL else "forge-jobs-database")
    assert loaded.pools.database.key == "url"
    assert loaded.log_format == "json"


@pytest.mark.parametrize(("values", "expected"), [({}, "8"), ({"workers.connections": 0}, "0")])
def test_the_operator_is_told_how_many_connections_a_worker_opens(
    values: dict[str, Any], expected: str
) -> None:
    operator = named(render({**EXTERNAL, **values}), "Deployment", "forge-jobs-operator")
    (container,) = operator["spec"]["template"]["spec"]["containers"]

    assert environment(container)["FORGE_OPERATOR_CONNECTIONS_PER_WORKER"]["value"] == expected


def test_worker_pods_may_read_the_address_from_another_secret() -> None:
    values = {**EXTERNAL, "database.workers.existingSecret": "few-rights", "database.workers.key": "dsn"}
    (operator,) = named(render(values), "Deployment", "forge-jobs-operator")["spec"]["template"]["spec"][
        "containers"
    ]
    said = environment(operator)

    assert said["FORGE_OPERATOR_DATABASE_SECRET"]["value"] == "few-rights"
    assert said["FORGE_OPERATOR_DATABASE_KEY"]["value"] == "dsn"
    assert said["FORGE_DATABASE_URL"]["valueFrom"] == {"secretKeyRef": {"name": "my-database", "key": "url"}}


@pytest.mark.parametrize("values", [EXTERNAL, EVERYTHING], ids=["external", "everything"])
def test_the_operator_reads_the_address_from_a_file_that_follows_the_secret(values: dict[str, Any]) -> None:
    spec = named(render(values), "Deployment", "forge-jobs-operator")["spec"]["template"]["spec"]
    (operator,) = spec["containers"]
    (volume,) = (each for each in spec["volumes"] if "secret" in each)
    (mount,) = (each for each in operator["volumeMounts"] if each["name"] == volume["name"])
    said = environment(operator)

    reference = said["FORGE_DATABASE_URL"]["valueFrom"]["secretKeyRef"]
    assert volume["secret"]["secretName"] == reference["name"]
    assert volume["secret"]["items"] == [{"key": reference["key"], "path": "url"}]
    assert said["FORGE_DATABASE_URL_FILE"]["value"] == f"{mount['mountPath']}/url"
    assert "subPath" not in mount  # which would stay as it was when the pod started


def test_a_private_ca_reaches_every_container_that_opens_the_database() -> None:
    objects = render(PRIVATE_CA)
    opening = {
        name: [each for each in containers(spec) if "FORGE_DATABASE_URL" in environment(each)]
        for name, spec in pod_specs(objects).items()
    }

    assert {name: len(each) for name, each in opening.items()} == {
        "forge-jobs-operator": 1,
        "forge-jobs-migration": 2,
        "forge-jobs-test-database": 1,
        "forge-jobs-test-operator": 0,
    }
    for name, found in opening.items():
        for each in found:
            assert CA["extraVolumeMounts"][0] in each["volumeMounts"]
            assert {"name": "tmp", "mountPath": "/tmp"} in each["volumeMounts"]
            assert environment(each)["PGSSLROOTCERT"]["value"] == "/etc/database-ca/ca.crt"
            assert each["envFrom"] == CA["envFrom"]
            assert CA["extraVolumes"][0] in pod_specs(objects)[name]["volumes"]


def test_annotations_of_the_deployment_are_not_those_of_its_pods() -> None:
    values = {**EXTERNAL, "operator.annotations": {"a": "1"}, "operator.podAnnotations": {"b": "2"}}
    found = named(render(values), "Deployment", "forge-jobs-operator")

    assert found["metadata"]["annotations"] == {"a": "1"}
    assert found["spec"]["template"]["metadata"]["annotations"] == {
        "b": "2",
        "kubectl.kubernetes.io/default-container": "operator",
    }


def test_further_objects_are_filled_in_as_a_manifest_and_as_a_text() -> None:
    secret = {"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret"}
    secret |= {"metadata": {"name": "{{ .Release.Name }}-database"}, "spec": {"count": 2}}
    text = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: of-{{ .Values.database.schema }}\n"
        '  labels: {{ include "forge-jobs.labels" (list . "site") | nindent 4 }}\n'
    )
    objects = render({**EXTERNAL, "database.schema": "shop", "extraObjects": [secret, text]})

    assert named(objects, "ExternalSecret", "forge-jobs-database")["spec"] == {"count": 2}
    labels = named(objects, "ConfigMap", "of-shop")["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "site"


def test_an_external_database_is_migrated_before_the_release() -> None:
    job = named(render(EXTERNAL), "Job", "forge-jobs-migration")
    annotations = job["metadata"]["annotations"]

    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    spec = job["spec"]["template"]["spec"]
    # Nothing else of the release is there yet.
    assert "serviceAccountName" not in spec
    assert "initContainers" not in spec
    assert spec["containers"][0]["command"] == ["forge-jobs", "db", "migrate"]


def test_the_policy_of_the_migration_is_there_before_it() -> None:
    objects = render({**EXTERNAL, "networkPolicy.restrictEgress": True})
    weights = [
        int(named(objects, kind, "forge-jobs-migration")["metadata"]["annotations"]["helm.sh/hook-weight"])
        for kind in ("NetworkPolicy", "Job")
    ]

    assert weights == [-5, 0]


def test_the_try_out_database_is_migrated_beside_the_release() -> None:
    (job,) = of_kind(render(TRY_OUT), "Job")

    assert "annotations" not in job["metadata"]
    wait, *_ = job["spec"]["template"]["spec"]["initContainers"]
    assert "forge-jobs db status" in wait["command"][-1]


def test_another_migration_is_another_job() -> None:
    """The spec of a Job cannot be changed: an upgrade would be refused."""
    names = {
        of_kind(render({**TRY_OUT, "workerImage.tag": tag}), "Job")[0]["metadata"]["name"]
        for tag in ("1", "2", "2")
    }

    assert len(names) == 2


def test_a_release_has_one_database_and_says_which_is_missing() -> None:
    with pytest.raises(Refused, match="Where is the database"):
        render({})
    with pytest.raises(Refused, match="a release has one database"):
        render({**EXTERNAL, **TRY_OUT})


def test_the_try_out_postgres_says_that_it_is_not_for_production() -> None:
    postgres = named(render(TRY_OUT), "StatefulSet", "forge-jobs-postgres")

    for metadata in (postgres["metadata"], postgres["spec"]["template"]["metadata"]):
        assert "not for production" in metadata["annotations"]["forge-jobs.dev/purpose"]


def test_the_try_out_postgres_is_waited_for_by_a_probe_that_does_not_fail_meanwhile() -> None:
    """Kubernetes writes a Warning for each that fails."""
    postgres = named(render(TRY_OUT), "StatefulSet", "forge-jobs-postgres")
    (container,) = postgres["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    seconds = int(re.search(r"seq (\d+)", probe["exec"]["command"][-1])[1])  # type: ignore[index]

    assert seconds < probe["timeoutSeconds"]
    assert probe["failureThreshold"] * seconds >= 300


def test_data_outside_of_the_volume_is_refused() -> None:
    with pytest.raises(Refused, match="would not be on the volume"):
        render({**TRY_OUT, "postgres.dataDirectory": "/elsewhere"})


def test_the_password_belongs_to_no_revision_of_the_release() -> None:
    secret = named(render(TRY_OUT), "Secret", "forge-jobs-database")

    assert secret["metadata"]["annotations"] == {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-weight": "-20",
    }
    values = secret["stringData"]
    assert values["url"] == f"postgresql://forge:{values['password']}@forge-jobs-postgres.jobs.svc:5432/forge"
    assert len(values["password"]) == 32


def test_a_secret_of_ones_own_replaces_the_random_password() -> None:
    objects = render({**TRY_OUT, "postgres.existingSecret": "mine"})
    references = json.dumps([*pod_specs(objects).values()])

    assert not of_kind(objects, "Secret")
    assert "forge-jobs-database" not in references


def test_custom_resource_definitions_stay_and_can_be_left_out() -> None:
    definitions = of_kind(render(EXTERNAL), "CustomResourceDefinition")

    assert {each["spec"]["names"]["kind"] for each in definitions} == {"ForgeQueue", "ForgeCron"}
    for each in definitions:
        assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not of_kind(render(NOTHING), "CustomResourceDefinition")


def test_what_is_switched_off_is_not_there() -> None:
    assert sorted(each["kind"] for each in render(NOTHING)) == ["Deployment", "Pod", "Pod", "Service"]


def test_operators_prefer_to_be_apart_and_may_be_evicted_one_at_a_time() -> None:
    objects = render(EXTERNAL)
    deployment = named(objects, "Deployment", "forge-jobs-operator")["spec"]
    spec = deployment["template"]["spec"]

    assert deployment["replicas"] == 2
    assert "preferredDuringSchedulingIgnoredDuringExecution" in spec["affinity"]["podAntiAffinity"]
    assert spec["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "ScheduleAnyway"
    budget = named(objects, "PodDisruptionBudget", "forge-jobs-operator")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == deployment["selector"]


def test_selectors_find_their_pods_and_no_others() -> None:
    objects = render({**EVERYTHING, "metrics.operatorMonitor": "PodMonitor"})
    templates = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in of_kind(objects, "Deployment", "StatefulSet", "Job")
    }

    def found(selector: dict[str, str]) -> list[str]:
        return [name for name, labels in templates.items() if selector.items() <= labels.items()]

    for name in ("forge-jobs-operator", "forge-jobs-postgres"):
        assert found(named(objects, "Service", name)["spec"]["selector"]) == [name]
        assert found(named(objects, "NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"]) == [name]
    monitor = named(objects, "PodMonitor", "forge-jobs-operator")
    assert found(monitor["spec"]["selector"]["matchLabels"]) == ["forge-jobs-operator"]


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor"])
def test_one_monitor_finds_the_operator(kind: str) -> None:
    objects = render(
        {**EXTERNAL, "metrics.operatorMonitor": kind, "metrics.labels": {"release": "prometheus"}}
    )
    (monitor,) = of_kind(objects, "ServiceMonitor", "PodMonitor")

    assert monitor["kind"] == kind
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["endpoints" if kind == "ServiceMonitor" else "podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"


def test_workers_are_monitored_wherever_they_are() -> None:
    everywhere = render({**EXTERNAL, "metrics.workerPodMonitor": True})
    somewhere = render({**EXTERNAL, "metrics.workerPodMonitor": True, "watchNamespaces": ["shop"]})

    assert named(everywhere, "PodMonitor", "forge-jobs-workers")["spec"]["namespaceSelector"] == {"any": True}
    assert named(somewhere, "PodMonitor", "forge-jobs-workers")["spec"]["namespaceSelector"] == {
        "matchNames": ["shop"]
    }


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor"])
def test_monitors_say_whose_database_it_is_and_relabel_as_asked(kind: str) -> None:
    cluster = {"targetLabel": "cluster", "replacement": "west"}
    drop = {"sourceLabels": ["__name__"], "regex": "process_.*", "action": "drop"}
    values = {"metrics.operatorMonitor": kind, "metrics.workerPodMonitor": True}
    values |= {"metrics.relabelings": [cluster], "metrics.metricRelabelings": [drop]}
    monitors = of_kind(render({**EXTERNAL, **values}), "ServiceMonitor", "PodMonitor")
    plain = of_kind(render({**EXTERNAL, "metrics.workerPodMonitor": True}), "PodMonitor")

    assert len(monitors) == 2
    for each in monitors:
        (endpoint,) = each["spec"].get("endpoints") or each["spec"]["podMetricsEndpoints"]
        assert endpoint["relabelings"] == [
            {"targetLabel": "database", "replacement": "jobs/forge-jobs"},
            cluster,
        ]
        assert endpoint["metricRelabelings"] == [drop]
        assert endpoint["interval"] == "30s"
    assert "metricRelabelings" not in plain[0]["spec"]["podMetricsEndpoints"][0]


def test_a_closed_operator_still_reaches_what_it_needs() -> None:
    objects = render({**EXTERNAL, "networkPolicy.restrictEgress": True, "networkPolicy.databasePort": 6432})
    policy = named(objects, "NetworkPolicy", "forge-jobs-operator")["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert ports == {53, 6432, 443, 6443}
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == [8080]


def test_the_charts_own_test_reaches_an_operator_that_few_may_reach() -> None:
    prometheus = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
    objects = render({**EXTERNAL, "networkPolicy.metricsFrom": [prometheus]})
    (rule,) = named(objects, "NetworkPolicy", "forge-jobs-operator")["spec"]["ingress"]
    labels = named(objects, "Pod", "forge-jobs-test-operator")["metadata"]["labels"]

    assert prometheus in rule["from"]
    (own,) = [each["podSelector"]["matchLabels"] for each in rule["from"] if "podSelector" in each]
    assert own.items() <= labels.items()


def test_the_charts_tests_run_where_the_migration_may_run() -> None:
    tolerations = [{"key": "dedicated", "operator": "Exists"}]
    values = {"migration.nodeSelector": {"pool": "jobs"}, "migration.tolerations": tolerations}
    tests = of_kind(render({**EXTERNAL, **values}), "Pod")

    assert len(tests) == 2
    for each in tests:
        assert each["spec"]["nodeSelector"] == {"pool": "jobs"}
        assert each["spec"]["tolerations"] == tolerations


def test_workers_are_closed_in_each_namespace_that_is_watched() -> None:
    objects = render({**EXTERNAL, "watchNamespaces": ["shop", "mail"]})
    found = [
        each for each in of_kind(objects, "NetworkPolicy") if each["metadata"]["name"].endswith("-workers")
    ]

    assert [each["metadata"]["namespace"] for each in found] == ["shop", "mail"]


def test_workers_are_found_whatever_their_template_calls_them() -> None:
    objects = render({**TRY_OUT, "metrics.workerPodMonitor": True})
    called = {
        "app.kubernetes.io/name": "shop",
        "app.kubernetes.io/part-of": "shop",
        "app.kubernetes.io/managed-by": "x",
    }
    template = {
        "metadata": {"labels": called},
        "spec": {"containers": [{"name": "worker", "image": "shop:1"}]},
    }
    owner = queue_object(
        {
            "metadata": {"namespace": "shop", "name": "mail", "uid": "u"},
            "spec": {"workers": {"version": "1", "template": template}},
        }
    )
    assert isinstance(owner.spec, QueueSpec) and owner.spec.workers is not None
    version = naming.identity(owner.uid, owner.spec.workers)
    made = deployment_manifest(owner, owner.spec.workers, version, "mail", OperatorSettings())
    labels = made["spec"]["template"]["metadata"]["labels"]

    assert called.items() <= labels.items()
    policy, monitor = (
        named(objects, kind, "forge-jobs-workers")["spec"] for kind in ("NetworkPolicy", "PodMonitor")
    )
    (database,) = named(objects, "NetworkPolicy", "forge-jobs-postgres")["spec"]["ingress"]
    from_elsewhere = [each["podSelector"] for each in database["from"] if "namespaceSelector" in each]
    assert finds(policy["podSelector"], labels)
    assert finds(monitor["selector"], labels)
    assert any(finds(selector, labels) for selector in from_elsewhere)


def finds(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether a selector finds what has these labels."""
    return selects({"spec": {"selector": selector}}, labels)


def test_an_alert_can_be_changed_and_left_out() -> None:
    values = {
        **EXTERNAL,
        "prometheusRule.enabled": True,
        "prometheusRule.alertLabels": {"team": "platform"},
        "prometheusRule.disabled": ["ForgeCronDisabled"],
        "prometheusRule.overrides": {"ForgeNoLeader": {"for": "9m", "labels": {"severity": "info"}}},
    }
    groups = named(render(values), "PrometheusRule", "forge-jobs")["spec"]["groups"]
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    original = yaml.safe_load((CHART / "alerts/forge-jobs.yaml").read_text())["groups"]

    assert [group["name"] for group in groups] == [group["name"] for group in original]
    assert len(rules) == sum(len(group["rules"]) for group in original) - 1
    assert rules["ForgeNoLeader"]["for"] == "9m"
    assert rules["ForgeNoLeader"]["labels"] == {"severity": "info", "team": "platform"}
    assert rules["ForgeQueueBehind"]["labels"] == {"severity": "warning", "team": "platform"}
    assert "{{ $labels.queue }}" in rules["ForgeQueueBehind"]["annotations"]["summary"]


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        (None, "https://forge-jobs.dev/docs/runbooks#forgenoleader"),
        ("https://wiki.example.com/forge", "https://wiki.example.com/forge#forgenoleader"),
        ("", None),
    ],
)
def test_alerts_link_to_the_runbooks_wherever_they_are(base: str | None, expected: str | None) -> None:
    given = {} if base is None else {"prometheusRule.runbookUrl": base}
    groups = named(
        render({**EXTERNAL, "prometheusRule.enabled": True, **given}), "PrometheusRule", "forge-jobs"
    )["spec"]["groups"]
    rules = {rule["alert"]: rule["annotations"] for group in groups for rule in group["rules"]}

    assert rules["ForgeNoLeader"].get("runbook_url") == expected
    assert len({each.get("runbook_url") for each in rules.values()}) == (len(rules) if expected else 1)
    assert "{{ $labels.queue }}" in rules["ForgeQueueBehind"]["summary"]


def test_the_chart_says_where_it_comes_from_and_shows_its_icon_without_a_network() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    kind, _, data = about["icon"].partition(",")

    assert about["home"] and about["sources"] and about["maintainers"]
    assert kind == "data:image/svg+xml;base64"
    assert ElementTree.fromstring(base64.b64decode(data)).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_dashboard_is_found_by_the_sidecar_and_whole() -> None:
    found = named(render({**EXTERNAL, "dashboard.enabled": True}), "ConfigMap", "forge-jobs-dashboard")

    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert (
        found["data"]["forge-jobs.json"].strip() == (CHART / "dashboards/forge-jobs.json").read_text().strip()
    )


def test_names_stay_short_enough_whatever_the_release_is_called() -> None:
    objects = render(TRY_OUT, release=53 * "r")
    own = [each for each in objects if each["kind"] != "CustomResourceDefinition"]

    assert max(len(each["metadata"]["name"]) for each in own) <= 63
    for each in own:
        assert max(len(value) for value in each["metadata"]["labels"].values()) <= 63


@pytest.mark.parametrize("values", [EXTERNAL, EVERYTHING], ids=["external", "everything"])
def test_the_chart_is_linted_without_a_warning(values: dict[str, Any]) -> None:
    helm("lint", "--strict", "--quiet", str(CHART), *flags(values))


def test_the_notes_name_the_next_commands() -> None:
    external = notes({**EXTERNAL, "watchNamespaces": ["shop"]})
    try_out = notes(TRY_OUT)

    for text in (external, try_out):
        assert "helm -n jobs test forge-jobs" in text
        assert "jobs exec deployment/forge-jobs-operator -- forge-jobs enqueue" in text
        assert "kind: ForgeQueue" in text
    assert "NOT FOR PRODUCTION" in try_out
    assert "PRODUCTION" not in external
    assert "kubectl -n shop apply -f -" in external


@pytest.mark.parametrize("values", [EXTERNAL, EVERYTHING], ids=["external", "everything"])
def test_commands_of_the_notes_can_be_pasted(values: dict[str, Any]) -> None:
    """A shell knows the end of a document only at the beginning of a line."""
    document = re.search(r"^kubectl .*<<'END'\n(.*?)^END$", notes(values), flags=re.MULTILINE | re.DOTALL)

    assert document
    resource = yaml.safe_load(document[1])
    assert refusals(resource) == []
    pods = resource["spec"]["workers"]["template"]["spec"]
    assert pods.get("imagePullSecrets", []) == values.get("imagePullSecrets", [])
