"""A cluster with the release in it, and a namespace for each situation.

FORGE_E2E_CLUSTER=name       use that kind cluster, and whatever release is in it
FORGE_E2E_KEEP=1             leave the cluster behind
FORGE_E2E_POSTGRES_IMAGE=... the try-out PostgreSQL's image, if the official one cannot be pulled
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, CommandFailed, Operator, short_name
from tests.e2e.database import Database
from tests.e2e.lock import held
from tests.e2e.release import Release
from tests.e2e.shell import ROOT, missing

HERE = Path(__file__).parent
PROGRAMS = ("kind", "docker", "kubectl", "helm")
SECRET = "forge-jobs-database"
FOLDER = "FORGE_E2E_FOLDER"  # what all processes of a run share; pytest-xdist's workers inherit it

# These disturb nobody, so that several may run at a time; those that take longest come first, after a light one,
# so that a broken release is told of early.
TOGETHER = (
    "queue_applied",
    "broken_versions",
    "unhandled_kinds",
    "external_autoscaler",
    "progressive",
    "worker_deleted",
    "scale",
    "rollout",
    "disruption",
    "cron",
    "two_owners",
    "rollback",
    "pinned",
    "manual",
    "configuration_change",
    "invalid_queue",
    "secret_required",
)

# These take away what others need, or measure what others would disturb: each has the cluster for itself.
ALONE = (
    "first_job",
    "operator_killed",
    "operator_frozen",
    "postgres_restarted",
    "password_rotated",
    "namespace_deleted",
    "footprint",
    "watched_namespaces",
    "two_releases",
    "upgrade_uninstall",
)

began = time.monotonic()


def pytest_configure(config: pytest.Config) -> None:
    if FOLDER not in os.environ:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="forge-jobs-e2e-")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if HERE in item.path.parents]
    for item in here:
        item.add_marker(pytest.mark.timeout(600))
        if absent := missing(PROGRAMS):
            item.add_marker(pytest.mark.skip(reason=f"not on PATH: {', '.join(absent)}"))
    places = {f"test_{name}": place for place, name in enumerate(TOGETHER + ALONE)}
    here.sort(key=lambda item: places.get(item.path.stem, len(places)))
    items[:] = [item for item in items if item not in here] + here


def is_alone(item: pytest.Item) -> bool:
    """Whether nothing else may run meanwhile."""
    return item.path.stem.removeprefix("test_") not in TOGETHER


@pytest.hookimpl(wrapper=True, tryfirst=True)  # the wait for others counts against no time limit
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if HERE not in item.path.parents:
        return (yield)
    with held(shared() / "situations", alone=is_alone(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.failed and (space := getattr(item, "funcargs", {}).get("space")) is not None:
        report.sections.append(("the namespace", state_of(space)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [each for found in terminalreporter.stats.values() for each in found]
    numbers = [
        number for each in reports if getattr(each, "when", "") == "call" for number in each.user_properties
    ]
    if numbers:
        terminalreporter.section("measured")
        for name, value in numbers:
            terminalreporter.write_line(f"{name:<68} {value}")


@pytest.hookimpl(trylast=True)  # after pytest-xdist has ended its workers
def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # this process began it all
        Release(shared(), teller(session.config)).remove()
        shutil.rmtree(os.environ.pop(FOLDER))


def shared() -> Path:
    """Return the folder that all processes of this run share."""
    return Path(os.environ[FOLDER])


def teller(config: pytest.Config) -> Callable[[str], None]:
    """Return a function that prints a line at once, from whichever process: what is being made takes minutes."""
    capture = config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n[{time.monotonic() - began:5.0f} s] {line}", end="", file=sys.stderr, flush=True)

    return say


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Gives a function that has a number printed at the end."""
    return lambda name, value: request.node.user_properties.append((name, value))


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Cluster:
    """Gives the namespace of the release: README's commands up to helm's have been run."""
    release = Release(shared(), teller(request.config))
    with held(shared() / "installing", alone=True):
        release.install()
    return release.cluster


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
        space = installed.into(f"{short_name(name)}-{secrets.token_hex(3)}")
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
        (space, ["logs", "-l", "app.kubernetes.io/component=worker", "--tail=-1", "--prefix"]),
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
        found.append(f"$ kubectl -n {where.namespace} {' '.join(words)}\n{shortened(said)}")
    return "\n".join(found)


def shortened(said: str) -> str:
    """Return the end of what was said, and of log lines before it those that tell of more than everyday things."""
    lines = said.splitlines(keepends=True)
    telling = [line for line in lines[:-40] if '"level":' in line and '"level":"info"' not in line]
    return "".join(telling)[-12_000:] + "".join(lines[-40:])[-12_000:]


__all__ = ["ROOT"]
