"""A new version takes over step by step, and goes back by itself when its jobs fail."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import groupby

from tests.e2e.cluster import Cluster, Manifest, Queue, watched
from tests.e2e.database import Database
from tests.e2e.waiting import eventually

# No pause can be shorter.
STEPS = [{"weightPercent": 25, "pauseSeconds": 30}, {"weightPercent": 50, "pauseSeconds": 30}]
HALF = {
    "strategy": "Progressive",
    "steps": [{"weightPercent": 50, "pauseSeconds": 3600}],
    "abort": {"maxFailurePercent": 30, "minSamples": 10},
}
BROKEN = {
    "name": "worker",
    "image": "forge-jobs-e2e-handlers:1",
    "imagePullPolicy": "IfNotPresent",
    "env": [{"name": "E2E_BROKEN", "value": "yes"}],
}


def test_a_new_version_gets_its_share_step_by_step(
    space: Cluster, database: Database, measure: Callable[[str, str], None]
) -> None:
    rollout = {"strategy": "Progressive", "steps": STEPS, "abort": {"minSamples": 10}}
    queue = space.queue("gradual", {"workers": {"replicas": 4, "slots": 2, "rollout": rollout}})
    queue.serves("1", pods=4)
    steady = database.enqueue("gradual", 0.5, 720, spread=0.25)  # for 180 s, across the whole rollout

    with watched(space, "deployments") as deployments, watched(space, "forgequeue", "gradual") as queues:
        eventually(lambda: deployments() and queues(), within=30, what="the watches have begun", every=0.2)
        queue.change({"workers": {"version": "2"}})
        queue.serves("2", pods=4)
        # A share of the slots is a share of the pods.
        assert weights(found for _, found in queues()) == [25, 50]
        assert asked_for("2", (found for _, found in deployments())) == [1, 2, 4]
        assert asked_for("1", (found for _, found in deployments()))[:3] == [4, 3, 2]
    after = database.enqueue("gradual", 0, 10)
    database.hurry(steady)

    database.are_done(steady + after, within=120)
    started = [line for line in database.ran_once(steady + after) if line.what == "started"]
    first, promoted = (
        min(line.at for line in started if line.version == "2"),
        current_since(database, queue, "2"),
    )
    meanwhile = Counter(line.version for line in started if first <= line.at < promoted)
    assert set(meanwhile) == {"1", "2"}, f"only one of the versions worked: {meanwhile}"
    assert {line.version for line in started if line.job_id in after} == {"2"}
    measure(
        "progressive rollout by 25 % and 50 %: jobs of the old and the new version",
        f"{meanwhile['1']}, {meanwhile['2']}",
    )


def test_a_new_version_whose_jobs_fail_goes_back_by_itself(space: Cluster, database: Database) -> None:
    spec = {
        "maxAttempts": -1,
        "backoff": {"baseSeconds": 1, "maxSeconds": 5},
        "workers": {"replicas": 2, "slots": 2, "rollout": HALF},
    }
    queue = space.queue("recalled", spec)
    queue.serves("1", pods=2)
    jobs = database.enqueue("recalled", 0.1, 480, spread=0.5)  # for 240 s

    queue.change({"workers": {"version": "2", "template": {"spec": {"containers": [BROKEN]}}}})
    queue.becomes("Progressing", "False", "RolloutAborted", within=240)
    database.hurry(jobs)
    eventually(lambda: queue.version("2")["state"] == "Failed", within=30, what="version 2 has failed")
    assert queue.condition("Ready")["reason"] == "RolloutAborted"
    assert queue.status()["currentVersion"]["version"] == "1"
    eventually(lambda: not queue.pods("2"), within=90, what="the pods of version 2 are gone")
    eventually(lambda: len(queue.ready_pods("1")) == 2, within=90, what="version 1 has its pods again")

    database.are_done(jobs, within=120)
    told = database.ledger(jobs)
    ended = Counter(line.job_id for line in told if line.what == "ended")
    assert ended == Counter(jobs), "every job ended, and once"
    assert {line.version for line in told if line.what == "ended"} == {"1"}
    failed = [line for line in told if line.what == "failed"]
    assert len(failed) >= 10
    assert {line.version for line in failed} == {"2"}
    assert not [line for line in told if line.what == "stopped"], "jobs were interrupted"

    lives = queue.lives("1")
    space.queue("recalled", spec)  # as it was before
    queue.becomes("Progressing", "True", "RolloutComplete", within=60)
    queue.becomes("Ready", "True", within=60)
    eventually(lambda: set(queue.deployments()) == {"1"}, within=60, what="version 2 is gone")
    assert queue.lives("1") == lives
    reasons = {each["reason"] for each in space.all("events")}
    assert {"Ramping", "RolloutAborted", "Retired"} <= reasons, reasons


def weights(queues: Iterable[Manifest]) -> list[int]:
    """Return the shares that a version had one after another, by the status of a ForgeQueue."""
    versions = (each for found in queues for each in found.get("status", {}).get("versions", []))
    return without_repeats(each["weightPercent"] for each in versions if "weightPercent" in each)


def asked_for(version: str, deployments: Iterable[Manifest]) -> list[int]:
    """Return how many pods the version's Deployment asked for, one number after another."""
    return without_repeats(
        each["spec"]["replicas"]
        for each in deployments
        if each["metadata"]["annotations"]["forge-jobs.dev/version"] == version
    )


def without_repeats(numbers: Iterable[int]) -> list[int]:
    """Return the numbers, those left out that repeat the one before."""
    return [number for number, _ in groupby(numbers)]


def current_since(database: Database, queue: Queue, version: str) -> datetime:
    """Return when the version became the one that serves, by the database's clock."""
    query = "SELECT last_current_at FROM forge_jobs.worker_version"
    pool = queue.object()["metadata"]["uid"]
    found = database.value(f"{query} WHERE version = '{version}' AND pool = '{pool}'")
    return datetime.fromisoformat(found)
