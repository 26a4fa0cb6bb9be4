"""A cluster with the release in it, made once by README's own commands, whichever process asks first."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.e2e import readme
from tests.e2e.cluster import MANIFESTS, Cluster, CommandFailed, Operator
from tests.e2e.database import TABLES, Database
from tests.e2e.shell import run
from tests.e2e.waiting import eventually

IMAGES = Path(__file__).parent / "images"
POSTGRES = "postgres:17"  # what the chart asks for
HANDLERS = "forge-jobs-e2e-handlers:1"
BUILT_POSTGRES = "forge-jobs-e2e-postgres:1"
VOLUME = "forge-jobs-e2e-postgres"

Say = Callable[[str], None]


class Release:
    """The release in its cluster; `folder` is where the processes of one run leave word for each other."""

    def __init__(self, folder: Path, say: Say) -> None:
        self.cluster = Cluster("default", folder / "kubeconfig")
        self._say = say
        self._made, self._ended = folder / "made", folder / "ended"

    def install(self) -> None:
        """The release is there and ready. Whoever asks again gets the same answer, also when that is a failure."""
        if not self._ended.exists():
            try:
                self._run_readme()
            except Exception as error:
                self._ended.write_text(str(error))
                raise
            self._ended.touch()
        elif said := self._ended.read_text():
            raise AssertionError(f"the release could not be installed: {said}")

    def remove(self) -> None:
        """The cluster is gone, if this run made it: one that somebody else made is never deleted."""
        if self._made.exists() and not os.environ.get("FORGE_E2E_KEEP"):
            self._say("deleting the cluster")
            run(["kind", "delete", "cluster", "--name", _name()], environment=self._environment)

    @property
    def _environment(self) -> dict[str, str]:
        return {**self.cluster.environment, "KIND_CLUSTER_NAME": os.environ.get("FORGE_E2E_CLUSTER", _name())}

    def _run_readme(self) -> None:
        kept = os.environ.get("FORGE_E2E_CLUSTER")
        for command in _until_installed():
            if kept and command.startswith("kind create"):
                self._say(f"using the cluster {kept}")
                run(["kind", "export", "kubeconfig", "--name", kept], environment=self._environment)
            elif kept and command.startswith("helm install") and self._is_installed():
                self._prepare()
                self._renew()
            else:
                if command.startswith("helm install"):
                    self._prepare()
                self._say(command)
                run(command, environment=self._environment, timeout=900)
                if command.startswith("kind create"):
                    self._made.touch()
        eventually(lambda: Database(self.cluster).execute(TABLES) == "", within=120, what="there is a ledger")
        Operator(self.cluster).is_ready()

    def _is_installed(self) -> bool:
        try:
            return '"deployed"' in self.cluster.helm("status", "forge-jobs", "-o", "json")
        except CommandFailed:
            return False

    def _renew(self) -> None:
        self._say("using the release that is there, with the images that were built now")
        self.cluster.kubectl("rollout", "restart", "deployment/forge-jobs-operator")
        Operator(self.cluster).is_ready()
        self.cluster.kubectl("exec", "deployment/forge-jobs-operator", "--", "forge-jobs", "db", "migrate")

    def _prepare(self) -> None:
        """The cluster has what a machine with a registry and a storage class would have by itself."""
        self._say("building the image with the suite's handlers")
        self._build(HANDLERS, "handlers")
        self._postgres()
        for image in (HANDLERS, POSTGRES):
            name = self._environment["KIND_CLUSTER_NAME"]
            run(
                ["kind", "load", "docker-image", image, "--name", name],
                environment=self._environment,
                timeout=300,
            )
        classes = self.cluster.all("storageclasses")
        has_class = any("is-default-class" in str(each["metadata"].get("annotations")) for each in classes)
        if not has_class and not self.cluster.exists("persistentvolume", VOLUME):
            self._say("making a volume, as there is no storage class")
            node = self.cluster.into("kube-system")
            node.apply(*yaml.safe_load_all((MANIFESTS / "volume.yaml").read_text()))
            eventually(
                lambda: node.get("pod", "forge-jobs-e2e-volume")["status"]["phase"] == "Succeeded",
                within=120,
                what="the volume is made",
            )
            node.delete("pod", "forge-jobs-e2e-volume", wait=False)

    def _postgres(self) -> None:
        """An image of PostgreSQL is on this machine under the name that the chart asks for."""
        if given := os.environ.get("FORGE_E2E_POSTGRES_IMAGE"):
            run(["docker", "tag", given, POSTGRES], environment=self._environment)
            return
        if BUILT_POSTGRES.partition(":")[0] not in run(["docker", "images"], environment=self._environment):
            try:
                run(["docker", "pull", POSTGRES], environment=self._environment, timeout=180)
            except (CommandFailed, subprocess.TimeoutExpired):
                self._say(f"{POSTGRES} cannot be pulled")
            else:
                return
        self._say("building a PostgreSQL")
        self._build(BUILT_POSTGRES, "postgres")
        run(["docker", "tag", BUILT_POSTGRES, POSTGRES], environment=self._environment)

    def _build(self, image: str, folder: str) -> None:
        command = ["docker", "build", "-t", image, str(IMAGES / folder)]
        run(command, environment=self._environment, timeout=600)


def _until_installed() -> list[str]:
    commands = readme.commands()
    (last,) = [place for place, each in enumerate(commands) if each.startswith("helm install")]
    return commands[: last + 1]


def _name() -> str:
    return os.environ.get("KIND_CLUSTER_NAME", "kind")
