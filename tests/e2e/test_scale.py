"""The number of pods, by the work that comes and by hand."""

from tests.e2e.cluster import Cluster
from tests.e2e.database import Database
from tests.e2e.waiting import eventually

AUTOSCALING = {
    "minReplicas": 0,
    "maxReplicas": 3,
    "targetLatencySeconds": 5,
    "idleSeconds": 5,
    "scaleDown": {"stabilizationWindowSeconds": 5, "periodSeconds": 5},
}


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
    running = database.enqueue("fixed", 10, 3)
    database.are_running(running, within=30)
    space.kubectl("scale", "forgequeue/fixed", "--replicas=1")
    eventually(lambda: len(queue.pods()) == 1, within=90, what="there is one pod")
    database.are_done(running, within=60)
    database.ran_once(running)  # busy pods finished what they had
