"""Jobs for which no version has a handler start no pods, and are told of, until a version comes that has one."""

from tests.e2e.cluster import AUTOSCALING, Cluster, Manifest, Queue, manifest
from tests.e2e.database import Database
from tests.e2e.waiting import eventually

ABLE = {
    "name": "worker",
    "image": "forge-jobs-e2e-handlers:1",
    "imagePullPolicy": "IfNotPresent",
    "env": [{"name": "E2E_KINDS", "value": "count"}],
}


def test_jobs_of_a_kind_that_nobody_handles_wait_for_a_version_that_does(
    space: Cluster, database: Database
) -> None:
    queue = space.queue("picky", {"workers": {"replicas": None, "autoscaling": AUTOSCALING}})
    queue.sleeps()
    queue.becomes("KindsHandled", "True", within=30)

    waiting = database.enqueue("picky", 0, 5, kind="count")
    waiting += database.enqueue("picky", 0, 1, spread=3, kind="count")  # due while all pods sleep
    space.apply(every_ten_seconds("count"))
    told = queue.becomes("KindsHandled", "False", "UnhandledKinds", within=60)
    assert told["message"] == "No worker of 'picky' has a handler for 'count'."
    of_the_cron = eventually(
        lambda: unhandled(space.get("forgecron", "counting")), within=60, what="the cron tells of it"
    )
    assert of_the_cron["message"] == told["message"]
    # Of a cron, events tell when it is no longer new.
    eventually(lambda: warned(space) == {"picky", "counting"}, within=180, what="events tell of both")
    assert not queue.pods()
    assert not reasons(space) & {"ScaledUp", "WokenUp"}, "a pod was started for them"
    signal = "SELECT workload, due, unhandled FROM forge_jobs.scaling_signal WHERE queue = 'picky'"
    (row,) = database.rows(signal)
    assert (row["workload"], row["due"]) == (0, 0)
    assert row["unhandled"] >= 6, "the cron has fired too, if another pool's worker leads"

    others = database.enqueue("picky", 0, 3)
    database.are_done(others, within=90)
    queue.sleeps()
    assert database.states(waiting) == {"pending": 6}

    queue.change({"workers": {"version": "2", "template": {"spec": {"containers": [ABLE]}}}})
    database.are_done(waiting, within=180)
    queue.becomes("KindsHandled", "True", "AllHandled", within=60)
    assert {line.version for line in database.ran_once(waiting)} == {"2"}
    sleeps_again(space, queue)


def every_ten_seconds(kind: str) -> Manifest:
    """Return a ForgeCron for the queue."""
    cron = manifest("cron.yaml")
    cron["metadata"] = {"name": "counting"}
    cron["spec"]["schedule"] = "*/10 * * * * *"
    cron["spec"]["job"] |= {"queue": "picky", "kind": kind}
    return cron


def warned(space: Cluster) -> set[str]:
    """Return the objects that events name for which jobs are not handled."""
    events = (each for each in space.all("events") if each["reason"] == "UnhandledKinds")
    return {each["involvedObject"]["name"] for each in events}


def reasons(space: Cluster) -> set[str]:
    """Return the reasons of all events."""
    return {each["reason"] for each in space.all("events")}


def unhandled(cron: Manifest) -> Manifest | None:
    """Return what the cron's condition says, when it says that nobody has a handler."""
    conditions = cron.get("status", {}).get("conditions", [])
    found = (each for each in conditions if (each["type"], each["status"]) == ("KindsHandled", "False"))
    return next(found, None)


def sleeps_again(space: Cluster, queue: Queue) -> None:
    """Its pods go, once nothing enqueues jobs any more."""
    space.delete("forgecron", "counting")
    queue.sleeps()
