"""The number of pods, by the work that comes and by hand."""

from tests.e2e.cluster import AUTOSCALING, Cluster
from tests.e2e.database import UNTIL_TOLD, Database
from tests.e2e.waiting import eventually


def test_pods_follow_the_backlog_from_none_to_most_to_none(space: Cluster, database: Database) -> None:
    queue = space.queue("scaled", {"workers": {"replicas": None, "slots": 2, "autoscaling": AUTOSCALING}})
    queue.sleeps()
    first = database.enqueue("scaled")
    database.are_done(first, within=90)

    backlog = database.enqueue("scaled", 2, 80)
    eventually(lambda: len(queue.ready_pods()) == 3, within=120, what="there are maxReplicas pods")
    assert queue.status()["scaling"]["message"]
    database.are_done(backlog, within=150)
    queue.sleeps()
    database.ran_once(first + backlog)
    reasons = {each["reason"] for each in space.all("events") if each["involvedObject"]["name"] == "scaled"}
    assert {"ScaledUp", "ScaledToZero", "WokenUp"} <= reasons, reasons


def test_what_becomes_due_while_all_pods_sleep_is_done(space: Cluster, database: Database) -> None:
    queue = space.queue("drowsy", {"workers": {"replicas": None, "autoscaling": AUTOSCALING}})
    queue.sleeps()
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
    running = database.enqueue("fixed", UNTIL_TOLD, 3)
    database.are_running(running, within=30)
    space.kubectl("scale", "forgequeue/fixed", "--replicas=1")
    eventually(lambda: len(queue.pods()) == 1, within=90, what="there is one pod")
    database.let_end(running)
    database.are_done(running, within=60)
    database.ran_once(running)  # busy pods finished what they had
