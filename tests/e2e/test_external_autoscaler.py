"""A HorizontalPodAutoscaler of the cluster scales a ForgeQueue, as it scales a Deployment."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import yaml

from tests.e2e.cluster import MANIFESTS, Cluster, Manifest, Queue, manifest
from tests.e2e.database import UNTIL_TOLD, Database
from tests.e2e.waiting import always, eventually

METRICS_API = "v1beta1.external.metrics.k8s.io"


def test_an_autoscaler_of_the_cluster_follows_the_backlog_and_stops_no_job(
    space: Cluster, database: Database
) -> None:
    queue = space.queue("followed", {"workers": {"slots": 2, "replicas": 1}})
    queue.serves("1")

    with metrics(space):
        kind = autoscaler(space, "followed")
        backlog = database.enqueue("followed", 1, 90)  # an autoscaler looks every 15 s
        long = database.enqueue("followed", UNTIL_TOLD, 6)  # as many as three pods run at once
        eventually(lambda: asked_for(queue) == 3, within=120, what="the autoscaler asks for its maximum")
        eventually(lambda: len(queue.ready_pods()) == 3, within=90, what="the pods follow")
        assert condition(space, kind, "ScalingActive") == condition(space, kind, "AbleToScale") == "True"
        eventually(lambda: matches(space, queue, 3), within=30, what="the scale names the three pods")

        database.are_running(long, within=90)
        eventually(lambda: asked_for(queue) == 1, within=60, what="the autoscaler goes back", every=0.5)
        always(lambda: len(queue.pods()) == 3, during=10, what="busy pods stay")
        assert database.states(long) == {"in_progress": 6}, "jobs were stopped when it went back"
        database.let_end(long)
        database.are_done(backlog + long, within=90)
        eventually(lambda: matches(space, queue, 1), within=90, what="there is one pod again")
        assert condition(space, kind, "ScalingActive") == condition(space, kind, "AbleToScale") == "True"
        assert asked_for(queue) == 1

    database.ran_once(backlog + long)
    queue.becomes("Ready", "True", within=30)


@contextmanager
def metrics(space: Cluster) -> Iterator[None]:
    """Autoscalers are told meanwhile how many jobs wait."""
    *objects, api = yaml.safe_load_all((MANIFESTS / "metrics.yaml").read_text())
    api["spec"]["service"]["namespace"] = space.namespace
    space.apply(*objects)
    space.kubectl("wait", "pod/metrics", "--for=condition=Ready", "--timeout=90s", timeout=100)
    try:
        space.apply(api)
        space.kubectl(
            "wait", f"apiservice/{METRICS_API}", "--for=condition=Available", "--timeout=60s", timeout=70
        )
        yield
    finally:
        space.delete("apiservice", METRICS_API)  # one that leads nowhere keeps every namespace from going


def autoscaler(space: Cluster, queue: str) -> str:
    """A ForgeQueue is scaled by the cluster; return what kubectl calls the autoscaler's kind."""
    known = space.kubectl("api-versions").split()
    version = "v2" if "autoscaling/v2" in known else "v2beta2"  # before Kubernetes 1.23
    found = manifest("autoscaler.yaml")
    found["apiVersion"], found["metadata"]["name"] = f"autoscaling/{version}", queue
    found["spec"]["scaleTargetRef"]["name"] = queue
    found["spec"]["metrics"][0]["external"]["metric"]["selector"]["matchLabels"]["queue"] = queue
    space.apply(found)
    return f"horizontalpodautoscalers.{version}.autoscaling"


def condition(space: Cluster, kind: str, type_: str) -> str:
    """Return the status of the only autoscaler's condition."""
    (found,) = space.all(kind)
    return next(each["status"] for each in found["status"]["conditions"] if each["type"] == type_)


def asked_for(queue: Queue) -> int:
    """Return how many pods the ForgeQueue asks for."""
    found: int = queue.object()["spec"]["workers"]["replicas"]
    return found


def matches(space: Cluster, queue: Queue, pods: int) -> bool:
    """Whether the scale, as an autoscaler sees it, has so many pods, and its selector finds just those."""
    path = f"/apis/forge-jobs.dev/v1alpha1/namespaces/{space.namespace}/forgequeues/{queue.name}/scale"
    scale: Manifest = json.loads(space.kubectl("get", "--raw", path))
    selected = json.loads(space.kubectl("get", "pods", "-l", scale["status"]["selector"], "-o", "json"))
    found = [each for each in selected["items"] if "deletionTimestamp" not in each["metadata"]]
    assert scale["spec"]["replicas"] == scale["status"]["replicas"] == len(found) == pods, scale
    return {each["metadata"]["uid"] for each in found} == set(queue.lives())
