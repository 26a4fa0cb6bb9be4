"""Rollback is setting the version back, and a version that never gets ready costs nothing."""

from tests.e2e.cluster import Cluster
from tests.e2e.database import UNTIL_TOLD, Database


def test_setting_the_version_back_rolls_back_to_the_same_pods(space: Cluster, database: Database) -> None:
    warm = {"workers": {"sunset": {"scaleDownDelaySeconds": 600}}}
    queue = space.queue("back", warm)
    queue.serves("1")
    (name, lives) = queue.deployments()["1"]["metadata"]["name"], queue.lives("1")
    long = database.enqueue("back", UNTIL_TOLD)
    database.are_running(long, within=30)

    queue.change({"workers": {"version": "2"}})
    queue.serves("2")
    in_two = database.enqueue("back", UNTIL_TOLD)
    database.are_running(in_two, within=30)

    queue.change({"workers": {"version": "1"}})
    queue.serves("1", within=30)  # its pods are warm
    assert queue.deployments()["1"]["metadata"]["name"] == name
    assert queue.lives("1") == lives
    again = database.enqueue("back", 0, 5)
    database.let_end(long + in_two)
    database.are_done(long + in_two + again, within=90)
    told = database.ran_once(long + in_two + again)
    versions = {line.job_id: line.version for line in told}
    assert [versions[job] for job in long + in_two + again] == ["1", "2", *["1"] * 5]


def test_a_version_that_never_gets_ready_costs_nothing(space: Cluster, database: Database) -> None:
    queue = space.queue("unready", {"workers": {"rollout": {"progressDeadlineSeconds": 30}}})
    queue.serves("1")
    lives = queue.lives("1")

    broken = {"name": "worker", "image": "forge-jobs-e2e-handlers:1", "command": ["sleep", "3600"]}
    queue.change({"workers": {"version": "2", "template": {"spec": {"containers": [broken]}}}})
    queue.becomes("Progressing", "False", "ProgressDeadlineExceeded", within=120)
    assert queue.status()["currentVersion"]["version"] == "1"
    assert queue.lives("1") == lives
    jobs = database.enqueue("unready", 0, 5)
    database.are_done(jobs, within=60)
    assert {line.version for line in database.ran_once(jobs)} == {"1"}

    space.queue("unready", {"workers": {"rollout": {"progressDeadlineSeconds": 30}}})
    queue.becomes("Ready", "True", within=60)
    queue.becomes("Progressing", "True", "RolloutComplete", "Draining", within=60)
    assert queue.lives("1") == lives
