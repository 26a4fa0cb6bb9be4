"""From no pods to as many as the work needs, and back to none."""

from collections.abc import Callable
from datetime import datetime

from tests.e2e.cluster import Cluster, Manifest, watched
from tests.e2e.database import Database
from tests.e2e.waiting import eventually

AUTOSCALING = {
    "minReplicas": 0,
    "maxReplicas": 3,
    "targetLatencySeconds": 5,
    "idleSeconds": 5,
    "scaleDown": {"stabilizationWindowSeconds": 5, "periodSeconds": 5},
}


def test_pods_follow_the_backlog_from_none_to_most_to_none(
    space: Cluster, database: Database, measure: Callable[[str, str], None]
) -> None:
    queue = space.queue("scaled", {"workers": {"replicas": None, "slots": 2, "autoscaling": AUTOSCALING}})
    queue.sleeps()
    (deployment,) = queue.deployments().values()

    with (
        watched(space, "deployment", deployment["metadata"]["name"]) as orders,
        watched(space, "pods") as pods,
    ):
        eventually(orders, within=30, what="the watch has begun", every=0.2)
        job = database.enqueue("scaled")
        database.are_done(job, within=90)
        (row,) = database.jobs(job)
        enqueued = datetime.fromisoformat(row["created_at"]).timestamp()
        claimed = datetime.fromisoformat(row["started_at"]).timestamp()
        ordered = min(at for at, each in orders() if each["spec"]["replicas"] >= 1 and at > enqueued)
        there = min(at for at, each in pods() if at > enqueued and is_worker(each))
    measure("asleep: from enqueue to the order for a pod", f"{ordered - enqueued:.2f} s")
    measure("asleep: from enqueue to the pod's being made", f"{there - enqueued:.2f} s")
    measure("asleep: from the pod's being made to the first claim", f"{claimed - there:.2f} s")
    database.ran_once(job)

    backlog = database.enqueue("scaled", 2, 80)
    eventually(lambda: len(queue.ready_pods()) == 3, within=120, what="there are maxReplicas pods")
    assert queue.status()["scaling"]["message"]
    database.are_done(backlog, within=150)
    queue.sleeps()
    database.ran_once(backlog)
    reasons = {each["reason"] for each in space.all("events") if each["involvedObject"]["name"] == "scaled"}
    assert {"ScaledUp", "ScaledToZero", "WokenUp"} <= reasons, reasons


def is_worker(pod: Manifest) -> bool:
    """Return whether a pod is of the queue's workers, and new."""
    return "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") == "Pending"
