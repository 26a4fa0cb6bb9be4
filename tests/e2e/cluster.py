"""The cluster as somebody with kubectl sees it."""

import copy
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import yaml

from tests.e2e.shell import CommandFailed, run
from tests.e2e.waiting import eventually

MANIFESTS = Path(__file__).parent / "manifests"
Manifest = dict[str, Any]

AUTOSCALING: Manifest = {
    "minReplicas": 0,
    "maxReplicas": 3,
    "targetLatencySeconds": 5,
    "idleSeconds": 5,
    "scaleDown": {"stabilizationWindowSeconds": 5, "periodSeconds": 5},
}
"""By the load, down to no pods at all, and as fast as is allowed."""


def manifest(file: str) -> Manifest:
    """Return the first object of a file in manifests/."""
    found: Manifest = next(yaml.safe_load_all((MANIFESTS / file).read_text()))
    return found


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Manifest:
    """Return `base` with `changes` laid over it, as a merge patch does: None takes a key away."""
    found = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping):
            found[key] = merged(found.get(key) or {}, value)
        else:
            found[key] = value
    return found


class Cluster:
    """One namespace of a cluster."""

    def __init__(self, namespace: str, kubeconfig: Path) -> None:
        self.namespace = namespace
        self.kubeconfig = kubeconfig

    @property
    def environment(self) -> dict[str, str]:
        """What commands are told so that they mean this cluster."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def into(self, namespace: str) -> "Cluster":
        """Return another namespace of the same cluster."""
        return Cluster(namespace, self.kubeconfig)

    def kubectl(self, *words: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Return what kubectl printed."""
        command = ["kubectl", "--namespace", self.namespace, *words]
        return run(command, stdin=stdin, environment=self.environment, timeout=timeout)

    def helm(self, *words: str, timeout: float = 400) -> str:
        """Return what helm printed."""
        command = ["helm", "--namespace", self.namespace, *words]
        return run(command, environment=self.environment, timeout=timeout)

    def apply(self, *objects: Manifest) -> None:
        """The objects are as they are given."""
        stdin = "---\n".join(yaml.safe_dump(each) for each in objects)
        self.kubectl("apply", "-f", "-", stdin=stdin, timeout=180)

    def get(self, kind: str, name: str) -> Manifest:
        """Return an object. Raises CommandFailed when it is not there."""
        found: Manifest = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def all(self, kind: str, **labels: str) -> list[Manifest]:
        """Return the objects of a kind."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found: list[Manifest] = json.loads(self.kubectl("get", kind, "-l", selector, "-o", "json"))["items"]
        return found

    def exists(self, kind: str, name: str) -> bool:
        """Return whether there is such an object."""
        return bool(self.kubectl("get", kind, name, "--ignore-not-found", "-o", "name").strip())

    def patch(self, kind: str, name: str, changes: Mapping[str, Any]) -> None:
        """An object is changed by a merge patch."""
        self.kubectl("patch", kind, name, "--type=merge", "--patch", json.dumps(changes))

    def delete(self, kind: str, *names: str, wait: bool = True) -> None:
        """The objects are gone, or go if nobody waits."""
        self.kubectl("delete", kind, *names, "--ignore-not-found", f"--wait={str(wait).lower()}", timeout=180)

    def kill(self, *pods: str) -> None:
        """The pods are gone at once, and nobody asked them."""
        self.kubectl("delete", "pod", *pods, "--grace-period=0", "--force", "--wait=false")

    def queue(self, name: str, spec: Mapping[str, Any] | None = None) -> "Queue":
        """A ForgeQueue is as manifests/queue.yaml says, with what `spec` says differently."""
        base = manifest("queue.yaml")
        base["metadata"] = {"name": name, "namespace": self.namespace}
        base["spec"] = merged(base["spec"], spec or {})
        self.apply(base)
        return Queue(self, name)


class Queue:
    """A ForgeQueue, its Deployments and its pods."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name

    def change(self, spec: Mapping[str, Any]) -> None:
        """Its spec is changed by a merge patch."""
        self.cluster.patch("forgequeue", self.name, {"spec": spec})

    def object(self) -> Manifest:
        """Return it."""
        return self.cluster.get("forgequeue", self.name)

    def status(self) -> Manifest:
        """Return what the operator says of it, as far as that is about its present generation."""
        found = self.object()
        status: Manifest = found.get("status") or {}
        is_about_it = status.get("observedGeneration") == found["metadata"]["generation"]
        assert is_about_it, f"the status is about generation {status.get('observedGeneration')}"
        return status

    def condition(self, type_: str) -> Manifest:
        """Return a condition of its present generation. Raises AssertionError while there is none."""
        for each in self.status().get("conditions", []):
            if each["type"] == type_:
                return dict(each)
        raise AssertionError(f"{self.name} has no condition {type_}")

    def becomes(self, type_: str, status: str, *reasons: str, within: float = 120) -> Manifest:
        """Return the condition once it has this status, for one of these reasons if any are given."""

        def check() -> Manifest:
            found = self.condition(type_)
            assert found["status"] == status, found
            assert not reasons or found["reason"] in reasons, found
            return found

        return eventually(check, within=within, what=f"{self.name} is {type_}={status} {reasons or ''}")

    def serves(self, version: str, *, pods: int = 1, within: float = 180) -> None:
        """The version is the current one, alone asked for, and has so many ready pods."""

        def check() -> bool:
            status = self.status()
            assert status.get("currentVersion", {}).get("version") == version, status
            assert self.condition("Ready")["status"] == "True", self.condition("Ready")
            return len(self.ready_pods(version)) >= pods

        eventually(check, within=within, what=f"version {version} of {self.name} serves with {pods} pods")

    def sleeps(self, *, within: float = 180) -> None:
        """It has no pods, and is fine with that."""
        eventually(
            lambda: self.status().get("currentVersion") and not self.pods(),
            within=within,
            what=f"{self.name} has no pods",
        )
        self.becomes("Ready", "True", within=30)

    def version(self, version: str) -> Manifest:
        """Return what the status says of a version."""
        for each in self.status().get("versions", []):
            if each["version"] == version:
                return dict(each)
        raise AssertionError(f"the status of {self.name} knows no version {version}")

    def deployments(self) -> dict[str, Manifest]:
        """Return its Deployments by version."""
        found = self.cluster.all("deployments", **{"app.kubernetes.io/instance": self.name})
        return {each["metadata"]["annotations"]["forge-jobs.dev/version"]: each for each in found}

    def pods(self, version: str | None = None) -> list[Manifest]:
        """Return its pods that are not on their way out."""
        labels = {"app.kubernetes.io/instance": self.name, "app.kubernetes.io/component": "worker"}
        if version is not None:
            labels["app.kubernetes.io/version"] = version
        found = self.cluster.all("pods", **labels)
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]

    def ready_pods(self, version: str | None = None) -> list[Manifest]:
        """Return those that are ready."""
        return [each for each in self.pods(version) if is_ready(each)]

    def lives(self, version: str | None = None) -> dict[str, int]:
        """Return how often the containers of each pod were restarted, by the pod's uid."""
        return {each["metadata"]["uid"]: restarts(each) for each in self.pods(version)}

    def remove(self) -> None:
        """It is gone, and so are its pods: nobody waits for their jobs."""
        self.cluster.delete("forgequeue", self.name)
        if pods := self.pods():
            self.cluster.kill(*(each["metadata"]["name"] for each in pods))


def is_ready(pod: Manifest) -> bool:
    """Return whether a pod is ready."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def restarts(pod: Manifest) -> int:
    """Return how often the containers of a pod were restarted."""
    return sum(each["restartCount"] for each in pod.get("status", {}).get("containerStatuses", []))


class Operator:
    """The operators of the release."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def pods(self) -> dict[str, Manifest]:
        """Return their pods by name, without those that are on their way out."""
        found = self.cluster.all("pods", **{"app.kubernetes.io/component": "operator"})
        return {
            each["metadata"]["name"]: each for each in found if "deletionTimestamp" not in each["metadata"]
        }

    def leader(self) -> str:
        """Return the name of the pod that holds the Lease."""
        leases = self.cluster.all("leases")
        holders = [each["spec"].get("holderIdentity") or "" for each in leases]
        for pod in self.pods():
            if any(pod in holder for holder in holders):
                return pod
        raise AssertionError(f"no operator holds the Lease; its holders are {holders}")

    def metrics(self, pod: str) -> dict[str, float]:
        """Return the numbers of an operator, by name and labels as they are written."""
        path = f"/api/v1/namespaces/{self.cluster.namespace}/pods/{pod}:8080/proxy/metrics"
        found = {}
        for line in self.cluster.kubectl("get", "--raw", path).splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found

    def scale(self, replicas: int) -> None:
        """There are so many operators, and they are ready."""
        self.cluster.kubectl("scale", "deployment/forge-jobs-operator", f"--replicas={replicas}")
        if replicas == 0:
            eventually(lambda: not self.pods(), within=60, what="the operators are gone")
        else:
            self.is_ready()

    def is_ready(self) -> None:
        """The operators are ready, and one of them leads."""
        self.cluster.kubectl(
            "rollout", "status", "deployment/forge-jobs-operator", "--timeout=180s", timeout=200
        )
        eventually(self.leader, within=60, what="an operator leads")

    def kill(self) -> None:
        """All of them are gone at once; others are on their way."""
        self.cluster.kill(*self.pods())


# Looks for the pod's name in the environment of every process of the node.
SIGNAL = """
import os, pathlib, signal
found = []
for each in pathlib.Path("/proc").iterdir():
    if each.name.isdigit():
        try:
            command, environment = (each / "cmdline").read_bytes(), (each / "environ").read_bytes()
        except OSError:
            continue
        if b"HOSTNAME={pod}\\0" in environment and command:
            found.append(int(each.name))
assert found, "no process of {pod}"
for each in found:
    os.kill(each, signal.{signal})
print(found)
"""


def send(cluster: Cluster, pod: str, signal: str) -> None:
    """Every process of a pod has got the signal, from the node: inside, process 1 is safe from SIGSTOP."""
    sender = manifest("signal.yaml")
    name = f"{signal.lower()}-{int(time.time() * 1000)}"
    sender["metadata"] = {"name": name, "namespace": "kube-system"}
    sender["spec"]["containers"][0]["command"][-1] = SIGNAL.format(pod=pod, signal=signal)
    node = cluster.into("kube-system")
    node.apply(sender)

    def has_run() -> bool:
        phase = node.get("pod", name)["status"]["phase"]
        assert phase != "Failed", node.kubectl("logs", name)
        return bool(phase == "Succeeded")

    eventually(has_run, within=60, what=f"{signal} is sent to {pod}", every=0.5)
    node.delete("pod", name, wait=False)


@contextmanager
def watched(cluster: Cluster, kind: str, *words: str) -> Iterator[Callable[[], list[tuple[float, Manifest]]]]:
    """Gives a function that returns what changed since the beginning, and when it was heard, by this machine's clock."""
    command = ["kubectl", "--namespace", cluster.namespace, "get", kind, *words, "--watch", "-o", "json"]
    command += ["--output-watch-events"]
    process = subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, text=True)
    heard: list[tuple[float, Manifest]] = []

    def listen() -> None:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            at, text = time.time(), text + line
            with suppress(json.JSONDecodeError):  # an event may have several lines
                heard.append((at, json.loads(text)["object"]))
                text = ""

    listener = Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield lambda: list(heard)
    finally:
        process.terminate()
        process.wait()
        listener.join(5)
        if process.stdout is not None:
            process.stdout.close()


def short_name(text: str) -> str:
    """Return a text as the name of an object."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")


__all__ = [
    "AUTOSCALING",
    "Cluster",
    "CommandFailed",
    "Manifest",
    "Operator",
    "Queue",
    "manifest",
    "merged",
    "restarts",
    "send",
    "short_name",
    "watched",
]
