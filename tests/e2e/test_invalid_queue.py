"""What is not allowed is said in a condition, and nothing that works is touched."""

from tests.e2e.cluster import Cluster, CommandFailed, Queue
from tests.e2e.database import Database
from tests.e2e.waiting import always

# Only the operator may set this variable; no rule of the API server can know that.
RESERVED = {
    "name": "worker",
    "image": "forge-jobs-e2e-handlers:1",
    "env": [{"name": "FORGE_QUEUES", "value": "all"}],
}


def test_a_template_that_is_not_allowed_changes_nothing(space: Cluster, database: Database) -> None:
    other = space.queue("beside")
    queue = space.queue("invalid")
    queue.serves("1")
    other.serves("1")
    before = queue.lives(), other.lives(), set(queue.deployments())

    queue.change({"workers": {"template": {"spec": {"containers": [RESERVED]}}}})
    condition = queue.becomes("Ready", "False", "InvalidSpec", "InvalidTemplate", within=60)
    assert "FORGE_QUEUES" in condition["message"], condition
    always(
        lambda: (queue.lives(), other.lives(), set(queue.deployments())) == before,
        during=5,
        what="pods and Deployments are as before",
    )
    still = database.enqueue("invalid", 0, 3) + database.enqueue("beside", 0, 3)
    database.are_done(still, within=60)
    database.ran_once(still)

    space.queue("invalid")
    queue.becomes("Ready", "True", within=60)
    assert (queue.lives(), other.lives(), set(queue.deployments())) == before


def test_what_contradicts_itself_is_refused_or_told(space: Cluster, database: Database) -> None:
    contradiction = {"workers": {"replicas": 1, "autoscaling": {"maxReplicas": 3}}}
    try:
        space.queue("contradiction", contradiction)
    except CommandFailed as error:  # clusters that know CEL
        assert "replicas and autoscaling exclude each other" in error.output
        return
    queue = Queue(space, "contradiction")
    condition = queue.becomes("Synced", "False", "InvalidSpec", within=60)
    assert "replicas and autoscaling exclude each other" in condition["message"]
    assert not queue.deployments()
    assert not database.rows("SELECT FROM forge_jobs.queue WHERE name = 'contradiction'")


def test_a_misspelt_field_is_refused_by_the_server(space: Cluster) -> None:
    found = space.kubectl("explain", "forgequeue.spec.backoff")
    assert "baseSeconds" in found
    try:
        space.queue("range", {"workers": {"slots": 0}})
    except CommandFailed as error:
        assert "spec.workers.slots" in error.output
    else:
        raise AssertionError("slots: 0 was taken")
