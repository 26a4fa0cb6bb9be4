"""A cluster with the release in it, made once by README's own commands, and a namespace for each situation.

FORGE_E2E_CLUSTER=name       use that kind cluster, and whatever release is in it
FORGE_E2E_KEEP=1             leave the cluster behind
FORGE_E2E_POSTGRES_IMAGE=... the try-out PostgreSQL's image, if the official one cannot be pulled
"""

import os
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import readme
from tests.e2e.cluster import MANIFESTS, Cluster, CommandFailed, Operator, short_name
from tests.e2e.database import LEDGER, Database
from tests.e2e.shell import ROOT, missing, run
from tests.e2e.waiting import eventually

HERE = Path(__file__).parent
PROGRAMS = ("kind", "docker", "kubectl", "helm")
POSTGRES = "postgres:17"  # what the chart asks for
HANDLERS = "forge-jobs-e2e-handlers:1"
BUILT_POSTGRES = "forge-jobs-e2e-postgres:1"
VOLUME = "forge-jobs-e2e-postgres"
SECRET = "forge-jobs-database"

# Light ones first, so that a broken release is told of early; the last one takes the release away.
ORDER = (
    "queue_applied",
    "configuration_change",
    "invalid_queue",
    "two_owners",
    "rollout",
    "rollback",
    "scale",
    "worker_deleted",
    "cron",
    "operator_killed",
    "operator_frozen",
    "postgres_restarted",
    "namespace_deleted",
    "footprint",
    "upgrade_uninstall",
)

numbers: list[tuple[str, str]] = []
began = time.monotonic()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if HERE in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.timeout(600))
        if absent := missing(PROGRAMS):
            item.add_marker(pytest.mark.skip(reason=f"not on PATH: {', '.join(absent)}"))
    places = {f"test_{name}": place for place, name in enumerate(ORDER)}
    here.sort(key=lambda item: places.get(item.path.stem, len(ORDER)))
    items[:] = [item for item in items if item not in here] + here


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.failed and (space := getattr(item, "funcargs", {}).get("space")) is not None:
        report.sections.append(("the namespace", state_of(space)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if numbers:
        terminalreporter.section("measured")
        for name, value in numbers:
            terminalreporter.write_line(f"{name:<68} {value}")


@pytest.fixture(scope="session")
def measure() -> Callable[[str, str], None]:
    """Gives a function that has a number printed at the end."""
    return lambda name, value: numbers.append((name, value))


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Gives a function that prints a line at once: what is being made takes minutes."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def print_now(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n[{time.monotonic() - began:5.0f} s] {line}", end="", flush=True)

    return print_now


@pytest.fixture(scope="session")
def installed(say: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Gives the namespace of the release: README's commands up to helm's have been run."""
    cluster = Cluster("default", tmp_path_factory.mktemp("kubeconfig") / "config")
    kept = os.environ.get("FORGE_E2E_CLUSTER")
    made = False  # a cluster that somebody else made is never deleted
    try:
        for command in _until_installed():
            if kept and command.startswith("kind create"):
                say(f"using the cluster {kept}")
                run(["kind", "export", "kubeconfig", "--name", kept], environment=_environment(cluster))
            elif kept and command.startswith("helm install") and _is_installed(cluster):
                _prepare(cluster, say)
                say("using the release that is there, with the images that were built now")
                cluster.kubectl("rollout", "restart", "deployment/forge-jobs-operator")
                Operator(cluster).is_ready()
                cluster.kubectl("exec", "deployment/forge-jobs-operator", "--", "forge-jobs", "db", "migrate")
            else:
                if command.startswith("helm install"):
                    _prepare(cluster, say)
                say(command)
                run(command, environment=_environment(cluster), timeout=900)
                made = made or command.startswith("kind create")
        eventually(lambda: Database(cluster).execute(LEDGER) == "", within=120, what="there is a ledger")
        Operator(cluster).is_ready()
        yield cluster
    finally:
        if made and not os.environ.get("FORGE_E2E_KEEP"):
            say("deleting the cluster")
            run(["kind", "delete", "cluster", "--name", _name()], environment=_environment(cluster))


def _until_installed() -> list[str]:
    commands = readme.commands()
    (last,) = [place for place, each in enumerate(commands) if each.startswith("helm install")]
    return commands[: last + 1]


def _name() -> str:
    return os.environ.get("KIND_CLUSTER_NAME", "kind")


def _environment(cluster: Cluster) -> dict[str, str]:
    return {**cluster.environment, "KIND_CLUSTER_NAME": os.environ.get("FORGE_E2E_CLUSTER", _name())}


def _is_installed(cluster: Cluster) -> bool:
    try:
        return '"deployed"' in cluster.helm("status", "forge-jobs", "-o", "json")
    except CommandFailed:
        return False


def _prepare(cluster: Cluster, say: Callable[[str], None]) -> None:
    """The cluster has what a machine with a registry and a storage class would have by itself."""
    environment = _environment(cluster)
    say("building the image with the suite's handlers")
    run(
        ["docker", "build", "-t", HANDLERS, str(HERE / "images/handlers")],
        environment=environment,
        timeout=600,
    )
    _postgres(say, environment)
    for image in (HANDLERS, POSTGRES):
        run(
            ["kind", "load", "docker-image", image, "--name", environment["KIND_CLUSTER_NAME"]],
            environment=environment,
            timeout=300,
        )
    classes = cluster.all("storageclasses")
    has_class = any("is-default-class" in str(each["metadata"].get("annotations")) for each in classes)
    if not has_class and not cluster.exists("persistentvolume", VOLUME):
        say("making a volume, as there is no storage class")
        node = cluster.into("kube-system")
        node.apply(*yaml.safe_load_all((MANIFESTS / "volume.yaml").read_text()))
        eventually(
            lambda: node.get("pod", "forge-jobs-e2e-volume")["status"]["phase"] == "Succeeded",
            within=120,
            what="the volume is made",
        )
        node.delete("pod", "forge-jobs-e2e-volume", wait=False)


def _postgres(say: Callable[[str], None], environment: dict[str, str]) -> None:
    """An image of PostgreSQL is on this machine under the name that the chart asks for."""
    if given := os.environ.get("FORGE_E2E_POSTGRES_IMAGE"):
        run(["docker", "tag", given, POSTGRES], environment=environment)
        return
    if BUILT_POSTGRES.partition(":")[0] not in run(["docker", "images"], environment=environment):
        try:
            run(["docker", "pull", POSTGRES], environment=environment, timeout=180)
        except (CommandFailed, subprocess.TimeoutExpired):
            say(f"{POSTGRES} cannot be pulled")
        else:
            return
    say("building a PostgreSQL")
    folder = str(HERE / "images/postgres")
    run(["docker", "build", "-t", BUILT_POSTGRES, folder], environment=environment, timeout=600)
    run(["docker", "tag", BUILT_POSTGRES, POSTGRES], environment=environment)


@pytest.fixture(scope="session")
def database(installed: Cluster) -> Database:
    """Gives the release's database."""
    return Database(installed)


@pytest.fixture
def operator(installed: Cluster) -> Operator:
    """Gives the release's operators, ready and one of them leading."""
    found = Operator(installed)
    found.is_ready()
    return found


@pytest.fixture
def spaces(installed: Cluster) -> Iterator[Callable[[str], Cluster]]:
    """Gives a function that makes a namespace with the database's Secret in it; they go afterwards."""
    made: list[Cluster] = []

    def make(name: str) -> Cluster:
        space = installed.into(f"{short_name(name)}-{int(time.time()) % 100_000}")
        installed.kubectl("create", "namespace", space.namespace)
        made.append(space)
        secret = installed.get("secret", SECRET)
        space.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "data": secret["data"]}
        )
        return space

    yield make
    for space in made:
        space.delete("forgequeues", "--all", wait=False)
        space.delete("forgecrons", "--all", wait=False)
        # ReplicaSets too, else they make pods anew; such a worker might lead while the next test looks for a leader.
        space.kubectl("delete", "deployments,replicasets", "--all", "--wait=false")
        space.kubectl("delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false")
        space.kubectl("delete", "namespace", space.namespace, "--ignore-not-found", "--wait=false")


@pytest.fixture
def space(request: pytest.FixtureRequest, spaces: Callable[[str], Cluster]) -> Cluster:
    """Gives a namespace of this test's own."""
    return spaces(request.path.stem.removeprefix("test_"))


def state_of(space: Cluster) -> str:
    """Return what somebody would look at when something is wrong in a namespace."""
    looks = [
        (space, ["get", "forgequeues,forgecrons,deployments,pods", "-o", "wide"]),
        (
            space,
            [
                "get",
                "forgequeues",
                "-o",
                "jsonpath={range .items[*]}{.metadata.name}{' '}{.status}{'\\n'}{end}",
            ],
        ),
        (space, ["get", "events", "--sort-by=.lastTimestamp", "--no-headers"]),
        (space, ["logs", "-l", "app.kubernetes.io/component=worker", "--tail=20", "--prefix"]),
        (space.into("default"), ["get", "pods"]),
        (
            space.into("default"),
            ["logs", "-l", "app.kubernetes.io/component=operator", "--tail=40", "--prefix"],
        ),
    ]
    found = []
    for where, words in looks:
        try:
            said = where.kubectl(*words)
        except (CommandFailed, subprocess.TimeoutExpired) as error:
            said = str(error)
        found.append(f"$ kubectl -n {where.namespace} {' '.join(words)}\n{said[-6000:]}")
    return "\n".join(found)


__all__ = ["ROOT"]
