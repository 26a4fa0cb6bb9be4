"""Evictions, as a drain of nodes makes them: what a budget holds back, and what it lets go."""

import json

import pytest

from tests.e2e.cluster import Cluster, CommandFailed, Manifest
from tests.e2e.database import UNTIL_TOLD, Database
from tests.e2e.waiting import eventually

LABEL = "forge-jobs.dev/long-jobs"
TWO = {"minReplicas": 2, "maxReplicas": 2}  # scaled by load, it is looked at every few seconds


def test_a_pod_that_runs_a_job_for_long_is_not_evicted_while_that_runs_and_idle_ones_are(
    space: Cluster, database: Database
) -> None:
    disruption = {"budget": "LongJobs", "longAfterSeconds": 5}
    spec = {"replicas": None, "slots": 1, "autoscaling": TWO, "disruption": disruption}
    queue = space.queue("kept", {"workers": spec})
    queue.serves("1", pods=2)
    queue.becomes("Protected", "True", "BudgetInPlace", within=30)
    job = database.enqueue("kept", UNTIL_TOLD)
    database.are_running(job, within=30)
    busy = eventually(lambda: marked(queue.pods("1")), within=60, what="its pod is marked")[0]
    assert busy["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert busy["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    (idle,) = [each for each in queue.pods("1") if LABEL not in each["metadata"]["labels"]]

    evict(space, idle)
    with pytest.raises(CommandFailed, match="disruption budget"):
        evict(space, busy)
    queue.change({"workers": {"version": "2"}})
    queue.serves("2", pods=2)
    with pytest.raises(CommandFailed, match="disruption budget"):
        evict(space, busy)  # also as a pod of a version that drains

    database.let_end(job)
    database.are_done(job, within=60)
    assert {line.pod for line in database.ran_once(job)} == {busy["metadata"]["name"]}
    eventually(lambda: not marked(queue.pods()), within=180, what="nothing is marked any more")


def test_one_pod_of_a_pool_is_evicted_at_a_time(space: Cluster) -> None:
    queue = space.queue("drained", {"workers": {"replicas": 2}})
    queue.serves("1", pods=2)
    queue.becomes("Protected", "True", "BudgetInPlace", within=30)
    eventually(lambda: allowed(space) == 1, within=60, what="the budget has counted the pods")
    first, second = queue.ready_pods()

    evict(space, first)
    with pytest.raises(CommandFailed, match="disruption budget"):
        evict(space, second)
    queue.serves("1", pods=2)
    eventually(lambda: allowed(space) == 1, within=60, what="another may go")

    space.patch("poddisruptionbudget", "drained-workers", {"spec": {"maxUnavailable": 2}})
    eventually(
        lambda: space.get("poddisruptionbudget", "drained-workers")["spec"]["maxUnavailable"] == 1,
        within=150,
        what="it is made right again",
    )
    queue.remove()
    eventually(
        lambda: not space.exists("poddisruptionbudget", "drained-workers"),
        within=60,
        what="it goes with its pool",
    )


def allowed(space: Cluster) -> int:
    """Return how many pods the budget would let go now."""
    found: int = space.get("poddisruptionbudget", "drained-workers")["status"]["disruptionsAllowed"]
    return found


def marked(pods: list[Manifest]) -> list[Manifest]:
    """Return the pods that are marked."""
    return [each for each in pods if LABEL in each["metadata"]["labels"]]


def evict(space: Cluster, pod: Manifest) -> None:
    """The pod goes, as if its node was drained. Raises CommandFailed when a budget holds it back."""
    versions = space.kubectl("api-versions").split()
    body = {
        # evictions are in policy/v1 later than budgets are
        "apiVersion": "policy/v1beta1" if "policy/v1beta1" in versions else "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod["metadata"]["name"], "namespace": space.namespace},
    }
    path = f"/api/v1/namespaces/{space.namespace}/pods/{pod['metadata']['name']}/eviction"
    space.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
