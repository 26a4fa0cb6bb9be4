"""A version takes over when somebody says so."""

from tests.e2e.cluster import Cluster, Queue
from tests.e2e.database import UNTIL_TOLD, Database

PROMOTE = "forge-jobs.dev/promote"
FOR_A_WEEK = [{"weightPercent": 50, "pauseSeconds": 604800}]


def test_a_new_version_gets_no_job_until_it_is_promoted_by_hand(space: Cluster, database: Database) -> None:
    queue = space.queue("asking", {"workers": {"replicas": 2, "rollout": {"strategy": "Manual"}}})
    queue.serves("1", pods=2)
    long = database.enqueue("asking", UNTIL_TOLD, 4)
    database.are_running(long, within=30)

    queue.change({"workers": {"version": "2"}})
    condition = queue.becomes("Progressing", "False", "AwaitingPromotion")
    id_ = queue.status()["targetVersion"]["id"]
    assert f"{PROMOTE}={id_}" in condition["message"], condition
    assert len(queue.ready_pods("2")) == 2
    assert queue.version("2")["state"] == "Pending"
    before = database.enqueue("asking", 0.2, 40)
    database.are_done(before, within=60)
    assert queue.condition("Progressing")["reason"] == "AwaitingPromotion"

    promote(queue)
    queue.serves("2", pods=2, within=60)
    after = database.enqueue("asking", 0, 20)
    database.let_end(long)
    database.are_done(long + before + after, within=90)
    told = database.ran_once(long + before + after)
    assert {line.version for line in told if line.job_id in before + long} == {"1"}
    assert {line.version for line in told if line.job_id in after} == {"2"}

    # The way back needs nobody's word.
    queue.change({"workers": {"version": "1"}})
    queue.serves("1", within=60)


def test_a_version_with_a_share_is_promoted_by_hand(space: Cluster, database: Database) -> None:
    rollout = {"strategy": "Progressive", "steps": FOR_A_WEEK}
    queue = space.queue("hasty", {"workers": {"replicas": 2, "rollout": rollout}})
    queue.serves("1", pods=2)
    queue.change({"workers": {"version": "2"}})
    queue.becomes("Progressing", "True", "Ramping")
    steady = database.enqueue("hasty", 0.2, 120, spread=0.5)

    promote(queue)
    queue.serves("2", pods=2, within=60)
    after = database.enqueue("hasty", 0, 10)
    database.hurry(steady)
    database.are_done(steady + after, within=60)
    assert {line.version for line in database.ran_once(steady + after) if line.job_id in after} == {"2"}
    queue.becomes("Progressing", "True", "RolloutComplete", "Draining", within=30)


def promote(queue: Queue) -> None:
    """Somebody does what the condition says."""
    path = "jsonpath={.status.targetVersion.id}"
    id_ = queue.cluster.kubectl("get", "forgequeue", queue.name, "-o", path)
    queue.cluster.kubectl("annotate", "forgequeue", queue.name, f"{PROMOTE}={id_}")
