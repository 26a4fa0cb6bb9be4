"""How long it takes to the first job of a queue that was just applied, and of one whose pods sleep."""

import time
from collections.abc import Callable
from datetime import datetime

from tests.e2e.cluster import AUTOSCALING, Cluster, Manifest, watched
from tests.e2e.database import Database
from tests.e2e.waiting import eventually

Measure = Callable[[str, str], None]


def test_a_queue_that_is_applied_is_served(space: Cluster, database: Database, measure: Measure) -> None:
    applied = time.time()
    queue = space.queue("applied")
    job = eventually(lambda: database.enqueue("applied")[0], within=60, what="the queue is there", every=0.2)
    database.are_done([job], within=180)
    (row,) = database.jobs([job])
    measure("from apply to the first job done", f"{seconds(row['finished_at']) - applied:.1f} s")
    database.ran_once([job])
    queue.serves("1")
    assert {
        each["status"] for each in queue.status()["conditions"] if each["type"] in ("Ready", "Synced")
    } == {"True"}
    warnings = [
        f"{each['reason']}: {each['message']}" for each in space.all("events") if each["type"] == "Warning"
    ]
    assert warnings == [], "where nothing is wrong, nothing warns"


def test_a_pool_that_is_asleep_wakes_for_the_first_job(
    space: Cluster, database: Database, measure: Measure
) -> None:
    queue = space.queue("asleep", {"workers": {"replicas": None, "autoscaling": AUTOSCALING}})
    queue.sleeps()
    (deployment,) = queue.deployments().values()

    with (
        watched(space, "deployment", deployment["metadata"]["name"]) as orders,
        watched(space, "pods") as pods,
    ):
        eventually(orders, within=30, what="the watch has begun", every=0.2)
        job = database.enqueue("asleep")
        database.are_done(job, within=90)
        (row,) = database.jobs(job)
        enqueued, claimed = seconds(row["created_at"]), seconds(row["started_at"])
        ordered = min(at for at, each in orders() if each["spec"]["replicas"] >= 1 and at > enqueued)
        there = min(at for at, each in pods() if at > enqueued and is_worker(each))
    measure("asleep: from enqueue to the order for a pod", f"{ordered - enqueued:.2f} s")
    measure("asleep: from enqueue to the pod's being made", f"{there - enqueued:.2f} s")
    measure("asleep: from the pod's being made to the first claim", f"{claimed - there:.2f} s")
    database.ran_once(job)
    reasons = {each["reason"] for each in space.all("events") if each["involvedObject"]["name"] == "asleep"}
    assert "WokenUp" in reasons, reasons


def is_worker(pod: Manifest) -> bool:
    """Return whether a pod is of the queue's workers, and new."""
    return "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") == "Pending"


def seconds(text: str) -> float:
    """Return a moment as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()
