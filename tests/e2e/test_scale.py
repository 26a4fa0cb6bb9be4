"""From no pods to as many as the work needs, and back to none."""

from collections.abc import Callable
from datetime import datetime

from tests.e2e.cluster import Cluster, Manifest, Queue, watched
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
    asleep(queue)
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
    asleep(queue)
    database.ran_once(backlog)
    reasons = {each["reason"] for each in space.all("events") if each["involvedObject"]["name"] == "scaled"}
    assert {"ScaledUp", "ScaledToZero", "WokenUp"} <= reasons, reasons


def test_what_becomes_due_while_all_pods_sleep_is_done(space: Cluster, database: Database) -> None:
    queue = space.queue("drowsy", {"workers": {"replicas": None, "autoscaling": AUTOSCALING}})
    asleep(queue)
    due = database.enqueue("drowsy", 0, 1, spread=45)  # longer than a last pod would be kept for it
    assert not queue.pods()
    database.are_done(due, within=120)
    database.ran_once(due)


def test_kubectl_scale_works_where_replicas_is_set(space: Cluster, database: Database) -> None:
    queue = space.queue("fixed")
    queue.serves("1")
    space.kubectl("scale", "forgequeue/fixed", "--replicas=3")
    eventually(lambda: len(queue.ready_pods()) == 3, within=90, what="there are three pods")
    queue.becomes("ScalingActive", "False", "FixedReplicas")
    running = database.enqueue("fixed", 10, 3)
    database.are_running(running, within=30)
    space.kubectl("scale", "forgequeue/fixed", "--replicas=1")
    eventually(lambda: len(queue.pods()) == 1, within=90, what="there is one pod")
    database.are_done(running, within=60)
    database.ran_once(running)  # busy pods finished what they had


def asleep(queue: Queue) -> None:
    """The queue has no pods, and is fine with that."""
    eventually(
        lambda: queue.status().get("currentVersion") and not queue.pods(),
        within=180,
        what="there are no pods",
    )
    queue.becomes("Ready", "True", within=30)


def is_worker(pod: Manifest) -> bool:
    """Return whether a pod is of the queue's workers, and new."""
    return "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") == "Pending"
